"""The loop that looks at signals and keeps the posture, until it is told to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event

from ofp_platform.log.port import LogUnavailable
from ofp_platform.posture.evaluator import Signals
from ofp_platform.posture.keeper import KeeperOutcome, PostureKeeper
from ofp_platform.vocabulary.loop.posture import PosturePolicy
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

LOOK_SECONDS = 1.0
GAP_SECONDS = 10
"""Between two looks; behind a longer gap, quiet begins anew."""
logger = logging.getLogger(__name__)


@dataclass
class PostureWatch:
    """Looks at signals, one after the other. `read`: the signals now; it ends within seconds, whatever answers."""

    keeper: PostureKeeper
    policy: PosturePolicy
    read: Callable[[], Signals]
    _watched_since: int | None = field(default=None, init=False)
    _looked_at: int = field(default=0, init=False)

    def look(self) -> KeeperOutcome | None:
        """One look; the change that it made, or None.

        Raises:
            LogUnavailable | LogUnsettled: see `PostureKeeper.look`.
        """
        signals, now = self.read(), self.keeper.now()
        if self._watched_since is None or not 0 <= now - self._looked_at <= GAP_SECONDS * MICROS_PER_SECOND:
            self._watched_since = now
        self._looked_at = now
        return self.keeper.look(signals, self.policy, self._watched_since)

    def run(self, stop: Event, on_change: Callable[[KeeperOutcome], None]) -> None:
        """Look every `LOOK_SECONDS` until `stop` is set. While the database does not answer nothing can change: it looks again.

        Raises:
            LogUnsettled: the stream of control is of another server; an operator looks first.
        """
        while not stop.is_set():
            try:
                outcome = self.look()
            except LogUnavailable as error:
                logger.warning("the posture was not kept: %s", error)
            else:
                if outcome is not None:
                    on_change(outcome)
            stop.wait(LOOK_SECONDS)
