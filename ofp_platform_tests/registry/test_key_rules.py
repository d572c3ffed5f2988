"""Which texts are keys: the default, a pack's pattern, and what is never a key."""

from __future__ import annotations

import hashlib

import pytest

from ofp_platform.registry.key_rules import KeyProblem, KeyRule, key_rules
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.vocabulary.identity import KeyType

FINGERPRINTS = [hashlib.new(name, b"device").hexdigest() for name in ("md5", "sha1", "sha256")]
OBSERVED = ["me@example.com", "192.168.0.17", "2001:db8::1", "DE89370400440532013000", "4111111111111111"]
DEFAULT = KeyRule("device")


@pytest.mark.parametrize("text", [*OBSERVED, *FINGERPRINTS])
def test_the_default_is_strict(text: str) -> None:
    assert not DEFAULT.accepts(text)
    assert DEFAULT.problem(text) is KeyProblem.RAW_IDENTIFIER


@pytest.mark.parametrize("text", FINGERPRINTS)
def test_a_pattern_says_which_fingerprints_are_entity_ids(text: str) -> None:
    rule = KeyRule("device", "[0-9a-f]{64}")
    assert rule.accepts(text) is (len(text) == 64)
    assert rule.problem(text) is (None if len(text) == 64 else KeyProblem.PATTERN)


@pytest.mark.parametrize("text", OBSERVED)
def test_no_pattern_makes_a_key_of_an_observed_identifier(text: str) -> None:
    rule = KeyRule("device", ".*")
    assert not rule.accepts(text)
    assert rule.problem(text) is KeyProblem.RAW_IDENTIFIER


@pytest.mark.parametrize(
    ("text", "accepted"), [("d-1", True), ("d-", False), ("d-12", False), ("xd-1", False), ("d-1\n", False), ("d-٣", False)]
)
def test_the_whole_key_matches(text: str, accepted: bool) -> None:
    assert KeyRule("device", r"d-\d").accepts(text) is accepted


@pytest.mark.parametrize("text", ["", "a b", "é", "a" * 129])
def test_a_pattern_changes_nothing_of_the_characters(text: str) -> None:
    assert KeyRule("device", ".*").problem(text) is KeyProblem.CHARACTERS
    assert DEFAULT.problem(text) is KeyProblem.CHARACTERS


def test_every_key_type_has_a_rule() -> None:
    rules = key_rules(shipped_pack("card_payments"))
    assert list(rules) == [key_type.value for key_type in KeyType]
    assert {rule.pattern for rule in rules.values()} == {None}
