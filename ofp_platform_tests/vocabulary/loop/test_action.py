"""Intents and outcomes: keys that follow from what is wanted, and closed forms."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ofp_platform.vocabulary.canonical import digest_of, sha256_hex
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyType
from ofp_platform.vocabulary.loop.action import (
    ActionIntent,
    ActionOrigin,
    ActionOutcome,
    OriginKind,
    OutcomeKind,
    WebhookTarget,
    idempotency_key,
)

PINS = ContextPins(scenario_id="acts", run_id="acts", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
ORIGIN = ActionOrigin(origin_kind=OriginKind.DECISION, reference="d" * 64)
TARGET = FeatureKey(key_type=KeyType.ACCOUNT, key_id="acct-1")


def intent(**changed: Any) -> ActionIntent:
    fields: dict[str, Any] = {
        "origin": ORIGIN,
        "action_type": "hold_account",
        "target": TARGET,
        "context_pins": PINS,
        "actor": "decider",
        "policy_rev": f"1.{'0' * 64}",
        "at_utc": "2026-02-01T00:00:00Z",
    }
    return ActionIntent.create(**{**fields, **changed})


def test_a_key_is_the_digest_of_why_what_and_on_what() -> None:
    assert intent().idempotency_key == digest_of(
        {
            "origin": {"origin_kind": "decision", "reference": "d" * 64},
            "action_type": "hold_account",
            "target": {"key_type": "account", "key_id": "acct-1"},
        }
    )
    assert idempotency_key(ORIGIN, "notify", WebhookTarget(webhook="cases")) == digest_of(
        {
            "origin": {"origin_kind": "decision", "reference": "d" * 64},
            "action_type": "notify",
            "target": {"webhook": "cases"},
        }
    )


def test_what_is_no_part_of_the_key() -> None:
    one = intent()
    for other in (intent(reason="x"), intent(actor="ann"), intent(parameters={"a": 1}), intent(policy_rev=f"2.{'0' * 64}")):
        assert (other.idempotency_key, other.content_digest != one.content_digest) == (one.idempotency_key, True)
    later = intent(at_utc="2026-02-02T00:00:00Z")
    assert (later.content_digest, later.content != one.content) == (one.content_digest, True)


json_texts = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.floats(-1e15, 1e15),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@given(parameters=st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), json_texts, max_size=3))
def test_an_intent_is_read_back_as_it_was_written(parameters: dict[str, Any]) -> None:
    one = intent(parameters=parameters)
    again = ActionIntent.model_validate_json(one.content)
    assert (again.content, again.content_digest) == (one.content, one.content_digest)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"parameters": {"text": "x" * 5_000}}, "4096 canonical bytes"),
        ({"parameters": {"card": "4111111111111111"}}, "card number"),
        ({"parameters": {"Not a name": 1}}, "should match pattern"),
        ({"parameters": {"a": float("nan")}}, "nan"),
        ({"parameters": {"a": 2.0**53}}, "beyond 2^53-1"),
        ({"parameters": {"a": 2**53}}, "not I-JSON"),
        ({"parameters": {"a": {"b": 2**53}}}, "beyond 2^53-1"),
        ({"actor": "card 4111111111111111"}, "actor"),
        ({"reason": "x" * 401}, "at most 400"),
        ({"policy_rev": "1"}, "policy_rev"),
        ({"at_utc": "yesterday"}, "at_utc"),
    ],
)
def test_what_is_no_intent(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        intent(**changed)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "changed",
    [{"idempotency_key": "0" * 64}, {"target": {"key_type": "account", "key_id": "acct-2"}}, {"target": {}}, {"more": 1}],
)
def test_a_form_that_does_not_hold_together(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ActionIntent.model_validate({**intent().wire(), **changed})


def test_an_outcome_has_a_message_id_of_its_own() -> None:
    outcome = ActionOutcome(
        context_pins=PINS,
        idempotency_key=intent().idempotency_key,
        outcome=OutcomeKind.DENIED,
        attempts=0,
        reason="NOT_ALLOWED",
        executor="none",
        action_policy_rev=f"1.{'0' * 64}",
        at_utc="2026-02-01T00:00:00Z",
    )
    assert outcome.message_id == sha256_hex(f"outcome|{intent().idempotency_key}".encode())
    assert ActionOutcome.model_validate(outcome.wire()) == outcome
    assert "settled_by" not in outcome.wire()
