"""decision.yaml: what it says, and what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ofp_platform.decisions.decision_file import DecisionFileError, load_decision_point
from ofp_platform.decisions.event_reader import ReadEvent
from ofp_platform.vocabulary.identity import ContextPins, KeyType
from ofp_platform.vocabulary.identity_link import minted_id
from ofp_platform.vocabulary.position import Position

GOOD = """
event_type: booking
key_fields: {account: wallet}
groups: [{group_name: account_activity, group_version: v1}]
rule:
  rule_name: velocity
  rule_version: v1
  conditions: [{group_name: account_activity, group_version: v1, feature: count_1h, at_least: 5, points: 30}]
  review_from: 30
  decline_from: 60
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "decision.yaml"
    path.write_text(text)
    return path


def test_a_decision_point_is_read(tmp_path: Path) -> None:
    point = load_decision_point(written(tmp_path, GOOD))
    assert point.key_fields == {"account": "wallet"}
    assert point.groups == (("account_activity", "v1"),)
    assert point.context_fields == ()
    assert point.rule.conditions[0].at_least == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", r"decision\.yaml:1: not YAML"),
        ("", "the file: "),
        (GOOD.replace("account:", "person:"), "key_fields"),
        (GOOD.replace("points: 30", "points: many"), r"rule\.conditions\.0\.points"),
        (
            GOOD.replace("groups: [{group_name: account_activity", "groups: [{group_name: other"),
            "not asked for",
        ),
        (GOOD.replace("decline_from: 60", "decline_from: 6"), "nothing would ever be reviewed"),
    ],
)
def test_what_is_wrong_is_said_with_its_field(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DecisionFileError, match=words):
        load_decision_point(written(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DecisionFileError, match="No such file"):
        load_decision_point(tmp_path / "decision.yaml")


def test_a_key_may_be_an_identifier_that_was_observed(tmp_path: Path) -> None:
    text = GOOD.replace("{account: wallet}", "{account: wallet, device: 'observed_identifiers[device_print]'}")
    point = load_decision_point(written(tmp_path, text))
    pins = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)
    identifiers = [{"id_type": "device_print", "id_token": "t_1"}]
    position = Position(stream_name="bookings", partition_id="0000", offset=0)
    event = ReadEvent(position, "e-1", 10**15, {"wallet": "w-1", "observed_identifiers": identifiers})
    request = point.request(event, pins)
    assert request is not None
    device = next(key.key_id for key in request.feature_keys if key.key_type is KeyType.DEVICE)
    assert device == minted_id(KeyType.DEVICE, "device_print", "t_1")
    for listed in ([], [*identifiers, {"id_type": "device_print", "id_token": "t_2"}], "no list"):
        assert point.request(replace(event, payload={"wallet": "w-1", "observed_identifiers": listed}), pins) is None
