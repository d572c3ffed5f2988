"""The findings of a benchmark or a torture suite: rows of a table, and a file of raw results that docs/figures.md is made from.

One format for both: each row says what was measured, what it should reach, what was seen, and whether that is enough. A
file holds one run of one suite on one machine at one time; rows of several runs are never mixed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(".figures")
"""Where runs leave their results (git ignores it); `make figures` publishes them in docs/."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    claim: what was measured, in words that stand alone. seen: the figure, with its unit. aim: what it should reach, or empty
    for a floor, a peer or a mere fact; reached: None where there is no aim.
    """

    claim: str
    seen: str
    aim: str = ""
    reached: bool | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """One run of one suite.

    suite: its name ("serving", "kill_loop"). kind: "bench" or "torture". title: one line for readers. arguments: what it was
    run with, the seed among them. raw: everything that the rows were computed from (latencies, counts), for whoever doubts them.
    """

    suite: str
    kind: str
    title: str
    rows: tuple[Row, ...]
    seconds: float
    arguments: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def has_missed_aim(self) -> bool:
        """Whether any aim was missed."""
        return any(row.reached is False for row in self.rows)

    def table(self) -> str:
        """The rows for a terminal."""
        width = max(len(row.claim) for row in self.rows)
        seen_width = max(len(row.seen) for row in self.rows)
        lines = [f"{self.title} ({self.seconds:,.0f} s)"]
        for row in self.rows:
            verdict = {None: "", True: "reached", False: "NOT REACHED"}[row.reached]
            lines.append(f"  {row.claim:{width}}  {row.seen:>{seen_width}}  {row.aim:>14}  {verdict}".rstrip())
        return "\n".join(lines)

    def write(self, folder: Path = FOLDER) -> Path:
        """Keep the raw results: `<folder>/<kind>-<suite>.json`, replaced as a whole."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.kind}-{self.suite}.json"
        content = {**asdict(self), "taken_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}", "commit": commit(), "machine": machine()}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content, default=str, sort_keys=True) + "\n")
        partial.replace(path)
        return path


def machine() -> dict[str, str]:
    """The machine that the figures were taken on."""
    cpu = platform.processor() or platform.machine()
    memory = ""
    if (info := Path("/proc/cpuinfo")).exists():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0] if models else cpu
    if (info := Path("/proc/meminfo")).exists():
        memory = f"{int(info.read_text().split()[1]) / 2**20:.0f} GiB"
    return {
        "cpu": cpu,
        "cores": str(os.cpu_count()),
        "memory": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit that was measured, with a plus where the tree differs from it; empty outside a repository."""
    commands = [["git", "rev-parse", "--short", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"]]
    answers = [subprocess.run(command, capture_output=True, text=True, check=False) for command in commands]
    if answers[0].returncode:
        return ""
    return answers[0].stdout.strip() + ("+" if answers[1].stdout.strip() else "")
