"""The keeper of posture: each step reads what is in force, and appends the change that follows, if one does.

The change, its message on control and the governance fact are committed together, while nobody commits a decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.ingress.own_streams import Message, append_messages
from ofp_platform.log.governance_log import append_facts_with
from ofp_platform.log.postgres import PostgresLog, log_answering
from ofp_platform.posture.evaluator import ProposedChange, Signals, evaluate
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.posture_changes import append_posture_change, last_posture_change, lock_posture, tell_of_posture
from ofp_platform.storage.posture_looks import note_look
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.posture import MOST_REASON, POSTURE_CHANGED, Mode, PostureChange, PostureMessage, PosturePolicy
from ofp_platform.vocabulary.offline.governance_fact import PostureChanged
from ofp_platform.vocabulary.times import format_time, parse_time


class PostureRefused(Exception):
    """A step that cannot be taken; the text says why and what to do."""


@dataclass(frozen=True)
class KeeperOutcome:
    """The change in force behind a step. `is_new`: the step appended it."""

    change: PostureChange
    is_new: bool


Step = Callable[[PostureChange | None], PostureChange | None]


@dataclass(frozen=True)
class PostureKeeper:
    """Of one run. `control`: its stream of control; `policy_rev`: that of the profile; `now`: microseconds; `actor`: for the
    record.
    """

    pool: Pool
    control: PostgresLog
    pins: ContextPins
    policy_rev: str
    now: Callable[[], int]
    actor: str

    def look(self, signals: Signals, policy: PosturePolicy, watched_since: int) -> KeeperOutcome | None:
        """Take the step that signals ask for (`evaluate`); None: they ask for none. That somebody looked is noted.

        Raises:
            LogUnavailable | LogUnsettled: nothing was changed; look again.
        """
        at = self.now()
        with log_answering(), self.pool.connection() as connection:  # no look that changes nothing stops who decides
            note_look(connection, self.pins)
            if evaluate(signals, policy, last_posture_change(connection, self.pins), at, watched_since) is None:
                return None

        def step(previous: PostureChange | None) -> PostureChange | None:
            proposed = evaluate(signals, policy, previous, at, watched_since)
            return None if proposed is None else self._change(previous, proposed, at, is_held=False)

        outcome = self._take(step)
        return outcome if outcome is not None and outcome.is_new else None

    def hold(self, mode: Mode, reason: str) -> KeeperOutcome:
        """Put a mode in force at once, whatever signals say, until it is released. Again with the same reason, nothing happens.

        Raises:
            PostureRefused: no reason, or one that is too long.
            MessageRefused: the reason holds a card number. LogUnavailable | LogUnsettled: see there.
        """
        words = _reason(reason)

        def step(previous: PostureChange | None) -> PostureChange | None:
            if previous is not None and previous.held and (previous.mode, previous.reasons) == (mode, (words,)):
                return None
            at = self.now()
            return self._change(previous, ProposedChange(mode, (words,), {}, at), at, is_held=True)

        outcome = self._take(step)
        assert outcome is not None
        return outcome

    def release(self, reason: str) -> KeeperOutcome:
        """Let signals change the mode again, which stays until they do. Where nobody holds one, nothing happens.

        Raises:
            PostureRefused: nothing was ever said; or as `hold`. MessageRefused | LogUnavailable | LogUnsettled: see there.
        """
        words = _reason(reason)

        def step(previous: PostureChange | None) -> PostureChange | None:
            if previous is None or not previous.held:
                return None
            at = self.now()
            return self._change(previous, ProposedChange(previous.mode, (words,), {}, at), at, is_held=False)

        outcome = self._take(step)
        if outcome is None:
            raise PostureRefused(
                f"nobody ever said anything of the posture of run {self.pins.run_id!r}, so there is nothing to release:"
                " `ofp posture hold MODE` or `ofp posture watch` begins"
            )
        return outcome

    def _take(self, step: Step) -> KeeperOutcome | None:
        with log_answering(), self.pool.connection() as connection:
            with connection.transaction():
                lock_posture(connection, self.pins)
                previous = last_posture_change(connection, self.pins)
                change = step(previous)
                if change is None:
                    return None if previous is None else KeeperOutcome(previous, is_new=False)
                self._append(connection, previous, change)
            self.control.tell(connection)
            tell_of_posture(connection, self.pins)
        return KeeperOutcome(change, is_new=True)

    def _append(self, connection: Connection[Any], previous: PostureChange | None, change: PostureChange) -> None:
        payload = PostureMessage(**dict(change), scenario_run_id=self.pins.scenario_run_id or self.pins.run_id)
        message = Message(POSTURE_CHANGED, change.message_id, self.pins, change.at_utc, payload)
        [position] = append_messages(connection, self.control, [message])
        append_posture_change(connection, change, position)
        fact = PostureChanged(
            context_pins=self.pins,
            sequence=change.sequence,
            message_id=change.message_id,
            former_mode=Mode.FAIL_CLOSED if previous is None else previous.mode,
            mode=change.mode,
            held=change.held,
            reasons=change.reasons,
            actor=change.actor,
            at_utc=change.at_utc,
        )
        append_facts_with(connection, [fact])

    def _change(self, previous: PostureChange | None, proposed: ProposedChange, at: int, *, is_held: bool) -> PostureChange:
        # the clock may have stepped back; what control says does not
        latest = at if previous is None else max(at, parse_time(previous.at_utc))
        return PostureChange(
            context_pins=self.pins,
            sequence=0 if previous is None else previous.sequence + 1,
            mode=proposed.mode,
            held=is_held,
            reasons=proposed.reasons,
            signals=proposed.signals,
            bad_since_utc=format_time(max(proposed.bad_since, latest)),
            at_utc=format_time(latest),
            actor=self.actor,
            policy_rev=self.policy_rev,
        )


def _reason(reason: str) -> str:
    words = " ".join(reason.split())
    if not 1 <= len(words) <= MOST_REASON:
        raise PostureRefused(f"a reason of 1 to {MOST_REASON} characters stands in the record: say why")
    return words
