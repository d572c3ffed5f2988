"""Words of cases: ids, the table of labels, and what no entry may be."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from pydantic import ValidationError

from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.case import CONTENT, LABEL_VALUES, case_id, content_wire, label_value
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="f", parameter_hash="p")
ASSERTION = LabelAssertion(
    event_class="payment",
    event_id="e",
    label_type="fraud_disposition",
    value=1,
    effective_time_utc="2026-01-01T00:00:00Z",
    observed_time_utc="2026-01-01T00:00:00Z",
    source="case_investigation",
)
PENDING = {
    "entry_type": "LABEL_PENDING",
    "word": "fraud",
    "assertion_id": ASSERTION.assertion_id,
    "assertion": ASSERTION.wire(),
}
STATED = {"evidence": "statement", "reason": "why"}


def test_the_id_of_a_case_is_that_of_its_session_and_event() -> None:
    assert case_id(PINS, "payment", "e-1") == sha256(b"r|payment|e-1").hexdigest()
    in_session = PINS.model_copy(update={"platform_run_id": "session"})
    assert case_id(in_session, "payment", "e-1") == sha256(b"session|payment|e-1").hexdigest()
    ids = {case_id(PINS, event_class, event_id) for event_class in ("payment", "login") for event_id in ("1", "2")}
    assert len(ids) == 4


def test_words_and_values_are_one_to_one() -> None:
    for label_type, words in LABEL_VALUES.items():
        assert len(set(words.values())) == len(words)
        for word, value in words.items():
            assert label_value(label_type, word) == value
    with pytest.raises(ValueError, match="there are fraud_disposition, chargeback_status, account_takeover"):
        label_value("fraud", "fraud")
    with pytest.raises(ValueError, match="it has no, yes"):
        label_value("account_takeover", "fraud")


@pytest.mark.parametrize(
    "content",
    [
        {"entry_type": "NOTE", "text": "x"},
        {"entry_type": "TRIGGERED", "trigger": "MANUAL_ASSERTION", "evidence": STATED},
        {"entry_type": "ACTION_REQUESTED", "action_type": "hold", "target": "account:a", "reason": "x"},
        {"entry_type": "CLOSED", "reason": "x"},
        PENDING,
    ],
)
def test_contents_cross_a_boundary_and_come_back(content: dict[str, Any]) -> None:
    parsed = CONTENT.validate_python(content)
    assert content_wire(parsed) == content
    assert CONTENT.validate_json(CONTENT.dump_json(parsed)) == parsed


@pytest.mark.parametrize(
    "content",
    [
        {"entry_type": "VIEWED"},
        {"entry_type": "NOTE", "text": ""},
        {"entry_type": "NOTE", "text": "x" * 2001},
        {"entry_type": "NOTE", "text": "card 4111111111111111"},
        {"entry_type": "NOTE", "text": "x", "payload": {}},
        {"entry_type": "CLOSED"},
        {"entry_type": "TRIGGERED", "trigger": "DECISION_ESCALATION", "evidence": STATED},
        {"entry_type": "TRIGGERED", "trigger": "GUESS", "evidence": STATED},
        {"entry_type": "ACTION_REQUESTED", "action_type": "hold", "target": "4111111111111111", "reason": "x"},
        {**PENDING, "word": "legitimate"},
        {**PENDING, "word": "maybe"},
        {**PENDING, "assertion_id": "0" * 64},
        {**PENDING, "assertion": {**ASSERTION.wire(), "label_type": "fraud"}},
    ],
)
def test_what_is_no_content(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CONTENT.validate_python(content)
