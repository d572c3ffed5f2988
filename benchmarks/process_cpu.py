"""Processor time of processes with all that they started, as Linux tells it: a figure that a busy machine changes little."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PARENT, _TIMES = 1, slice(11, 15)  # fields behind the name of the program: its own times, and of children that ended


def parent_of(pid: int) -> int | None:
    """The process that started it; None where nobody tells."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_PARENT])
    except OSError:
        return None


def processor_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Seconds of each process and its descendants until now, by name; without those that are gone, and none without /proc."""
    seconds: dict[int, float] = {}
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        pid = int(path.parent.name)
        seconds[pid] = sum(int(ticks) for ticks in fields[_TIMES]) / _TICKS
        children.setdefault(int(fields[_PARENT]), []).append(pid)

    def total(pid: int) -> float:
        return seconds[pid] + sum(total(child) for child in children.get(pid, ()))

    return {name: total(pid) for name, pid in pids.items() if pid in seconds}
