"""What a torture suite is, and how it is run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures, Row


@dataclass
class Run:
    """One run of a suite: what it may use, and what it found.

    size: 1.0 is the full length that the figures in docs/ are of; tests use a small fraction. seed: everything random comes
    from it. dsn: a PostgreSQL server of the run's own, on which a suite creates databases. folder: empty, removed afterwards.
    """

    size: float
    seed: int
    dsn: str
    folder: Path
    rows: list[Row] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def count(self, full: int, least: int = 1) -> int:
        """How many of something this run does, of `full` at full length."""
        return max(least, round(full * self.size))

    def claim(self, claim: str, *, tried: int, failed: int, aim: str, of: str = "") -> None:
        """Record what was tried how often, and how often it failed. Nothing tried is a failure too."""
        seen = f"{failed:,} of {tried:,}{' ' + of if of else ''} failed"
        self.rows.append(Row(claim, seen, aim, reached=failed == 0 and tried > 0))

    def fact(self, claim: str, seen: str, *, aim: str = "", reached: bool | None = None) -> None:
        """Record any other row."""
        self.rows.append(Row(claim, seen, aim, reached))


@dataclass(frozen=True)
class Suite:
    """A suite: its name on the command line, one line for readers, and what it does. Raises nothing for what it finds."""

    name: str
    title: str
    torture: Callable[[Run], None]

    def run(self, *, size: float, seed: int, dsn: str, folder: Path | None = None) -> Figures:
        """Run it and hand back its figures."""
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix=f"ofp-torture-{self.name}-", dir=folder) as own:
            run = Run(size, seed, dsn, Path(own))
            self.torture(run)
        arguments = {"size": size, "seed": seed}
        return Figures(
            self.name, "torture", self.title, tuple(run.rows), time.perf_counter() - began, arguments=arguments, raw=run.raw
        )
