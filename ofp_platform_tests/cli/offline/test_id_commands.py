"""`ofp id`: decisions about ids with several contents."""

from __future__ import annotations

from pathlib import Path

from ofp_platform_tests.cli.program import call
from ofp_platform_tests.oracle.simulated_log import write_profile


def test_decisions_are_recorded_listed_and_kept(dsn: str, tmp_path: Path) -> None:
    environment = {"OFP_HOME": str(tmp_path / "home"), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": str(write_profile(tmp_path))}

    def ofp(*arguments: str) -> str:
        return call(*arguments, **environment).out

    assert ofp("id", "list") == ""
    said = ofp("id", "adjudicate", "card_payment", "p-1", "--counts", "0001/7", "--reason", "a double click", "--actor", "ann")
    assert said == "of card_payment p-1 the record at 0001/7 counts; build again with `ofp intent retry`\n"
    ofp("id", "adjudicate", "card_payment", "p-1", "--counts", "0000/3", "--reason", "no: the first", "--actor", "bob")
    listed = ofp("id", "list").splitlines()
    assert [line.split("  ", 1)[1].strip() for line in listed] == [
        "card_payment p-1  0001/7",
        "ann: a double click",
        "card_payment p-1  0000/3",
        "bob: no: the first",
    ]
    facts = ofp("governance", "list", "--fact", "id_adjudicated")
    assert "id_adjudicated" in facts
    assert "the record at 0001/7 counts" in facts
    wrong = call("id", "adjudicate", "card_payment", "p-1", "--counts", "7", "--reason", "x", **environment)
    assert "is no place; write PARTITION/OFFSET" in wrong.refused()
    for event_id, place, words in (
        ("a b", "0001/7", "event_id: String should match pattern"),
        ("p-1", "0001/\u00b2", "is no place; write PARTITION/OFFSET"),
        ("p-1", f"0001/{'9' * 5_000}", "is no place; write PARTITION/OFFSET"),
        ("p-1", f"0001/{'9' * 30}", "offset"),
    ):
        wrong = call("id", "adjudicate", "card_payment", event_id, "--counts", place, "--reason", "x", **environment)
        assert words in wrong.refused()
