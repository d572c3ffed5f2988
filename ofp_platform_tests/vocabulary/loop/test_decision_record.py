"""Decision records: what each version must have and must not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ofp_platform.api.examples import decision_example
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, loop_decision_id
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform.vocabulary.position import Position
from ofp_platform_tests.decisions.test_wanted_actions import AT, BUNDLE, record


def of(content: dict[str, Any], **changes: Any) -> DecisionRecord:
    return DecisionRecord.model_validate({name: value for name, value in {**content, **changes}.items() if value is not ...})


def test_the_id_of_a_decision_of_the_plane_is_of_event_bundle_and_place() -> None:
    names = {
        loop_decision_id("e-1", BUNDLE.bundle, AT),
        loop_decision_id("e-2", BUNDLE.bundle, AT),
        loop_decision_id("e-1", None, AT),
        loop_decision_id("e-1", BUNDLE.bundle, AT.model_copy(update={"offset": 5})),
        loop_decision_id("e-1", BUNDLE.bundle, Position(stream_name="other", partition_id="0000", offset=4)),
    }
    assert len(names) == 5
    with pytest.raises(ValidationError, match="decision_id is not the one"):
        record(Outcome.APPROVE, decision_id="0" * 64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"feature_snapshot_hash": None}, "a whole vector, or none of its fields"),
        ({"slot": None}, "v1: a decision has slot"),
        ({"policy_rev": None}, "v1: a decision has slot"),
        ({"reason_codes": ("A", "B", "C", "D", "E")}, "at most 4"),
    ],
)
def test_half_a_decision_of_the_plane_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        record(Outcome.APPROVE, **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": ...}, "v0: a decision has a vector, a rule and a score"),
        ({"score": ...}, "v0: a decision has a vector, a rule and a score"),
        ({"reason_codes": ["A"]}, "belong to v1"),
        ({"slot": "active"}, "belong to v1"),
    ],
)
def test_a_decision_of_somebody_elses_service_has_a_rule_and_nothing_of_the_plane(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        of(decision_example(), **change)


def test_a_mode_is_lowered_with_a_reason_and_never_raised() -> None:
    under = record(Outcome.REVIEW, mode=Mode.HOLD).posture
    assert under is not None
    content = under.model_dump(mode="json")
    for change in ({"lowering": None}, {"applied_mode": "NORMAL"}):
        with pytest.raises(ValidationError, match="or a lower one with a reason"):
            type(under).model_validate({**content, **change})
    deeper = {**content["in_force"], "mode": "FAIL_CLOSED"}
    with pytest.raises(ValidationError, match="or a lower one with a reason"):
        type(under).model_validate({**content, "in_force": deeper})
