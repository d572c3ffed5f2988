"""Lines of a log begin with a time in UTC."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from ofp_platform.cli.stamped_output import VARIABLE, StampedOutput, without_stamp

STAMP = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) "


def test_every_line_has_its_time() -> None:
    behind = io.StringIO()
    output = StampedOutput(behind)
    before = datetime.now(UTC)
    for text in ("one\ntw", "o\n", "\n", "three"):
        output.write(text)
    assert [without_stamp(line) for line in behind.getvalue().splitlines()] == ["one", "two", ""]
    output.close()
    lines = behind.getvalue().splitlines()
    assert [without_stamp(line) for line in lines] == ["one", "two", "", "three"]
    for line in lines:
        stamp = re.match(STAMP, line)
        assert stamp
        assert -1 < (datetime.fromisoformat(stamp[1]) - before).total_seconds() < 3_600


def test_a_line_without_a_time_is_itself() -> None:
    assert without_stamp("serving at 2026") == "serving at 2026"


@pytest.mark.parametrize("asked", ["1", ""])
def test_the_program_stamps_what_it_is_asked_to(asked: str) -> None:
    command = [sys.executable, "-m", "ofp_platform.cli.main", "features", "get", "--key", "x"]
    run = subprocess.run(command, env={VARIABLE: asked}, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert all(bool(re.match(STAMP, line)) is bool(asked) for line in run.stderr.splitlines())
    assert run.stderr
