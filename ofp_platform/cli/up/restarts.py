"""How often a process that ends by itself is started again, and after which pause."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST = 5
WITHIN_SECONDS = 600.0
_FIRST_SECONDS = 1.0


@dataclass
class Restarts:
    """The restarts of each process within the last minutes, by its name; times in seconds of one clock."""

    _times: dict[str, list[float]] = field(default_factory=dict)

    def pause(self, name: str, now: float) -> float | None:
        """Seconds to wait before it is started again, twice as many each time; None: it has ended too often to go on."""
        times = [time for time in self._times.get(name, []) if now - time < WITHIN_SECONDS]
        if len(times) >= MOST:
            return None
        self._times[name] = [*times, now]
        return _FIRST_SECONDS * (1 << len(times))
