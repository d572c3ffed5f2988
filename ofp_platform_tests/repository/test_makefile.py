"""`make` alone says what can be done, and CI runs only what it says."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE))


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # the flags and variables of a `make test` around this run are not those of the inner one
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "ARGS")}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_make_alone_lists_every_target() -> None:
    result = make()
    assert result.returncode == 0, result.stderr
    listed = dict(line.strip().split(maxsplit=1) for line in result.stdout.splitlines())
    assert set(listed) == TARGETS
    assert {"setup", "demo", "test", "lint", "types", "imports", "up"} <= TARGETS


def test_every_target_of_ci_exists() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    found = re.search(r"^for target in (.+); do$", script, re.MULTILINE)
    assert found is not None
    targets = found.group(1).split()
    assert targets[0] == "test"
    assert set(targets) <= TARGETS


@pytest.mark.parametrize(
    ("interpreter", "says"),
    [
        ("no-such-python", "no 'no-such-python' on the path"),
        ("{old}", "is Python 3.10.1; Python 3.11 to 3.13 is needed"),
        ("{bare}", "comes without venv"),
    ],
)
def test_setup_says_what_is_wrong_with_an_interpreter(tmp_path: Path, interpreter: str, says: str) -> None:
    stand_ins = {
        "old": 'case "$*" in --version) echo Python 3.10.1;; *) exit 1;; esac',
        "bare": 'case "$*" in *version_info*) exit 0;; --version) echo Python 3.12.1;; *) exit 1;; esac',
    }
    for name, body in stand_ins.items():
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
    python = interpreter.format(**{name: tmp_path / name for name in stand_ins})
    result = make("setup", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert result.returncode != 0
    assert says in result.stderr
    assert not (tmp_path / "venv").exists()
