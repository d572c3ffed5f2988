"""Lines about how far a long run is, in the log of the run: one about every ten seconds, however often something is done."""

from __future__ import annotations

import time
from collections.abc import Callable

TOLD_SECONDS = 10.0


class ProgressLines:
    """Tells what was done so far. `write` takes a line; `total`: how much there is in all, if known; `unit`: of both."""

    def __init__(
        self,
        write: Callable[[str], None],
        doing: str,
        unit: str,
        total: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._clock = write, clock
        self.doing = doing
        self._unit, self._total = unit, total
        self._done = 0
        self._began = self._told = clock()

    def add(self, count: int) -> None:
        """Count what was done now."""
        self.reach(self._done + count)

    def reach(self, done: int) -> None:
        """Take note that so much is done in all, and tell it where it is time to."""
        self._done = done
        now = self._clock()
        if now - self._told < TOLD_SECONDS:
            return
        self._told = now
        if self._total:
            amount = f"{done:,} of {self._total:,} {self._unit} ({min(done / self._total, 1):.0%})"
        else:
            amount = f"{done:,} {self._unit}"
        self._write(f"{self.doing}: {amount}, {now - self._began:.0f} s since it began")
