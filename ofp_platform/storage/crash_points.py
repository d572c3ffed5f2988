"""Named places where a test may end the process, to prove that stopping anywhere changes nothing.

`OFP_CRASH_POINT=name` (or `name:n` for the n-th passage) makes the process end itself with SIGKILL there. Nothing else
happens here, and without the variable the call is one dictionary look-up.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_passages: Counter[str] = Counter()
_wanted, _, _passage = os.environ.get("OFP_CRASH_POINT", "").partition(":")


def crash_point(name: str) -> None:
    """End the process here, as if it had been killed, when the environment asks for it."""
    if name != _wanted:
        return
    _passages[name] += 1
    if _passages[name] >= int(_passage or 1):
        os.kill(os.getpid(), signal.SIGKILL)
