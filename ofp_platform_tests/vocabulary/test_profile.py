"""A profile: what it may say, what its digest covers, and how a wrong one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ofp_platform.vocabulary.profile import Profile, ProfileError, load_profile
from ofp_platform_tests.oracle.strategies import PINS

LEAST: dict[str, Any] = {
    "profile_name": "town",
    "stream_name": "payments",
    "partition_key": "payload.account_id",
    "context_pins": PINS,
    "pack": "card_payments",
}


def written(folder: Path, content: Any) -> Path:
    path = folder / "profile.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(content, file)
    return path


def test_the_least_profile_has_the_declared_defaults(tmp_path: Path) -> None:
    profile = load_profile(written(tmp_path, LEAST))
    assert (profile.clock_skew_us, profile.allowed_lateness_us) == (300_000_000, 86_400_000_000)
    assert (profile.limits.max_keys, profile.limits.max_groups, profile.limits.at_least_basis_wait_ms) == (100, 32, 500)
    assert profile.log_kind == "postgres"


@pytest.mark.parametrize(
    "changed",
    [{"clock_skew": "6m"}, {"allowed_lateness": "2d"}, {"stream_name": "other"}],
)
def test_what_can_change_a_value_or_a_refused_event_changes_the_digest(changed: dict[str, Any]) -> None:
    assert Profile(**{**LEAST, **changed}).run_config_digest != Profile(**LEAST).run_config_digest


@pytest.mark.parametrize(
    "changed",
    [
        {"clock_skew": "300s"},
        {"batch_records": 1},
        {"range_size": 7},
        {"limits": {"max_keys": 1}},
        {"thresholds": {"refuse_when_red": True}},
        {"profile_name": "village"},
        {"log_kind": "kinesis"},
    ],
)
def test_what_cannot_does_not(changed: dict[str, Any]) -> None:
    assert Profile(**{**LEAST, **changed}).run_config_digest == Profile(**LEAST).run_config_digest


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"clock_skew": "-1s"}, "clock_skew"),
        ({"allowed_lateness": "a week"}, "allowed_lateness"),
        ({"partition_key": "account_id"}, "partition_key"),
        ({"partitions": 0}, "partitions"),
        ({"limits": {"max_key": 7}}, "limits.max_key"),
        ({"context_pins": {**PINS, "parameter_hash": "b c"}}, "context_pins.parameter_hash"),
        ({"object_store_url": "http://somewhere"}, "object_store_url"),
        ({"log_kind": "kafka"}, "log_kind"),
        ({"colour": "green"}, "colour"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path: Path, changed: dict[str, Any], field: str) -> None:
    path = written(tmp_path, {**LEAST, **changed})
    with pytest.raises(ProfileError, match=r"profile\.yaml") as caught:
        load_profile(path)
    assert f": {field}: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "ofp init"),
        ("a: [1", "not YAML"),
        ("", "profile.yaml"),
        ("- 1", "profile.yaml"),
        ("pack: é\x00", "YAML"),
        ("pack: a\npack: b", "line 2: the field pack is written twice"),
        ("a: {b: 1, b: 1}", "line 1: the field b is written twice"),
        ("pack: PAN 4111-1111-1111-1111", "profile.pack: a raw identifier"),
    ],
)
def test_no_profile_at_all_is_told_in_words(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "profile.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=words):
        load_profile(path)


def test_a_byte_order_mark_is_no_part_of_a_profile(tmp_path: Path) -> None:
    path = written(tmp_path, LEAST)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_profile(path) == Profile(**LEAST)


def test_a_file_that_is_not_text_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="UTF-8"):
        load_profile(path)
