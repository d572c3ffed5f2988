"""A decision made again: equal by the rule and the snapshot that it names, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from ofp_platform.decisions.redecision import NotRedecided, decide_again
from ofp_platform.decisions.rule import Condition, PointsRule
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.serving import SnapshotRecord
from ofp_platform_tests.decisions.test_decision_records import new_run, record

HASH = "3" * 64


def rule(**changes: Any) -> PointsRule:
    condition = Condition(group_name="g", group_version="v1", feature="count", at_least=3, points=30)
    return PointsRule(
        rule_name="r", rule_version="v1", conditions=(condition,), **{"review_from": 30, "decline_from": 60, **changes}
    )


def snapshot(value: Any, *, feature: str = "count", name: str = HASH) -> SnapshotRecord:
    group = {
        "group_name": "g",
        "group_version": "v1",
        "features": {feature: value},
    }
    return SnapshotRecord(
        feature_snapshot_hash=name, hashed={"values": [{"key_type": "card", "key_id": "card-1", "by_group": [group]}]}
    )


def decided(by: PointsRule, **changes: Any) -> Any:
    content = {"score": 30, "outcome": "review", "rule": by.ref.model_dump(), "feature_snapshot_hash": HASH}
    return record(new_run(), "e-1", **{**content, **changes})


@pytest.mark.parametrize(
    ("changes", "value", "expected"),
    [
        ({}, 3, (30, Outcome.REVIEW, True)),
        ({}, 2, (0, Outcome.APPROVE, False)),
        ({"score": 31}, 3, (30, Outcome.REVIEW, False)),
        ({"outcome": "decline"}, 3, (30, Outcome.REVIEW, False)),
        ({"score": 0, "outcome": "approve"}, None, (0, Outcome.APPROVE, True)),
    ],
)
def test_score_and_outcome_are_compared(changes: dict[str, Any], value: Any, expected: tuple[int, Outcome, bool]) -> None:
    again = decide_again(decided(rule(), **changes), snapshot(value), rule().content.decode())
    assert (again.score, again.outcome, again.equal) == expected
    assert again.rule == rule()


@pytest.mark.parametrize(
    ("stored", "served", "message"),
    [
        (None, snapshot(3), "is not stored: whoever sent the decision keeps it"),
        (rule(review_from=29).content.decode(), snapshot(3), "is stored with another content than"),
        (rule().content.decode(), snapshot(3, name="4" * 64), "is not the one of decision"),
        (rule().content.decode(), snapshot(3, feature="other"), "cannot be applied to the snapshot: .*count"),
        (rule().content.decode(), snapshot([1]), "cannot be applied to the snapshot: .* is no number"),
        (rule().content.decode(), SnapshotRecord(feature_snapshot_hash=HASH, hashed={"values": [{}]}), "cannot be read here"),
    ],
)
def test_what_is_missing_or_another_is_told(stored: str | None, served: SnapshotRecord, message: str) -> None:
    with pytest.raises(NotRedecided, match=message):
        decide_again(decided(rule()), served, stored)


def test_a_digest_of_what_is_no_rule_is_told() -> None:
    from ofp_platform.vocabulary.canonical import sha256_hex

    text = '{"rule_name":"r"}'
    of_another_kind = {"rule_name": "r", "rule_version": "v1", "digest": sha256_hex(text.encode())}
    with pytest.raises(NotRedecided, match="cannot be read here"):
        decide_again(decided(rule(), rule=of_another_kind), snapshot(3), text)
