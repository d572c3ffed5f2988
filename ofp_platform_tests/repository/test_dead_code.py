"""`make dead-code`: what only a test calls is dead, an allowance needs a reason, and nothing to look at is no success."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = '''
"""A module."""


def live() -> int:
    """Called below."""
    return 1


VALUE = live()
print(VALUE)
'''
PLANTED = '''

def planted() -> int:
    """Nobody calls it."""
    return 2
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small package under this repository's own settings of vulture, with nothing dead and nothing allowed."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text[text.index("[tool.vulture]") :].split("\n[", 1)[0]
    assert tomllib.loads(section)["tool"]["vulture"]["paths"] == ["ofp_platform"]
    (tmp_path / "pyproject.toml").write_text(section, encoding="utf-8")
    (tmp_path / "ofp_platform").mkdir()
    (tmp_path / "ofp_platform" / "module.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / ".ci").mkdir()
    allow(tmp_path, "# path name: reason\n")
    return tmp_path


def allow(tree: Path, text: str) -> None:
    (tree / ".ci" / "dead_code_allowed.txt").write_text(text, encoding="utf-8")


def plant(tree: Path) -> None:
    with (tree / "ofp_platform" / "module.py").open("a", encoding="utf-8") as file:
        file.write(PLANTED)


def check(tree: Path) -> tuple[int, str]:
    command = [sys.executable, str(ROOT / ".ci" / "dead_code.py"), str(tree)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout + run.stderr


def test_nothing_dead_passes(tree: Path) -> None:
    assert check(tree) == (0, "no dead code but what is allowed\n")


def test_a_planted_function_is_dead_also_when_a_test_calls_it(tree: Path) -> None:
    plant(tree)
    tests = tree / "ofp_platform_tests"
    tests.mkdir()
    (tests / "test_module.py").write_text("from ofp_platform.module import planted\n\nassert planted() == 2\n", encoding="utf-8")
    code, said = check(tree)
    assert code == 1
    assert "ofp_platform/module.py:14: unused function 'planted' (60% confidence)\n" in said
    assert "'live'" not in said


def test_an_allowance_needs_a_reason_and_a_use(tree: Path) -> None:
    plant(tree)
    allow(tree, "ofp_platform/module.py planted: the framework calls it by its name\n")
    assert check(tree)[0] == 0
    allow(tree, "ofp_platform/module.py planted:\n")
    code, said = check(tree)
    assert (code, "dead_code_allowed.txt:1: not `path name: reason`" in said, "'planted'" in said) == (1, True, True)
    allow(tree, "ofp_platform/module.py planted: a reason\nofp_platform/module.py live: a reason\n")
    code, said = check(tree)
    assert (code, "ofp_platform/module.py live is not reported: delete the entry" in said) == (1, True)


def test_nothing_to_look_at_is_an_error(tree: Path) -> None:
    (tree / "ofp_platform" / "module.py").unlink()
    assert check(tree)[0] == 1
    assert "there is no Python file under ofp_platform: nothing was looked at" in check(tree)[1]
    (tree / "ofp_platform").rmdir()
    assert check(tree)[0] == 1


def test_a_file_that_cannot_be_read_as_python_is_an_error(tree: Path) -> None:
    (tree / "ofp_platform" / "broken.py").write_text("def (:\n", encoding="utf-8")
    code, said = check(tree)
    assert (code, "vulture could not look" in said) == (1, True)
