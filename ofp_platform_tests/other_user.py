"""What another user of the machine gets: a function, run in a fork of this process as `nobody`."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def as_nobody(attempt: Callable[[], object]) -> str:
    """What the attempt gives to a user without rights: its result, or the name of its exception and what it says."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                outcome = str(attempt())
            except BaseException as error:
                outcome = f"{type(error).__name__}: {error}"
            os.write(writing, outcome.encode()[:60_000])
        finally:
            os._exit(0)  # nothing of the parent's ends twice
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        outcome = pipe.read().decode()
    os.waitpid(child, 0)
    return outcome
