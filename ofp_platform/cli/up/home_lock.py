"""One `ofp up` per home folder: two of them would write into one set of logs and drive one plane twice."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ofp_platform.cli.terminal.refusals import CommandRefused


@contextmanager
def held_home(folder: Path) -> Iterator[None]:
    """The home folder for this process alone. The lock goes with the process: one that was killed leaves none behind.

    Raises:
        CommandRefused: a living process holds it; the text names the process and the folder. Nothing was changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "up.lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise CommandRefused(
                f"another `ofp up` (process {holder}) runs on {folder}; stop it, or name another folder with --home"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
