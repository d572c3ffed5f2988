"""A decider that follows the log: decides on what comes, answers challenges, and outlives outages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import psycopg

from ofp_platform.decisions.decider import Decider, DeciderTally
from ofp_platform.log.port import LogUnavailable
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.storage.posture_challenges import answer_challenges
from ofp_platform.storage.posture_changes import tell_of_posture
from ofp_platform.storage.transient import is_transient

_WAIT_SECONDS = 0.5
_AFTER_TROUBLE_SECONDS = 1.0
_ANSWER_SECONDS = 0.2


@dataclass(frozen=True)
class Follower:
    """`name`: of this decider, by which it answers. `run_in_loop`: runs a step in the loop in which the decider asks.
    `clock`: seconds that never go back."""

    decider: Decider
    name: str
    on_step: Callable[[DeciderTally], None]
    on_trouble: Callable[[str], None]
    run_in_loop: Callable[[Coroutine[Any, Any, DeciderTally]], DeciderTally]
    clock: Callable[[], float] = time.monotonic

    def run(self, stop: threading.Event) -> None:
        """Decide on what comes until the event is set; it ends between two steps.

        Raises:
            PlaceMoved: another decider of the run is at work. PostureUnsteady | LogRefused | BundleDamaged: see there.
        """
        answered_at = self.clock() - _ANSWER_SECONDS

        def is_time() -> bool:
            return stop.is_set() or self.clock() - answered_at >= _ANSWER_SECONDS

        while not stop.is_set():
            try:
                step = self.decider.decide_available(enough=is_time)
                total = self.run_in_loop(step)
                if is_time():  # not behind each step: it is a transaction of its own
                    self.answer()
                    answered_at = self.clock()
            except (LogUnavailable, ObjectStoreUnavailable) as outage:
                self.on_trouble(str(outage))
                stop.wait(_AFTER_TROUBLE_SECONDS)
                continue
            except psycopg.Error as error:
                if not is_transient(error):
                    raise
                self.on_trouble(str(error).partition("\n")[0])
                stop.wait(_AFTER_TROUBLE_SECONDS)
                continue
            if total.outcomes or total.known_events:
                self.on_step(total)
                continue
            place = self.decider.place()
            if place is None:  # the log is empty
                stop.wait(_WAIT_SECONDS)
            else:
                self.decider.reader.log.wait(place, _WAIT_SECONDS)

    def answer(self) -> None:
        """Say that this decider is alive, and answer challenges with the mode that it decides under now."""
        pins = self.decider.pins
        with self.decider.pool.connection() as connection:
            with connection.transaction():
                in_force = self.decider.in_force.hold(connection)
                answered = answer_challenges(connection, pins, self.name, in_force.posture)
            if answered:
                tell_of_posture(connection, pins)
