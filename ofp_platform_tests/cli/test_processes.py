"""Processes of a command: what they print is kept, whoever printed before them."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

from ofp_platform.cli import processes
from ofp_platform.cli.processes import Child


def said(output: Path, words: str) -> str:
    with Child("teller", [sys.executable, "-c", f"print('{words}')"], {}, output) as child:
        heard = child.wait_for_line("", 30.0)
        assert heard is not None
        return heard


def test_a_start_truncates_no_log_and_reads_its_own_lines(tmp_path: Path) -> None:
    output = tmp_path / "logs" / "teller.log"
    assert said(output, "first") == "first"
    assert said(output, "second") == "second"
    assert output.read_text(encoding="utf-8") == "first\nsecond\n"


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    output = tmp_path / "teller.log"
    with patch.object(processes, "_LONG_BYTES", 1), patch.object(processes, "_KEPT_LOGS", 2):
        for words in ("one", "two", "three", "four"):
            assert said(output, words) == words
    kept = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert kept == {"teller.log": "four\n", "teller.log.1": "three\n", "teller.log.2": "two\n"}
