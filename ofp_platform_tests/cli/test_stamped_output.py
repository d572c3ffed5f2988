"""Lines of a log begin with a time in UTC."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from ofp_platform.cli.stamped_output import FORM_VARIABLE, VARIABLE, StampedOutput, without_stamp
from ofp_platform.telemetry.log_lines import json_line

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


@pytest.mark.parametrize(("asked", "form"), [("1", "text"), ("1", ""), ("", "")])
def test_the_program_stamps_what_it_is_asked_to(asked: str, form: str) -> None:
    command = [sys.executable, "-m", "ofp_platform.cli.main", "features", "get", "--key", "x"]
    run = subprocess.run(command, env={VARIABLE: asked, FORM_VARIABLE: form}, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    if asked and not form:
        assert all(json.loads(line)["logger"] == "ofp.output" for line in run.stderr.splitlines())
    else:
        assert all(bool(re.match(STAMP, line)) is bool(asked) for line in run.stderr.splitlines())
    assert run.stderr


def test_lines_in_json_are_of_the_log_or_become_it() -> None:
    behind = io.StringIO()
    output = StampedOutput(behind, "warning", as_json=True)
    output.fields = {"process": "projector"}
    logged = json_line("error", "ofp.http", "logged", {"error": "OSError", "places": ["a.py:1 f", "b.py:2 g"]})
    output.write(f"printed\n{logged}\n")
    lines = behind.getvalue().splitlines()
    printed = json.loads(lines[0])
    assert {**printed, "time": ""} == {
        "time": "",
        "level": "warning",
        "logger": "ofp.output",
        "event": "printed",
        "process": "projector",
    }
    assert lines[1] == logged
    assert [without_stamp(line) for line in lines] == ["printed", "logged (OSError at a.py:1 f < b.py:2 g)"]


def test_a_stamped_line_of_the_log_has_one_time() -> None:
    behind = io.StringIO()
    line = "2026-01-02T03:04:05.678Z [warning] said"
    StampedOutput(behind).write(f"{line}\n")
    assert behind.getvalue() == f"{line}\n"


@pytest.mark.parametrize("line", ['{"time":', '{"time":"x"}', '{"time":"x","event":"e","error":"E","places":3}'])
def test_what_is_no_line_of_the_log_stays(line: str) -> None:
    assert without_stamp(line) == line
