"""Admission to training: a whole training set passes, and every rule that is broken is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, Purpose
from ofp_platform.vocabulary.offline.dataset_admission import LABEL_COLUMNS, AdmissionReason, DatasetNotAdmitted, admit
from ofp_platform.vocabulary.offline.dataset_manifest import (
    DatasetColumn,
    DatasetManifest,
    Gates,
    LabelReceipt,
    ParityReceipt,
)
from ofp_platform_tests.oracle.manifests import a_manifest

LABELS = LabelReceipt(rows=15, labelled=3, mature=10, immature=5, covered=10, coverage="1.000000", resolved_digest="1" * 64)
PARITY = ParityReceipt(anchors=2, match=2, mismatch=0, uncheckable=0)
COLUMNS = (
    DatasetColumn(name="event_id", type="string", role="row_key"),
    DatasetColumn(name="account_activity_v1__count_1d", type="int64", role="feature"),
    *(DatasetColumn(name=name, type=arrow_type, role="label") for name, arrow_type in LABEL_COLUMNS.items()),
)


def with_identity(manifest: DatasetManifest) -> DatasetManifest:
    return manifest.model_copy(update={"dataset_identity": manifest.derived_identity})


def training_set(**changes: Any) -> DatasetManifest:
    base = a_manifest()
    gates = base.gates.model_copy(update={"label_rows_checked": 3, "labels": LABELS, "parity": PARITY})
    return with_identity(base.model_copy(update={"columns": COLUMNS, "gates": gates, **changes}))


def gates(**changes: Any) -> Gates:
    return training_set().gates.model_copy(update=changes)


def policy(**changes: Any) -> dict[str, Any]:
    return {"policy": training_set().policy.model_copy(update=changes)}


def test_a_whole_training_set_is_admitted() -> None:
    admit(training_set())
    admit(DatasetManifest.model_validate_json(training_set().encoded()))


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"purpose": Purpose.ANALYSIS}, AdmissionReason.PURPOSE_NOT_TRAINING, "was built for analysis"),
        ({"as_of_basis": AsOfBasis.EVENT_TIME}, AdmissionReason.HINDSIGHT, "as_of_basis event_time"),
        (policy(require_parity=False), AdmissionReason.POLICY_TOO_WEAK, "asks for no parity"),
        (policy(min_label_coverage="0.0"), AdmissionReason.POLICY_TOO_WEAK, "asks for no label coverage"),
        ({"gates": gates(parity=None)}, AdmissionReason.GATE_MISSING, "parity"),
        ({"gates": gates(parity=PARITY.model_copy(update={"anchors": 0, "match": 0}))}, AdmissionReason.GATE_MISSING, "parity"),
        ({"gates": gates(labels=None)}, AdmissionReason.GATE_MISSING, "labels"),
        ({"label_basis": None}, AdmissionReason.GATE_MISSING, "labels"),
        ({"gates": gates(label_rows_checked=0)}, AdmissionReason.GATE_MISSING, "leakage of labels"),
        ({"gates": gates(feature_rows_checked=0)}, AdmissionReason.GATE_MISSING, "leakage of features"),
        (
            {"gates": gates(parity=PARITY.model_copy(update={"mismatch": 1}))},
            AdmissionReason.GATE_FAILED,
            "not what the log gives",
        ),
        (
            {"gates": gates(parity=PARITY.model_copy(update={"anchors": 3, "uncheckable": 1}))},
            AdmissionReason.GATE_FAILED,
            "1 of 3 decisions could not be checked",
        ),
        ({"gates": gates(parity=PARITY.model_copy(update={"anchors": 3}))}, AdmissionReason.GATE_FAILED, "3 decisions, but 2"),
        ({"gates": gates(labels=LABELS.model_copy(update={"covered": 9}))}, AdmissionReason.GATE_FAILED, "cover 9 of 10"),
        ({"gates": gates(labels=LABELS.model_copy(update={"mature": 0}))}, AdmissionReason.GATE_FAILED, "of 0 mature"),
        ({"columns": COLUMNS[:-1]}, AdmissionReason.SCHEMA_UNFIT, "no column label_is_mature of type bool"),
        ({"columns": COLUMNS[:1] + COLUMNS[2:]}, AdmissionReason.SCHEMA_UNFIT, "no feature of account_activity_v1"),
        ({"columns": (*COLUMNS, COLUMNS[0])}, AdmissionReason.SCHEMA_UNFIT, "two columns of one name"),
        ({"row_order": "some"}, AdmissionReason.SCHEMA_UNFIT, "in an order of another kind"),
        ({"row_count": 0}, AdmissionReason.SCHEMA_UNFIT, "it has no rows"),
    ],
)
def test_a_broken_rule_is_refused_by_name(changes: dict[str, Any], reason: AdmissionReason, words: str) -> None:
    with pytest.raises(DatasetNotAdmitted, match=words) as caught:
        admit(training_set(**changes))
    assert caught.value.reason is reason


def test_hindsight_is_admitted_where_it_is_asked_for() -> None:
    admit(training_set(as_of_basis=AsOfBasis.EVENT_TIME), allow_hindsight=True)


def test_an_identity_of_other_fields_is_refused() -> None:
    with pytest.raises(DatasetNotAdmitted, match="IDENTITY_MISMATCH"):
        admit(training_set().model_copy(update={"dataset_identity": "0" * 64}))
