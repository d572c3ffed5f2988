"""Sends mutants to the process that runs tests against them, and hands back how each fared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ofp_platform.storage.embedded import stop_embedded
from ofp_platform_tests.torture.mutation.mutants import Mutant

ROOT = Path(__file__).parents[3]
DEAD = ("killed", "timeout")


class MutantsNotTried(Exception):
    """The process that tries mutants ended before all of them were tried."""


@dataclass(frozen=True)
class Target:
    """A module (by its name), its source, the test files that should find a change of it, and the mutants to try."""

    module: str
    path: Path
    tests: tuple[str, ...]
    mutants: tuple[Mutant, ...]


@dataclass(frozen=True)
class Outcome:
    """How one mutant fared: killed, timeout, survived, or not a program. `line`, `before`, `after`: the change.

    Or, in place of all mutants of a module, error: its tests fail without one, and `failed` is the end of what pytest said.
    """

    module: str
    verdict: str
    operator: str
    line: int = 0
    before: str = ""
    after: str = ""
    failed: str | None = None
    took: float = 0.0


def run(
    targets: Sequence[Target],
    folder: Path,
    *,
    jobs: int = 2,
    paths: Sequence[str] = (),
    heard: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Try every mutant of every target, `jobs` at a time. `folder`: empty, for databases and logs; `paths`: more to import from.

    Raises:
        MutantsNotTried: see there.
    """
    order = {
        "folder": str(folder),
        "jobs": jobs,
        "paths": list(paths),
        "targets": [
            {
                "module": target.module,
                "path": str(target.path),
                "tests": [str(ROOT / name) for name in target.tests],
                "mutants": [(one.line, one.column, one.place, one.operator, one.index) for one in target.mutants],
            }
            for target in targets
        ],
    }
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "HYPOTHESIS_PROFILE": "mutants",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "OFP_TEST_ROOT": str(folder),
    }
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"):
        environment.pop(name, None)
    outcomes: list[Outcome] = []
    command = [sys.executable, "-m", "ofp_platform_tests.torture.mutation.server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            json.dump(order, process.stdin)
            process.stdin.close()
            for text in process.stdout:
                event = json.loads(text)
                if event["verdict"] == "surveyed":
                    continue
                if event["verdict"] == "error":
                    event = {"operator": "", "failed": str(event.get("text", event)), **event}
                fields = {name: event[name] for name in Outcome.__dataclass_fields__ if name in event}
                outcomes.append(Outcome(**fields))
                heard(outcomes[-1])
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # it has a session of its own: the forks go with it
            if (folder / "pg").exists():
                stop_embedded(folder / "pg")
    broken = {outcome.module for outcome in outcomes if outcome.verdict == "error"}
    wanted = sum(len(target.mutants) for target in targets if target.module not in broken)
    found = sum(outcome.module not in broken for outcome in outcomes)
    if found != wanted:
        raise MutantsNotTried(f"{wanted - found} of {wanted} mutants were not tried: the process ended")
    return outcomes
