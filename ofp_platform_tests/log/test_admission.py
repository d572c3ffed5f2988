"""Validation: the hash it computes, and that no refusal shows what was refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import Admitted
from ofp_platform.log.port import RecordRefusal, RefusalReason
from ofp_platform.vocabulary.canonical import MAX_INTEGER, jcs_bytes
from ofp_platform.vocabulary.envelope import Envelope, payload_hash
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier
from ofp_platform_tests.oracle.strategies import READABLE_FLOATS

Event = Callable[..., Envelope]
CARD = "4111111111111111"
BASE: dict[str, Any] = {
    "event_id": "e-1",
    "event_type": "card_authorisation",
    "schema_version": "v1",
    "ts_utc": "2024-05-01T10:00:00Z",
    "scenario_id": "baseline",
    "run_id": "run-1",
    "manifest_fingerprint": "ab" * 32,
    "parameter_hash": "cd" * 32,
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | READABLE_FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, JSON, max_size=5), st.none() | st.integers(0, MAX_INTEGER), st.none() | st.just("p/1"))
def test_the_hash_is_its_definition(payload: dict[str, Any], seed: int | None, platform_run: str | None) -> None:
    envelope = Envelope(**BASE, payload=payload, seed=seed, platform_run_id=platform_run)
    admitted = Admission("event_id").admit(0, envelope)
    body = {
        "event_type": envelope.event_type,
        "schema_version": envelope.schema_version,
        "ts_utc": envelope.ts_utc,
        "pins": envelope.pins().wire(),
        "payload": payload,
    }
    expected = hashlib.sha256(jcs_bytes(body)).digest()
    assert payload_hash(envelope) == expected
    assert isinstance(admitted, Admitted)
    assert admitted.payload_hash == expected
    assert admitted.payload == jcs_bytes(payload)


def luhn(digits: str) -> str:
    """The digits with a check digit."""
    return next(digits + str(n) for n in range(10) if holds_raw_identifier(digits + str(n)))


@given(st.text("0123456789", min_size=12, max_size=18).map(luhn), JSON, st.sampled_from(["value", "list", "key", "spaced"]))
def test_a_card_number_never_enters_and_is_never_shown(card: str, other: Any, where: str) -> None:
    spaced = "-".join(card[n : n + 4] for n in range(0, len(card), 4))
    hidden: Any = {"value": card, "list": [[card]], "key": {card: 1}, "spaced": {"x": spaced}}[where]
    outcome = Admission("event_id").admit(3, {**BASE, "payload": {"other": other, "hidden": hidden}})
    assert isinstance(outcome, RecordRefusal)
    assert (outcome.index, outcome.reason) == (3, RefusalReason.RAW_IDENTIFIER)
    assert card not in outcome.message
    assert spaced not in outcome.message


@pytest.mark.parametrize(
    "change",
    [
        {"event_id": CARD},
        {"run_id": CARD},
        {"event_type": CARD},
        {"ts_utc": CARD},
        {"seed": CARD},
        {"seed": -int(CARD)},
        {CARD: 1},
        {"payload": CARD},
        {"payload": {CARD: 1, "x": float("nan")}},
        {"payload": {"x": int(CARD) * 1000}},
        {"payload": {"x": {int(CARD): 1}}},
        {"payload": {int(CARD): 1}},
        {"manifest_fingerprint": CARD},
    ],
)
def test_no_refusal_shows_a_value(change: dict[str, Any]) -> None:
    outcome = Admission("event_id").admit(0, {**BASE, "payload": {}, **change})
    assert isinstance(outcome, RecordRefusal)
    assert "4111" not in outcome.message


def test_digits_that_are_no_card_number_are_welcome(event: Event) -> None:
    payload = {"account_id": "a", "order": "4111111111111112", "when": 1714557600000, "number": int(CARD), "name": "ab12" * 16}
    assert isinstance(Admission("payload.account_id").admit(0, event(1, payload)), Admitted)


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"x": inner}])
def test_nesting_without_end_is_refused(wrap: Callable[[Any], Any]) -> None:
    value: Any = 1
    for _ in range(100_000):
        value = wrap(value)
    outcome = Admission("event_id").admit(0, {**BASE, "payload": {"deep": value}})
    assert isinstance(outcome, RecordRefusal)
    assert outcome.reason is RefusalReason.NOT_I_JSON


@pytest.mark.parametrize("path", ["", "payload", "payload.", "payload..x", "nothing", "ts_utc", ".payload.x"])
def test_a_path_that_names_no_key(path: str) -> None:
    with pytest.raises(ValueError, match="is not a path"):
        Admission(path)


@pytest.mark.parametrize(
    ("payload", "key"), [({"a": {"b": "k"}}, "k"), ({"a": {"b": 5}}, "5"), ({"a": {"b": True}}, None), ({"a": "b"}, None)]
)
def test_the_key_is_at_its_path(event: Event, payload: dict[str, Any], key: str | None) -> None:
    outcome = Admission("payload.a.b").admit(0, event(1, payload))
    if key is None:
        assert isinstance(outcome, RecordRefusal)
        assert outcome.reason is RefusalReason.MISSING_PARTITION_KEY
    else:
        assert isinstance(outcome, Admitted)
        assert outcome.key == key


def test_several_problems_are_counted() -> None:
    outcome = Admission("event_id").admit(0, {**BASE, "payload": {}, "event_id": 1, "run_id": 2})
    assert isinstance(outcome, RecordRefusal)
    assert outcome.message.endswith("(and 1 more)")


@pytest.mark.parametrize("name", [name for name, field in Envelope.model_fields.items() if field.is_required()])
def test_an_envelope_that_lacks_one_field_is_refused_in_words(event: Event, name: str) -> None:
    candidate = event(1).model_dump(exclude_none=True)
    del candidate[name]
    refusal = Admission("payload.account_id").admit(0, candidate)
    assert isinstance(refusal, RecordRefusal)
    assert refusal.message.startswith(f"{name}: ")
