"""A disturbed period: what went wrong in it, how long the plane took to be itself again, what was found wrong afterwards."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from unittest import mock

from psycopg import conninfo

from ofp_platform.storage import postgres
from ofp_platform_tests.torture.faults.proxy import KINDS, Fault, FaultProxy, Upstream
from ofp_platform_tests.torture.suite import Run

RECOVERY_SECONDS = 60.0
"""A workload that has not completed so long after the network is well again hangs."""
SILENT_SECONDS = 2.0
"""The bound on a statement here; in the plane it is a hundred times as long, and the periods are as much shorter."""
PATIENCE_SECONDS = 4.0
T = TypeVar("T")


@dataclass
class Findings:
    """What the periods of one workload came to; texts begin with the title of their period."""

    periods: int = 0
    hung: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    recovery_seconds: list[float] = field(default_factory=list)
    counts: dict[str, Counter[Fault]] = field(default_factory=dict)

    def injected(self, name: str, *proxies: FaultProxy) -> None:
        """Take over what the proxies on the way to a store did."""
        total = self.counts.setdefault(name, Counter())
        for proxy in proxies:
            total.update(proxy.counts)

    def report(self, run: Run, workload: str) -> None:
        """The rows of a workload."""
        run.claim(f"{workload}: completes after faults", tried=self.periods, failed=len(self.hung), aim="0", of="periods")
        wrong = len({text.partition(": ")[0] for text in self.wrong})
        run.claim(f"{workload}: equal to the fold, nothing lost", tried=self.periods, failed=wrong, aim="0", of="periods")
        slow = sorted(self.recovery_seconds)
        if slow:
            seen = f"median {slow[len(slow) // 2]:.2f} s, longest {slow[-1]:.2f} s"
            run.fact(f"{workload}: time to recover", seen, aim=f"<= {RECOVERY_SECONDS:g} s", reached=slow[-1] <= RECOVERY_SECONDS)
        for name, counts in self.counts.items():
            seen = ", ".join(f"{counts[kind]:,} {kind}" for kind in KINDS)
            run.fact(
                f"{workload}: faults on the way to {name}", seen, aim="each > 0", reached=all(counts[kind] for kind in KINDS)
            )
        run.raw[workload] = {
            "hung": self.hung,
            "wrong": self.wrong,
            "recovery_seconds": self.recovery_seconds,
            "faults": {name: {str(kind): count for kind, count in counts.items()} for name, counts in self.counts.items()},
        }


def schedule(seed: int, periods: int, ways: int) -> Iterator[list[list[Fault]]]:
    """For each period what goes wrong on each way, one after the other: mostly one kind, in every fifth period all of them.

    Every kind comes equally often on every way; where there are few periods, all kinds come in each.
    """
    chance = random.Random(seed)
    turns: list[list[Fault]] = [[] for _ in range(ways)]
    for period in range(periods):
        if period % (len(KINDS) + 1) == 0:
            yield [chance.sample(KINDS, len(KINDS)) for _ in turns]
            continue
        for turn in turns:
            if not turn:
                turn += chance.sample(KINDS, len(KINDS))
        yield [[turn.pop()] for turn in turns]


def disturbed(proxies: Sequence[FaultProxy], planned: Sequence[Sequence[Fault]], seconds: float) -> Iterator[None]:
    """Let each proxy go through its faults; yields every now and then until that is over, and then all is well again.

    A fault lasts its share of the time, and longer (within bounds) where nothing has passed that it could be done to.
    """
    for faults in zip(*planned, strict=True):
        before = [proxy.counts[fault] for proxy, fault in zip(proxies, faults, strict=True)]
        for proxy, fault in zip(proxies, faults, strict=True):
            proxy.disturb(fault)
        ends = time.monotonic() + seconds / len(planned[0])
        while True:
            yield
            done = all(proxy.counts[fault] > n for proxy, fault, n in zip(proxies, faults, before, strict=True))
            if time.monotonic() > (ends if done else ends + PATIENCE_SECONDS):
                break
    for proxy in proxies:
        proxy.calm()


def title(number: int, planned: Sequence[Sequence[Fault]]) -> str:
    """A period in words."""
    return f"period {number} ({'; '.join(', '.join(faults) for faults in planned)})"


@contextmanager
def impatient() -> Iterator[None]:
    """The bound on a statement, shortened to the measure of the periods."""
    with mock.patch.object(postgres, "SILENT_SECONDS", SILENT_SECONDS):
        yield


def upstream_of(dsn: str) -> Upstream:
    """Where the server of a DSN listens."""
    parts = conninfo.conninfo_to_dict(dsn)
    host, port = str(parts.get("host") or "localhost"), int(parts.get("port") or 5432)
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def through(proxy: FaultProxy, dsn: str) -> str:
    """The same database, by way of the proxy."""
    parts = {name: value for name, value in conninfo.conninfo_to_dict(dsn).items() if name != "hostaddr"}
    return conninfo.make_conninfo(**{**parts, "host": "127.0.0.1", "port": proxy.port, "sslmode": "disable"})


def persist(action: Callable[[], T], passing: tuple[type[Exception], ...], deadline: float, pause: float = 0.05) -> T:
    """Do it again until it does not fail in a way that passes.

    Raises:
        TimeoutError: the deadline (of `time.monotonic`) is over.
    """
    while True:
        try:
            return action()
        except passing as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"still {type(error).__name__}: {error}") from error
            time.sleep(pause)


class Worker:
    """A thread whose failure is not lost."""

    def __init__(self, action: Callable[[], None], name: str) -> None:
        self.error: BaseException | None = None
        self._action = action
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._action()
        except BaseException as error:
            self.error = error

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def join(self, seconds: float) -> bool:
        """Whether it ended in time."""
        self._thread.join(max(0.0, seconds))
        return self.done
