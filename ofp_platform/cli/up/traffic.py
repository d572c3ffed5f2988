"""A trickle of simulated payments into the log, through its door where it has one, so that there is something to see."""

from __future__ import annotations

import threading
import time

from ofp_platform.cli.files.run_door import entrance_of
from ofp_platform.ingress.entrance import Entrance
from ofp_platform.log.port import LogUnavailable
from ofp_platform.online.plane import Plane
from ofp_platform.simulation.trickle import Trickle
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

PRODUCER = "up/trickle"
_TICK_SECONDS = 0.2
_MOST_A_TICK = 2_000


def trickle(plane: Plane, watermark: int | None, rate: float, stop: threading.Event) -> None:
    """Send `rate` payments a second until `stop` is set.

    The simulated clock goes on from the watermark (microseconds): payments of today beside a replay of last winter would push
    the whole replay behind the horizon. Without a replay it begins with the present.
    """
    began = time.time_ns() // 1000 if watermark is None else watermark + 1
    source = Trickle(plane.profile.context_pins, f"live-{began}")
    entrance: Entrance | None = None
    start = time.monotonic()
    appended_count = 0
    while not stop.wait(_TICK_SECONDS):
        seconds = time.monotonic() - start
        due = min(int(seconds * rate) - appended_count, _MOST_A_TICK)
        now = began + int(seconds * MICROS_PER_SECOND)
        try:
            events = [source.next(now - due + place) for place in range(due)]
            entrance = entrance or entrance_of(plane)
            entrance.send(events, PRODUCER, at_event_time=True)
            appended_count += due
        except Exception as error:
            if not (isinstance(error, LogUnavailable | ObjectStoreUnavailable) or is_transient(error)):
                raise
            continue  # what was due then is due now
