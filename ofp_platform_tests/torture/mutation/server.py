"""Runs tests against mutants: one warmed process, a fork per mutant. Started by `mutation_runs`, never by hand.

Per module under test a fork (the *survey*) runs its tests without a mutant: they must pass, and it learns how long each takes
and what they import. A second fork then imports all of that except the module and what depends on it, and forks once per
mutant; there the module is loaded from its mutated source, what depends on it is imported anew, and the tests run, quickest
first, until one fails. So they do against the module as it is, and must pass again: else a kill would say nothing.

Compiled loops run as the Python that they are written in: `native` is replaced before any of them is imported, so a mutant
takes effect at once and no code compiled from another source can be met. Hypothesis is derandomised, keeps no examples and
does not shrink: a kill can be repeated.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import grimp
import hypothesis
import numpy as np
import pytest
from numba import types

import ofp_platform.kernel.native
from ofp_platform_tests.torture.mutation.mutants import UNCHANGED, Mutant, changed_line, mutate
from ofp_platform_tests.torture.mutation.table import TOO_LONG

ROOT = Path(__file__).parents[3]
EXAMPLES = 25
NOT_A_PROGRAM = 100
ROOM = 4 * 2**30  # bytes that a mutant may allocate
LOADING_SECONDS = 30.0
LEAST_SECONDS = 1.0


def _plain(signature: Any = None) -> Callable[[Any], Any]:
    """In place of `native`: the function itself, with 64-bit integers that wrap silently, as compiled ones do."""

    def keep(function: Any) -> Any:
        if signature is None:
            return function
        integers = [argument == types.int64 for argument in signature.args]

        @wraps(function)
        def call(*arguments: Any) -> Any:
            with np.errstate(all="ignore"):
                return function(*[np.int64(a) if integer else a for a, integer in zip(arguments, integers, strict=True)])

        return call

    return keep


class Mutated(importlib.machinery.SourceFileLoader):
    """Finds one module, and loads it from another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        super().__init__(name, str(path))
        self.source = source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_code(self, fullname: str) -> Any:
        return compile(self.source, self.path, "exec")


class Turns:
    """The tests of a run: quickest first, each with a limit of processor time; remembers who failed, and what each took."""

    def __init__(self, usual: dict[str, float] | None = None) -> None:
        self.usual = usual
        self.seconds: dict[str, float] = {}
        self.failed: str | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.workerinput = {}  # type: ignore[attr-defined]  # the folder of databases is the server's, not this run's

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.usual is not None:
            usual = self.usual
            items.sort(key=lambda item: usual.get(item.nodeid, 0.0))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        if self.usual is not None:
            limit(LEAST_SECONDS + 5 * self.usual.get(item.nodeid, 0.0))
        began = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - began
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid


def limit(seconds: float) -> None:
    """End this process by SIGPROF after so much processor time, or by SIGALRM when it waits very much longer."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 30 + 20 * seconds)


def run_tests(tests: Sequence[str], turns: Turns) -> int:
    """Pytest's exit code."""
    plugins = ("pytest_asyncio.plugin", "pytest_timeout")
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "--timeout=0", "-x", "-q", "--assert=plain"]
    options += ["--no-header", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    options += ["--tb=short"] if turns.usual is None else ["--tb=no", "--no-summary"]
    for plugin in plugins:
        options += ["-p", plugin]
    options += [f"--deselect={test}" for test in TOO_LONG]
    return int(pytest.main([*options, *tests], plugins=[turns]))


def child(work: Callable[[], dict[str, Any]], output: Path | None = None) -> tuple[int, int]:
    """Fork; the child writes what `work` returns, as JSON, into a pipe, and ends. Returns its id and the pipe's other end."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        os.close(reading)
        quiet = os.open(output or os.devnull, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        found = json.dumps(work()).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(found)
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def collected(reading: int) -> Any:
    """What a child wrote, or None when it ended before."""
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    return json.loads(text) if text else None


def survey(tests: Sequence[str]) -> dict[str, Any]:
    """Run the tests as they are."""
    turns = Turns()
    code = run_tests(tests, turns)
    return {"code": code, "failed": turns.failed, "seconds": turns.seconds, "modules": sorted(sys.modules)}


def attempt(target: dict[str, Any], mutant: Mutant, usual: dict[str, float]) -> dict[str, Any]:
    """Run the tests against a mutant."""
    path = Path(target["path"])
    source = mutate(path, mutant)
    if source is None:
        return {"code": NOT_A_PROGRAM}
    line, before, after = changed_line(path, source)
    sys.meta_path.insert(0, Mutated(target["module"], path, source))
    room = resource.getrlimit(resource.RLIMIT_AS)[1]
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, room))
    limit(LOADING_SECONDS)
    turns = Turns(usual)
    code = run_tests(target["tests"], turns)
    return {"code": code, "failed": turns.failed, "line": line, "before": before, "after": after}


def verdict(status: int, found: dict[str, Any] | None) -> str:
    """How a mutant fared, by how its process ended."""
    if os.WIFSIGNALED(status):
        return "timeout" if os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGALRM) else "killed"
    if found is None:
        return "killed"  # it ended the process
    codes = {
        pytest.ExitCode.OK: "survived",
        pytest.ExitCode.TESTS_FAILED: "killed",
        pytest.ExitCode.INTERRUPTED: "killed",  # the tests could not be imported
        pytest.ExitCode.INTERNAL_ERROR: "killed",
        NOT_A_PROGRAM: "not a program",
    }
    return codes.get(found["code"], "error")


def hunt(target: dict[str, Any], affected: set[str], jobs: int, say: Callable[[dict[str, Any]], None], folder: Path) -> None:
    """All mutants of one module."""
    module = target["module"]
    log = folder / f"{module}.log"
    pid, reading = child(lambda: survey(target["tests"]), log)
    surveyed = collected(reading)
    os.waitpid(pid, 0)
    if surveyed is None or surveyed["code"] != 0 or not surveyed["seconds"]:
        say({"module": module, "verdict": "error", "text": log.read_text()[-4000:]})
        return
    for name in surveyed["modules"]:
        if name not in affected and ".test_" not in name and "conftest" not in name:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    say({"module": module, "verdict": "surveyed", "seconds": sum(surveyed["seconds"].values())})
    gc.collect()
    gc.freeze()
    waiting = [UNCHANGED, *(Mutant(*mutant) for mutant in target["mutants"])]
    running: dict[int, tuple[Mutant, int, float]] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop(0)
            pid, reading = child(lambda mutant=mutant: attempt(target, mutant, surveyed["seconds"]))  # type: ignore[misc]
            running[pid] = (mutant, reading, time.monotonic())
        pid, status = os.wait()
        mutant, reading, began = running.pop(pid)
        found = collected(reading)
        fate = verdict(status, found)
        if mutant == UNCHANGED:
            if fate != "survived":
                say({"module": module, "verdict": "error", "text": f"in a fork its tests fail without a mutant: {found}"})
                break
            continue
        answer = {"module": module, "place": mutant.place, "operator": mutant.operator, "index": mutant.index}
        say({**(found or {}), **answer, "verdict": fate, "took": time.monotonic() - began})


def main() -> None:
    """Read the order from standard input, write one JSON line per event to standard output."""
    order = json.load(sys.stdin)
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    ofp_platform.kernel.native.native = _plain
    every: Any = hypothesis.settings
    every.register_profile(
        "mutants",
        deadline=None,
        derandomize=True,
        database=None,
        max_examples=EXAMPLES,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    sys.path[:0] = order["paths"]
    graph = grimp.build_graph("ofp_platform", "ofp_platform_tests", cache_dir=None)

    def say(event: dict[str, Any]) -> None:
        lines.write(json.dumps(event) + "\n")

    for target in order["targets"]:
        name = target["module"]
        affected = {name, *(graph.find_downstream_modules(name) if name in graph.modules else ())}
        pid = os.fork()
        if not pid:
            try:
                hunt(target, affected, order["jobs"], say, Path(order["folder"]))
                lines.flush()
            except BaseException as error:
                say({"module": name, "verdict": "error", "text": repr(error)})
            finally:
                os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
