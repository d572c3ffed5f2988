import hashlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.envelope import Envelope, amends_bytes, ijson_bytes, payload_hash, read_amends
from ofp_platform_tests.oracle.strategies import READABLE_FLOATS

EVENT: dict[str, Any] = {
    "event_id": "e-1",
    "event_type": "payment",
    "schema_version": "v1",
    "ts_utc": "2026-01-02T03:04:05.5Z",
    "scenario_id": "s1",
    "run_id": "r1",
    "manifest_fingerprint": "a" * 64,
    "parameter_hash": "b" * 64,
    "payload": {"card_id": "card_1", "amount_minor": 1250, "declined": False, "note": None},
}
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
leaves = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | READABLE_FLOATS | text
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))
payloads = st.dictionaries(text, values, max_size=5)


OTHER_AMENDS: list[dict[str, str]] = [
    {},
    {"kind": "replace"},
    {"event_id": "e-9"},
    {"event_class": "refund"},
    {"ts_utc": "2026-01-01T00:00:00.000001Z"},
]
AMENDS = {"event_class": "payment", "event_id": "e-0", "ts_utc": "2026-01-01T00:00:00Z", "kind": "void"}


def envelope(**change: Any) -> Envelope:
    return Envelope.model_validate({**EVENT, **change})


@pytest.mark.parametrize("number", [1e16, -(2.0**53), 123456789012345680000.0])
def test_a_number_that_nobody_can_read_back_is_no_payload(number: float) -> None:
    for payload in ({"a": number}, {"a": [{"b": number}]}):
        with pytest.raises(ValueError, match="send it as a string"):
            ijson_bytes(payload)


@pytest.mark.parametrize("number", [1e21, 9007199254740991.0, 0.1234567890123456, 1e-20])
def test_other_long_numbers_are(number: float) -> None:
    assert ijson_bytes({"a": number, "b": "1234567890123456"}) == jcs_bytes({"a": number, "b": "1234567890123456"})


@given(payloads)
def test_payload_bytes_are_rfc_8785(payload: dict[str, Any]) -> None:
    assert ijson_bytes(payload) == jcs_bytes(payload)


@given(payloads)
def test_payload_hash_in_full(payload: dict[str, Any]) -> None:
    pins = {name: EVENT[name] for name in ("scenario_id", "run_id", "manifest_fingerprint", "parameter_hash")}
    body = {
        "event_type": "payment",
        "schema_version": "v1",
        "ts_utc": "2026-01-02T03:04:05.500000Z",
        "pins": pins,
        "payload": payload,
    }
    assert payload_hash(envelope(payload=payload)) == hashlib.sha256(jcs_bytes(body)).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"event_type": "refund"},
        {"schema_version": "v2"},
        {"ts_utc": "2026-01-02T03:04:05.500001Z"},
        {"run_id": "r2"},
        {"seed": 0},
        {"payload": {}},
        {"amends": AMENDS},
    ],
)
def test_what_the_payload_hash_covers(change: dict[str, Any]) -> None:
    assert payload_hash(envelope(**change)) != payload_hash(envelope())


@pytest.mark.parametrize(
    "change",
    [
        {"event_id": "e-2"},
        {"emitted_at_utc": "2026-01-02T03:04:06Z"},
        {"ts_utc": "2026-01-02T03:04:05.500Z"},  # another text of the same moment
        {"payload": dict(reversed(EVENT["payload"].items()))},
    ],
)
def test_what_the_payload_hash_leaves_out(change: dict[str, Any]) -> None:
    assert payload_hash(envelope(**change)) == payload_hash(envelope())


def test_what_is_amended_is_part_of_the_hash_in_full() -> None:
    pins = {name: EVENT[name] for name in ("scenario_id", "run_id", "manifest_fingerprint", "parameter_hash")}
    body = {name: EVENT[name] for name in ("event_type", "schema_version", "payload")}
    body |= {"ts_utc": "2026-01-02T03:04:05.500000Z", "pins": pins, "amends": AMENDS}
    amending = envelope(amends={**AMENDS, "ts_utc": "2026-01-01T00:00:00.0Z"})  # another text of the same moment
    assert payload_hash(amending) == hashlib.sha256(jcs_bytes(body)).digest()
    assert len({payload_hash(envelope(amends={**AMENDS, **other})) for other in OTHER_AMENDS}) == len(OTHER_AMENDS)
    text = amends_bytes(amending.amends)
    assert text is not None
    assert read_amends(text) == amending.amends


def test_pins_come_out_as_they_went_in() -> None:
    assert envelope(seed=5, platform_run_id="p").pins().wire() == {
        **{name: EVENT[name] for name in ("scenario_id", "run_id", "manifest_fingerprint", "parameter_hash")},
        "seed": 5,
        "platform_run_id": "p",
    }


@pytest.mark.parametrize("missing", sorted(EVENT))
def test_every_field_is_needed(missing: str) -> None:
    with pytest.raises(ValidationError, match=missing):
        Envelope.model_validate({name: value for name, value in EVENT.items() if name != missing})


@pytest.mark.parametrize(
    "change",
    [
        {"event_id": ""},
        {"event_id": 7},
        {"event_type": "Payment"},
        {"ts_utc": "2026-01-02T03:04:05"},
        {"ts_utc": 1_767_323_045},
        {"emitted_at_utc": "yesterday"},
        {"seed": 1.0},
        {"payload": []},
        {"payload": "{}"},
        {"admitted_at_utc": "2026-01-02T03:04:05Z"},
        {"amends": "e-0"},
        {"amends": {**AMENDS, "kind": "delete"}},
        {"amends": {**AMENDS, "event_id": ""}},
        {"amends": {**AMENDS, "ts_utc": "2026-01-02"}},
        {"amends": {**AMENDS, "run_id": "another"}},
        {"amends": {name: AMENDS[name] for name in ("event_class", "event_id", "ts_utc")}},
    ],
)
def test_refused_envelopes(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        envelope(**change)


def _deep(levels: int, inner: Any) -> dict[str, Any]:
    for _ in range(levels):
        inner = [inner]
    return {"a": inner}


@pytest.mark.parametrize("levels", [1, 126, 127, 128, 300])
@pytest.mark.parametrize("inner", ["text", 7, 2**53, "\ud800", 0.5, {"\u00e9": 1, "z": 2}, {1: 2}, b"bytes"])
def test_nested_payloads_are_written_or_refused_as_rfc_8785_does(levels: int, inner: Any) -> None:
    payload = _deep(levels, inner)
    try:
        expected_bytes = jcs_bytes(payload)
    except (ValueError, TypeError) as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            ijson_bytes(payload)
    else:
        assert ijson_bytes(payload) == expected_bytes


@pytest.mark.parametrize("payload", [{"n": 2**53}, {"n": float("nan")}, {"s": "\ud800"}, {"a": {"n": -(2**53)}}])
def test_payloads_outside_i_json(payload: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        ijson_bytes(payload)
