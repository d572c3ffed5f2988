"""How long an event takes from its own time to the log: a declared, seeded distribution.

Delays are what makes knowledge time mean something in a replay of history: an event is admitted at its own time plus
its delay, and where a delay is longer than the gap to the next event, the log holds the two out of order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofp_platform.vocabulary.times import MICROS_PER_SECOND

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DelayModel:
    """Lognormal around `median_seconds`, cut at `maximum_seconds`; a `late_share` of events takes far longer instead.

    `sigma` is that of the logarithm. A late event's delay is uniform in [late_minimum_seconds, late_maximum_seconds).
    """

    median_seconds: float = 0.4
    sigma: float = 1.2
    maximum_seconds: float = 60.0
    late_share: float = 0.0002
    late_minimum_seconds: float = 600.0
    late_maximum_seconds: float = 21_600.0

    def __post_init__(self) -> None:
        if self.median_seconds <= 0 or self.sigma < 0 or self.maximum_seconds <= 0:
            raise ValueError("a delay model needs median_seconds > 0, sigma >= 0 and maximum_seconds > 0")
        if not 0 <= self.late_share <= 1:
            raise ValueError("late_share is a share: between 0 and 1")
        if not self.maximum_seconds <= self.late_minimum_seconds <= self.late_maximum_seconds:
            raise ValueError("a late event is later than any other: maximum <= late_minimum <= late_maximum")


class DelaySampler:
    """Draws the delays of events one after the other; how they are cut into calls changes nothing.

    Each kind of draw has a generator of its own, and each event takes one number of each, so that delay n is a function
    of (model, seed, n) alone.
    """

    def __init__(self, model: DelayModel, seed: np.random.SeedSequence) -> None:
        self.model = model
        self._body, self._choice, self._tail = (np.random.default_rng(child) for child in seed.spawn(3))

    def draw(self, count: int) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """The next `count` delays in microseconds (int64, shape (count,), >= 1) and which of them are late (bool)."""
        model = self.model
        seconds = model.median_seconds * np.exp(model.sigma * self._body.standard_normal(count))
        late = self._choice.random(count) < model.late_share
        span = model.late_maximum_seconds - model.late_minimum_seconds
        tail = model.late_minimum_seconds + span * self._tail.random(count)
        seconds = np.where(late, tail, np.minimum(seconds, model.maximum_seconds))
        return np.maximum((seconds * MICROS_PER_SECOND).astype(np.int64), 1), late
