"""Crash points: what is armed ends the process, nothing else does, and the list of them is the list of those in the code."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ofp_platform
from ofp_platform.storage.crash_points import CRASH_POINTS, arm, crash_point

HERE, THERE = CRASH_POINTS[:2]


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """The kills that were asked for; none is done."""
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda process, number: calls.append((process, number)))
    yield calls
    arm("")


def test_only_the_named_point_in_its_n_th_passage_ends_the_process(killed: list[tuple[int, int]]) -> None:
    arm(HERE, 2)
    crash_point(THERE)
    crash_point(HERE)
    crash_point(THERE)
    assert killed == []
    crash_point(HERE)
    assert killed == [(os.getpid(), signal.SIGKILL)]


def test_arming_anew_counts_anew(killed: list[tuple[int, int]]) -> None:
    arm(HERE, 2)
    crash_point(HERE)
    arm(HERE, 2)
    crash_point(HERE)
    assert killed == []
    arm("")
    crash_point(HERE)
    assert killed == []


def test_a_place_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no crash point"):
        arm("projector.nowhere")
    with pytest.raises(ValueError, match="counted from 1, asked for was 0"):
        arm(HERE, 0)


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (f"{HERE}:2", -signal.SIGKILL),
        (HERE, -signal.SIGKILL),
        (f"{HERE}:3", 0),
        (THERE, 0),
        ("", 0),
        ("nowhere", 1),
        (f"{HERE}:x", 1),
    ],
)
def test_a_process_is_told_by_its_environment(told: str, status: int) -> None:
    program = f"from ofp_platform.storage.crash_points import crash_point\nfor _ in range(2): crash_point({HERE!r})"
    ended = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "OFP_CRASH_POINT": told}, capture_output=True, check=False
    )
    assert ended.returncode == status
    assert (b"OFP_CRASH_POINT" in ended.stderr) == (status == 1)


def test_the_list_is_what_is_in_the_code() -> None:
    found: list[str] = []
    for path in Path(ofp_platform.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "crash_point":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: a crash point is named by a text"
                found.append(str(name.value))
    assert sorted(found) == sorted(CRASH_POINTS)
