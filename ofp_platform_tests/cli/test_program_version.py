"""`ofp --version`, `-h` and completion."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ofp_platform_tests.cli.program import call
from ofp_platform_tests.cli.test_reference import commands

OFP = str(Path(sys.executable).with_name("ofp"))


def test_the_version_names_distribution_and_code() -> None:
    first, second = call("--version").out.splitlines()
    assert first == f"ofp {version('ofp-platform')}"
    assert second.startswith(f"code release ofp-platform-{version('ofp-platform')}:")


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_short_option_for_help(command: tuple[str, ...]) -> None:
    assert call(*command, "-h") == call(*command, "--help")


def test_a_shell_completes_commands() -> None:
    environment = {**os.environ, "_OFP_COMPLETE": "complete_bash", "COMP_WORDS": "ofp projector a", "COMP_CWORD": "2"}
    completed = subprocess.run([OFP], env=environment, capture_output=True, text=True, check=False)
    assert completed.stdout.split() == ["anomalies"]
