"""import.yaml: what it says, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.tables.import_rules import ImportRulesError, load_import_rules

EVENTS = """
events:
  event_type: booking
  time: {column: Booked}
  fields:
    wallet: {column: Wallet No, type: key}
    amount_minor: {column: Amount, type: amount, digits: 2}
"""
LABELS = """
labels:
  event_type: booking
  event_id: tx
  label_type: fraud
  value: 1
  observed: {column: reported}
  source: history.chargebacks
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "import.yaml"
    path.write_text(text)
    return path


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    rules = load_import_rules(written(tmp_path, EVENTS + LABELS))
    assert rules.events.event_id is None
    assert rules.events.admitted_after_us == 0
    assert rules.events.fields["amount_minor"].digits == 2
    assert rules.labels is not None
    assert rules.labels.admitted == "now"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("events: [", r"import\.yaml:1: not YAML"),
        ("", "the file: "),
        (EVENTS.replace("digits: 2", "digits: 20"), r"events\.fields\.amount_minor\.digits"),
        (EVENTS.replace("type: key", "type: key, digits: 2"), "digits are of an amount"),
        (EVENTS.replace("type: key", "type: money"), r"events\.fields\.wallet\.type"),
        (EVENTS.replace("{column: Booked}", "{column: Booked, zone: Berlin}"), r"events\.time\.zone"),
        (EVENTS + LABELS.replace("value: 1", "value: 1\n  value_column: y"), "either value"),
        (EVENTS + LABELS.replace("  value: 1\n", ""), "either value"),
        (EVENTS + "other: 1\n", "other"),
        (EVENTS + "# 4111 1111 1111 1111\n" + LABELS.replace("tx", '"4111111111111111"'), "raw identifier"),
    ],
)
def test_what_is_wrong_is_said_with_its_field(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ImportRulesError, match=words) as caught:
        load_import_rules(written(tmp_path, text))
    assert "4111" not in str(caught.value)


def test_a_file_that_is_not_there_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ImportRulesError, match="ofp init --events"):
        load_import_rules(tmp_path / "import.yaml")
