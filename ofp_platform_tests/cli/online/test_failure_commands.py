"""`ofp projector failures` and `anomalies`, and `ofp log show`: where and why, never the content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform_tests.cli.program import Ofp

SECRET = "hunter2"


@pytest.fixture
def with_failures(plane_home: dict[str, str], payment: dict[str, Any], tmp_path: Path) -> list[str]:
    """The positions of a record that lacks its key, of one with an amount that is text, of an id and of its second payload."""
    payload = payment["payload"]
    bad_key = {**payment, "event_id": f"no-card-{tmp_path.name}", "payload": {**payload, "card_id": None}}
    bad_type = {**payment, "event_id": f"text-{tmp_path.name}", "payload": {**payload, "amount_minor": SECRET}}
    again = {**payment, "event_id": f"twice-{tmp_path.name}", "payload": {**payload, "amount_minor": 7}}
    records = [bad_key, bad_type, {**payment, "event_id": f"twice-{tmp_path.name}"}, again]
    with Environment(home=Path(plane_home["OFP_HOME"]), database_url=plane_home["OFP_DATABASE_URL"], profile="demo").open_plane(
        "owner"
    ) as plane:
        first = next(part.offset for part in plane.log.ends().partitions if part.partition_id == "0000")
        # around the door, which would set the second payload aside: as with a log that others append to
        assert plane.log.append(records).appended == 4
        projector = plane.projector(plane.known_live())
        while projector.apply_available(max_records=100) is not None:
            pass
    return [f"0000:{int(first) + number}" for number in range(4)]


def test_reasons_and_fields_by_page_and_no_content(on_plane: Ofp, with_failures: list[str]) -> None:
    listed = on_plane("projector", "failures")
    text = " ".join(listed.out.split())
    assert f"{with_failures[0]} 2026-02-05T00:00:05Z MISSING_KEY payload field 'card_id', the card key, is missing" in text
    assert f"{with_failures[1]} 2026-02-05T00:00:05Z WRONG_TYPE payload field 'amount_minor' must be an integer" in text
    assert SECRET not in listed.shown
    assert max(map(len, listed.out.splitlines())) <= 80
    only = json.loads(on_plane("projector", "failures", "--reason", "WRONG_TYPE", "--json").out)
    assert {row["reason"] for row in only["failures"]} == {"WRONG_TYPE"}
    page, rows = None, []
    while True:
        where = () if page is None else ("--after", page)
        answer = json.loads(on_plane("projector", "failures", "--limit", "1", "--json", *where).out)
        rows += answer["failures"]
        page = answer["next_after"]
        if page is None:
            break
    assert rows == json.loads(on_plane("projector", "failures", "--json").out)["failures"]
    assert len(rows) >= 2
    assert "there is no reason" in on_plane("projector", "failures", "--reason", "BAD").refused()
    assert "--after is written" in on_plane("projector", "failures", "--after", "0000").refused()
    assert "there is no projection 99" in on_plane("projector", "failures", "--projection", "99").refused()


def test_anomalies_name_both_records(on_plane: Ofp, with_failures: list[str]) -> None:
    listed = on_plane("projector", "anomalies").out
    assert f"{with_failures[3]}  another payload than {with_failures[2]} has under the same id" in listed
    (row,) = [
        row
        for row in json.loads(on_plane("projector", "anomalies", "--json").out)["anomalies"]
        if row["first_offset"] == with_failures[2].split(":")[1]
    ]
    assert f"{row['partition_id']}:{row['offset']}" == with_failures[3]


def test_a_record_is_shown_without_the_values_of_its_payload(on_plane: Ofp, with_failures: list[str]) -> None:
    assert "has no record at 9999" in on_plane("log", "show", f"0000:{'9' * 26}").refused()
    shown = on_plane("log", "show", with_failures[1])
    record = json.loads(shown.out)
    assert record["envelope"]["event_id"].startswith("text-")
    assert record["payload_fields"]["amount_minor"] == "string"
    assert "payload" not in record["envelope"]
    assert SECRET not in shown.shown
    assert json.loads(on_plane("log", "show", with_failures[1], "--payload-values").out)["payload"]["amount_minor"] == SECRET
    hashes = {json.loads(on_plane("log", "show", place).out)["payload_hash"] for place in with_failures[2:]}
    assert len(hashes) == 2
    assert "is of another log" in on_plane("log", "show", "0000:999999").refused()
    assert "is no offset" in on_plane("log", "show", "0000:last").refused()
    assert "PARTITION:OFFSET" in on_plane("log", "show", "12").refused()
    assert "has no partition" in on_plane("log", "show", "0077:1").refused()
