"""The HTTP service in a process of its own, as `ofp serve` runs it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.types import ASGIApp

from ofp_platform.api.server import serve

START_SECONDS = 120


@contextmanager
def own_service(factory: Callable[[], ASGIApp]) -> Iterator[tuple[int, int]]:
    """Its port and the id of its process; `factory` must be picklable."""
    context = multiprocessing.get_context("spawn")  # this process has threads, and a fork would take their locks along
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(factory,), kwargs={"port": 0, "on_ready": sending.send})
    process.start()
    try:
        if not receiving.poll(START_SECONDS):
            raise RuntimeError("the service did not start")
        assert process.pid is not None
        yield int(receiving.recv().rsplit(":", 1)[1]), process.pid
    finally:
        process.terminate()
        process.join(30)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
        receiving.close()
        sending.close()


def resident_bytes(pid: int) -> dict[int, int]:
    """Resident memory of a process and of all below it, by process id; empty when it is gone."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it ended meanwhile
    family = [pid] if pid in parents else []
    for one in family:
        family += [child for child, parent in parents.items() if parent == one]
    found = {}
    for one in family:
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith("VmRSS:"):
                found[one] = int(line.split()[1]) * 1024
    return found
