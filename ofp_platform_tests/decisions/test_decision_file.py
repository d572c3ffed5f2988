"""decision.yaml: what it says, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.decisions.decision_file import DecisionFileError, load_decision_point

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
