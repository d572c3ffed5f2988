"""A home folder has one `ofp up`: a living one refuses the second, which touches nothing; a dead one refuses nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.cli.up.home_lock import held_home
from ofp_platform_tests.cli.program import call

_HOLD = """
import sys, pathlib
from ofp_platform.cli.up.home_lock import held_home
with held_home(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_one_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "projector.log").write_text("of the first\n", encoding="utf-8")
    with held_home(tmp_path):
        outcome = call("up", "--port", "0", "--no-dagster", OFP_HOME=str(tmp_path), OFP_DATABASE_URL="")
        assert f"another `ofp up` (process {os.getpid()}) runs on {tmp_path}" in outcome.refused()
        with pytest.raises(CommandRefused), held_home(tmp_path):
            pass
    assert (logs / "projector.log").read_text(encoding="utf-8") == "of the first\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "up.lock"]


def test_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(CommandRefused, match=f"process {process.pid}"), held_home(tmp_path):
            pass
        process.kill()
        process.wait()
    with held_home(tmp_path):
        assert (tmp_path / "up.lock").read_text(encoding="ascii") == f"{os.getpid()}\n"
