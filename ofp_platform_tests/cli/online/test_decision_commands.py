"""`ofp decision show`: the record, and the decision made again from what it names."""

from __future__ import annotations

import json

import pytest

from ofp_platform.cli.demo.replay import project_available
from ofp_platform.storage.decision_records import append_decisions, decision_ids_in, read_decisions
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform_tests.cli.conftest import OfflinePlane


@pytest.fixture(scope="module")
def decisions(offline: OfflinePlane) -> list[DecisionRecord]:
    """Those that `ofp decide` records, and the one before them, whose rule nobody has stored."""
    plane = offline.labelled.plane
    project_available(plane.projector(plane.ensure_live()), 1_000, lambda records: None)
    offline.ofp("decide", "--count", "30")
    with plane.pool.connection() as connection:
        ids = decision_ids_in(connection, plane.profile.context_pins, offline.labelled.everything)
        return list(read_decisions(connection, ids).values())


def test_a_decision_is_made_again(offline: OfflinePlane, decisions: list[DecisionRecord]) -> None:
    record = next(record for record in decisions if record.rule.rule_name == "card_velocity")
    shown = offline.ofp("decision", "show", record.decision_id)
    assert (shown.code, shown.out.splitlines()[-1]) == (0, "MATCH")
    for word in (
        record.event_id,
        record.feature_snapshot_hash,
        record.rule.digest,
        f"{record.outcome.value}, score {record.score}",
    ):
        assert word in shown.out
    facts = json.loads(offline.ofp("decision", "show", record.decision_id, "--json").out)
    assert facts["decision"] == record.wire()
    assert (facts["equal"], facts["again"]) == (True, {"score": record.score, "outcome": record.outcome.value})


def test_what_the_rule_does_not_give_is_a_mismatch(offline: OfflinePlane, decisions: list[DecisionRecord]) -> None:
    plane = offline.labelled.plane
    record = next(record for record in decisions if record.rule.rule_name == "card_velocity")

    name = decision_id(record.context_pins, record.event_type, "lie")
    lying = record.model_copy(update={"event_id": "lie", "score": 999, "decision_id": name})
    with plane.pool.connection() as connection:
        append_decisions(connection, [lying])
    shown = offline.ofp("decision", "show", lying.decision_id)
    assert (shown.code, "MATCH" in shown.out.splitlines()) == (1, False)
    assert "MISMATCH: the rule does not give what was decided" in shown.err


def test_a_rule_that_is_not_stored_is_told_and_no_match(offline: OfflinePlane, decisions: list[DecisionRecord]) -> None:
    record = next(record for record in decisions if record.rule.digest == "0" * 64)
    shown = offline.ofp("decision", "show", record.decision_id)
    assert (shown.code, "MATCH" in shown.out) == (1, False)
    assert "is not stored: whoever sent the decision keeps it" in shown.err
    facts = json.loads(offline.ofp("decision", "show", record.decision_id, "--json").out)
    assert (facts["equal"], facts["again"]) == (None, None)


@pytest.mark.parametrize(("name", "says"), [("1" * 64, "no decision 1111"), ("x", "64 hex digits")])
def test_what_is_no_decision(offline: OfflinePlane, name: str, says: str) -> None:
    assert says in offline.ofp("decision", "show", name).refused()
