"""`ofp log`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ofp_platform_tests.cli.program import Ofp, call, jsonl


def test_good_lines_are_appended_and_bad_ones_told(on_plane: Ofp, tmp_path: Path, payment: dict[str, Any]) -> None:
    unpaid = {**payment, "event_id": "unpaid", "ts_utc": "yesterday"}
    file = jsonl(tmp_path / "events.jsonl", payment, "", "{", "[1]", unpaid)
    before = on_plane("log", "ends").out
    outcome = on_plane("log", "append", file)
    assert outcome.code == 1
    assert outcome.out.startswith("1 appended, 3 refused\nup to 0000:")
    refusals = outcome.err.splitlines()
    assert refusals[:2] == [f"{file}:3: INVALID_ENVELOPE: not JSON", f"{file}:4: INVALID_ENVELOPE: not a JSON object"]
    assert refusals[2].startswith(f"{file}:5: ")
    assert "yesterday" not in refusals[2]
    assert len(refusals) == 3
    after = on_plane("log", "ends").out
    (position,) = re.findall(r"up to 0000:(\d+)", outcome.out)
    assert f"0000  from 0  to {position}\n" in before
    assert f"0000  from 0  to {int(position) + 1}\n" in after


def test_standard_input(plane_home: dict[str, str], payment: dict[str, Any], tmp_path: Path) -> None:
    text = Path(jsonl(tmp_path / "one.jsonl", {**payment, "event_id": "from-stdin"})).read_text()
    outcome = call("log", "append", "-", stdin=text, **plane_home)
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, "1 appended, 0 refused")


def test_a_card_number_never_gets_into_the_log(on_plane: Ofp, tmp_path: Path, payment: dict[str, Any]) -> None:
    file = jsonl(tmp_path / "card.jsonl", {**payment, "event_id": "4000001234567899"})
    outcome = on_plane("log", "append", file)
    assert "4000001234567899" not in outcome.refused()
    assert outcome.out == "0 appended, 1 refused\n"


def test_files_that_cannot_be_read(on_plane: Ofp, tmp_path: Path) -> None:
    assert on_plane("log", "append", str(tmp_path / "none.jsonl")).refused().endswith("none.jsonl: No such file or directory\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert on_plane("log", "append", str(tmp_path / "binary")).refused().endswith("binary: not UTF-8 text\n")
