"""A profile: what it may say, what its digest covers, and how a wrong one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ofp_platform.vocabulary.profile import WIRING, Profile, ProfileError, Tier, load_profile
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
        ({"log_kind": "pulsar"}, "log_kind"),
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
        ("pack: a\npack: b", "profile.yaml:2: the field pack is written twice"),
        ("a: {b: 1, b: 1}", "profile.yaml:1: the field b is written twice"),
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


@pytest.mark.parametrize(
    "changed",
    [
        {"clock_skew": "6m"},
        {"posture": {}},
        {"limits": {"max_keys": 1}},
        {"thresholds": {"archive_lag_red": 0.8}},
        {"partitions": 3},
    ],
)
def test_whatever_rules_is_in_policy_rev(changed: dict[str, Any]) -> None:
    assert Profile(**{**LEAST, **changed}).policy_rev != Profile(**LEAST).policy_rev


def test_a_profile_without_a_posture_has_the_revision_that_it_had() -> None:
    assert "posture" not in Profile(**LEAST).policy
    assert Profile(**LEAST, posture={"fail_closed": "decline"}).policy["posture"]["fail_closed"] == "decline"


@pytest.mark.parametrize(
    "changed",
    [
        *({name: "s3://elsewhere"} for name in sorted(WIRING)),
        {"profile_name": "village"},
        {"stream_name": "other"},
        {"log_kind": "kinesis"},
        {"context_pins": {**PINS, "run_id": "another"}},
    ],
)
def test_where_it_is_and_of_which_run_is_not(changed: dict[str, Any]) -> None:
    assert Profile(**{**LEAST, **changed}).policy_rev == Profile(**LEAST).policy_rev


def test_a_policy_of_bundles_that_is_not_said_leaves_the_policy_as_it_was() -> None:
    assert "bundles" not in Profile(**LEAST).policy
    said = Profile(**LEAST, bundles={"four_eyes": True})
    assert said.policy == {**Profile(**LEAST).policy, "bundles": {"four_eyes": True}}
    assert said.policy_rev != Profile(**LEAST, bundles={"four_eyes": False}).policy_rev
    assert Profile(**LEAST).run_config_digest == said.run_config_digest


def test_policy_rev_begins_with_the_revision_and_does_not_know_the_folder(tmp_path: Path) -> None:
    revs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = written(tmp_path / name, {**LEAST, "policy_revision": 7, "pack": "packs/own.yaml"})
        revs.append(load_profile(path).policy_rev)
    assert revs[0] == revs[1]
    assert revs[0].startswith("7.")


TIERS = {"local_parity": {"log_kind": "kinesis"}, "production": {"limits": {"max_keys": 7}, "clock_skew": "1m"}}


def test_a_tier_is_laid_over_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path, {**LEAST, "limits": {"max_groups": 5}, "tiers": TIERS})
    local, parity, production = (load_profile(path, tier) for tier in Tier)
    assert (local.log_kind, parity.log_kind, production.log_kind) == ("postgres", "kinesis", "postgres")
    assert (production.limits.max_keys, production.limits.max_groups, production.clock_skew) == (7, 5, "1m")
    assert (local.policy_rev == parity.policy_rev, local.policy_rev == production.policy_rev) == (True, False)
    assert local == Profile(**{**LEAST, "limits": {"max_groups": 5}})


@pytest.mark.parametrize(
    ("tiers", "words"),
    [
        ({"prod": {}}, r"tiers\.prod"),
        ({"production": {"object_store_url": "s3://a"}}, "tiers.production.object_store_url: is no field that a tier may"),
        ({"production": {"profile_name": "other"}}, "tiers.production.profile_name: is no field that a tier may"),
        ({"production": {"colour": "green"}}, "tiers.production.colour: is no field that a tier may"),
        ({"production": {"limits": {"max_keys": 0}}}, r"tiers\.production\.limits\.max_keys: "),
    ],
)
def test_a_wrong_overlay_is_told_in_every_tier(tmp_path: Path, tiers: Any, words: str) -> None:
    path = written(tmp_path, {**LEAST, "tiers": tiers})
    for tier in Tier:
        with pytest.raises(ProfileError, match=words):
            load_profile(path, tier)


@pytest.mark.parametrize("name", sorted(WIRING))
def test_only_the_file_of_the_tier_local_names_an_endpoint(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, {**LEAST, name: "s3://objects"})
    assert getattr(load_profile(path), name) == "s3://objects"
    for tier in (Tier.LOCAL_PARITY, Tier.PRODUCTION):
        with pytest.raises(ProfileError, match=f"OFP_{name.upper()}"):
            load_profile(path, tier)
