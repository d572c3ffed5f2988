import pytest
from pydantic import ValidationError

from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.identity import (
    PIN_NAMES,
    ContextPins,
    FeatureKey,
    KeyType,
    pins_digest,
)

PINS = {"scenario_id": "s1", "run_id": "r1", "manifest_fingerprint": "a" * 64, "parameter_hash": "b" * 64}


@pytest.mark.parametrize(
    "number",
    ["4111111111111111", "pan=4111111111111111", "4111.1111.1111.1111", "me@example.com", "10.0.0.1", "DE89370400440532013000"],
)
def test_a_raw_identifier_is_never_a_key(number: str) -> None:
    with pytest.raises(ValidationError, match="never a key"):
        FeatureKey.model_validate({"key_type": "card", "key_id": number})


@pytest.mark.parametrize(
    "key",
    [
        {"key_type": "terminal", "key_id": "t1"},
        {"key_type": "card", "key_id": ""},
        {"key_type": "card", "key_id": "a b"},
        {"key_type": "card", "key_id": "a\n"},
        {"key_type": "card", "key_id": "é"},
        {"key_type": "card", "key_id": "a" * 129},
        {"key_type": "card", "key_id": 5},
        {"key_type": "card"},
        {"key_type": "card", "key_id": "c1", "more": 1},
    ],
)
def test_refused_keys(key: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FeatureKey.model_validate(key)


def test_key_types_are_closed() -> None:
    assert [kind.value for kind in KeyType] == ["account", "card", "customer", "device", "merchant"]
    # whether a bare fingerprint is one, the pack says
    FeatureKey.model_validate({"key_type": "device", "key_id": "ab12" * 8})
    assert FeatureKey.model_validate({"key_type": "card", "key_id": "card_0001"}).key_type is KeyType.CARD


@pytest.mark.parametrize("key_id", ["a", "!", "~", "a" * 128])
def test_the_shortest_and_the_longest_keys(key_id: str) -> None:
    assert FeatureKey.model_validate({"key_type": "card", "key_id": key_id}).key_id == key_id


@pytest.mark.parametrize("seed", [0, 1, 2**53 - 1])
def test_the_least_and_the_greatest_seed(seed: int) -> None:
    assert ContextPins.model_validate({**PINS, "seed": seed}).seed == seed


def test_absent_pins_are_left_out() -> None:
    pins = ContextPins.model_validate(PINS)
    assert pins.wire() == PINS
    assert ContextPins.model_validate({**PINS, "seed": 0}).wire() == {**PINS, "seed": 0}
    assert set(PINS) < set(PIN_NAMES)


def test_pins_digest_is_that_of_the_wire() -> None:
    expected = f'{{"manifest_fingerprint":"{"a" * 64}","parameter_hash":"{"b" * 64}","run_id":"r1","scenario_id":"s1","seed":7}}'
    assert pins_digest(ContextPins.model_validate({**PINS, "seed": 7})) == sha256_hex(expected.encode())
    assert pins_digest(ContextPins.model_validate(PINS)) != pins_digest(ContextPins.model_validate({**PINS, "seed": 7}))


@pytest.mark.parametrize(
    "change",
    [
        {"manifest_fingerprint": "A B"},
        {"manifest_fingerprint": "4111111111111111"},
        {"parameter_hash": "b" * 129},
        {"parameter_hash": ""},
        {"run_id": "4111-1111-1111-1111"},
        {"seed": -1},
        {"seed": 2**53},
        {"run_id": ""},
        {"seed": "1"},
        {"x": 1},
    ],
)
def test_refused_pins(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ContextPins.model_validate({**PINS, **change})
