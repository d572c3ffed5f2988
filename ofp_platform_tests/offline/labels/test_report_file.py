"""reports.yaml: what it says, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.offline.labels.label_sources import FRAUD_REPORTS
from ofp_platform.offline.labels.report_file import ReportFileError, load_report_rule
from ofp_platform.registry.pack import shipped_pack

EVENTS = shipped_pack("card_payments").events
GOOD = "{event_type: fraud_report, about_type: card_payment, about_field: payment_event_id, label_type: fraud}"


def written(folder: Path, text: str) -> Path:
    path = folder / "reports.yaml"
    path.write_text(text)
    return path


def test_a_rule_is_read_as_a_shipped_one_is_declared(tmp_path: Path) -> None:
    assert load_report_rule(written(tmp_path, GOOD), EVENTS) == FRAUD_REPORTS["card_payments"]
    assert load_report_rule(written(tmp_path, GOOD.replace("fraud}", "fraud, value: 0}")), EVENTS).value == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", ":1: not YAML"),
        ("[]", "the file: "),
        (GOOD.replace("about_field", "field"), "about_field: Field required"),
        (GOOD.replace("fraud_report", "fraud_reprot"), "event_type: the pack knows no fraud_reprot; did you mean 'fraud_report'"),
        (GOOD.replace("fraud}", "fraud, value: yes}"), "value: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ReportFileError) as error:
        load_report_rule(path, EVENTS)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    with pytest.raises(ReportFileError, match="No such file"):
        load_report_rule(tmp_path / "none.yaml", EVENTS)
