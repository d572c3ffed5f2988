"""`ofp log`."""

from __future__ import annotations

import json
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


def test_lines_end_with_a_line_feed_only(plane_home: dict[str, str], payment: dict[str, Any], tmp_path: Path) -> None:
    payload = {**payment["payload"], "note": "a\u2028b\u2029c\u0085d"}
    lines = [json.dumps({**payment, "event_id": f"line-{n}", "payload": payload}, ensure_ascii=False) for n in range(6)]
    file = tmp_path / "separators.jsonl"
    file.write_bytes(f"\ufeff{lines[0]}\r\n{lines[1]}\n\n{lines[2]}".encode())
    outcome = call("log", "append", str(file), **plane_home)
    assert (outcome.code, outcome.out.splitlines()[0], outcome.err) == (0, "3 appended, 0 refused", "")
    outcome = call("log", "append", "-", stdin=f"\ufeff{lines[3]}\r\n{lines[4]}\n\n{lines[5][:-1]}", **plane_home)
    assert (outcome.out.splitlines()[0], outcome.err) == ("2 appended, 1 refused", "-:4: INVALID_ENVELOPE: not JSON\n")


def test_what_a_parser_would_drop_is_told_by_line(on_plane: Ofp, tmp_path: Path, payment: dict[str, Any]) -> None:
    text = json.dumps(payment)
    begin = json.dumps(payment["payload"])[:20]
    lines = [
        text.replace("{", '{"event_id": "first", ', 1),
        *(
            text.replace(begin, "{" + member + ", " + begin[1:])
            for member in (
                '"note": 1, "\\u006eote": 2',
                '"x": [{"b": {"c": 1, "c": 1}}]',
                '"x": NaN',
                '"x": "\\ud800"',
                '"x": 9007199254740992',
                '"x": 123456789012345678901234',
            )
        ),
    ]
    file = tmp_path / "doubled.jsonl"
    file.write_bytes("\n".join(lines).encode() + b"\n\xff\n")
    outcome = on_plane("log", "append", str(file))
    assert outcome.out == "0 appended, 8 refused\n"
    refusals = dict(line.removeprefix(f"{file}:").split(":", 1) for line in outcome.refused().splitlines())
    assert [refusals[str(number)].split(":")[0].strip() for number in range(1, 8)] == ["NOT_I_JSON"] * 7
    assert refusals["1"] == " NOT_I_JSON: the name event_id stands twice in one object"
    assert refusals["2"] == " NOT_I_JSON: the name note stands twice in one object"
    assert refusals["8"] == " INVALID_ENVELOPE: not UTF-8 text"


def test_a_card_number_never_gets_into_the_log(on_plane: Ofp, tmp_path: Path, payment: dict[str, Any]) -> None:
    file = jsonl(tmp_path / "card.jsonl", {**payment, "event_id": "4000001234567899"})
    outcome = on_plane("log", "append", file)
    assert "4000001234567899" not in outcome.refused()
    assert outcome.out == "0 appended, 1 refused\n"


def test_files_that_cannot_be_read(on_plane: Ofp, tmp_path: Path) -> None:
    assert on_plane("log", "append", str(tmp_path / "none.jsonl")).refused().endswith("none.jsonl: No such file or directory\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert on_plane("log", "append", str(tmp_path / "binary")).refused().endswith("binary: not UTF-8 text\n")
