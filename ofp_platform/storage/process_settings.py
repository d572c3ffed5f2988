"""Settings of a process of the plane as a whole: set once, where it starts."""

from __future__ import annotations

import gc
import os

from ofp_platform.storage.private_files import UMASK

_COLLECT_AFTER = 50_000


def settle_process() -> None:
    """Make what this process and its children write its user's alone, and look for garbage rarely.

    Events and features are about people: no other user of the machine may read them.
    """
    os.umask(UMASK)
    collect_rarely()


def collect_rarely(after: int = _COLLECT_AFTER) -> None:
    """Look for cycles of garbage after so many new objects instead of 700 or 2,000. A child process starts without this.

    The events of a batch live until its end, and make no cycles: walking over them again and again found nothing, and took a
    fifth of a comparison's time and of an append's.
    """
    gc.set_threshold(after, 10, 10)
