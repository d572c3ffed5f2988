"""Admission of published datasets to training: whoever trains a model asks here first, by the manifest alone."""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction

from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, Purpose
from ofp_platform.vocabulary.offline.build_plan import ROW_ORDER
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest

LABEL_COLUMNS = {"label_value": "int64", "label_observed_time": "timestamp[us, tz=UTC]", "label_is_mature": "bool"}
"""The label columns of every training set, and their Arrow types."""


class AdmissionReason(StrEnum):
    """Why a dataset is not admitted to training, from a closed list."""

    IDENTITY_MISMATCH = "IDENTITY_MISMATCH"
    PURPOSE_NOT_TRAINING = "PURPOSE_NOT_TRAINING"
    HINDSIGHT = "HINDSIGHT"
    POLICY_TOO_WEAK = "POLICY_TOO_WEAK"
    GATE_MISSING = "GATE_MISSING"
    GATE_FAILED = "GATE_FAILED"
    SCHEMA_UNFIT = "SCHEMA_UNFIT"


class DatasetNotAdmitted(Exception):
    """The dataset is not fit to train on; `reason` names the rule, the text says where it is broken."""

    def __init__(self, reason: AdmissionReason, message: str) -> None:
        super().__init__(f"{reason.value}: {message}")
        self.reason = reason
        self.message = message


def admit(manifest: DatasetManifest, *, allow_hindsight: bool = False) -> None:
    """Admit a dataset to training, or refuse it by name.

    What the manifest does not say counts as not so: a gate that is missing was not passed. `allow_hindsight`: the model may be
    trained on rows that know events admitted after them (`as_of_basis` event_time), which no served vector does.

    Raises:
        DatasetNotAdmitted: the first rule that the manifest breaks.
    """
    name = f"dataset {manifest.dataset_name} {manifest.dataset_identity[:12]}"
    for check in (_check_identity, _check_purpose, _check_policy, _check_gates, _check_schema):
        check(manifest, name)
    if manifest.as_of_basis is AsOfBasis.EVENT_TIME and not allow_hindsight:
        raise DatasetNotAdmitted(
            AdmissionReason.HINDSIGHT,
            f"{name} has as_of_basis event_time: its rows know what was admitted after them. Build it with ingest_time or"
            " decision, or allow hindsight where you ask for the training",
        )


def _check_identity(manifest: DatasetManifest, name: str) -> None:
    if manifest.derived_identity != manifest.dataset_identity:
        raise DatasetNotAdmitted(
            AdmissionReason.IDENTITY_MISMATCH,
            f"the identity of {name} is not that of the fields of its manifest: another release wrote it, or it was altered",
        )


def _check_purpose(manifest: DatasetManifest, name: str) -> None:
    if manifest.purpose is not Purpose.TRAINING:
        raise DatasetNotAdmitted(
            AdmissionReason.PURPOSE_NOT_TRAINING, f"{name} was built for {manifest.purpose.value}: build one for training"
        )


def _check_policy(manifest: DatasetManifest, name: str) -> None:
    policy = manifest.policy
    if weak := policy.weaknesses_for_training():
        raise DatasetNotAdmitted(
            AdmissionReason.POLICY_TOO_WEAK,
            f"{name} was built under policy {policy.policy_id} revision {policy.revision}: {' and '.join(weak)}",
        )


def _check_gates(manifest: DatasetManifest, name: str) -> None:
    gates = manifest.gates
    if missing := [
        gate
        for gate, is_missing in (
            ("completeness", not gates.completeness.records),
            ("leakage of features", not gates.feature_rows_checked),
            ("labels", gates.labels is None or manifest.label_basis is None),
            ("leakage of labels", not gates.label_rows_checked),
            ("parity", gates.parity is None or not gates.parity.match),
        )
        if is_missing
    ]:
        raise DatasetNotAdmitted(
            AdmissionReason.GATE_MISSING, f"the manifest of {name} does not say that it passed: {', '.join(missing)}"
        )
    labels, parity, policy = gates.labels, gates.parity, manifest.policy
    assert labels is not None  # see above
    assert parity is not None
    failed = [
        words
        for words, has_failed in (
            (f"{gates.completeness.anomalies} event ids with two contents", gates.completeness.anomalies > 0),
            (
                f"labels cover {labels.covered} of {labels.mature} mature rows",
                not labels.mature or Fraction(labels.covered, labels.mature) < Fraction(policy.min_label_coverage),
            ),
            (f"{parity.mismatch} decisions are not what the log gives", parity.mismatch > 0),
            (
                f"{parity.anchors} decisions, but {parity.match} matches",
                parity.match + parity.mismatch + parity.uncheckable != parity.anchors,
            ),
            (
                f"{parity.uncheckable} of {parity.anchors} decisions could not be checked",
                parity.uncheckable > Fraction(policy.max_uncheckable_share) * parity.anchors,
            ),
            (f"{parity.anchors} of {policy.min_parity_anchors} decisions compared", parity.anchors < policy.min_parity_anchors),
        )
        if has_failed
    ]
    if failed:
        raise DatasetNotAdmitted(AdmissionReason.GATE_FAILED, f"{name}: {'; '.join(failed)}")


def _check_schema(manifest: DatasetManifest, name: str) -> None:
    columns = {column.name: column for column in manifest.columns}
    groups = tuple(f"{group.group_name}_{group.group_version}__" for group in manifest.feature_groups)
    features = [column.name for column in manifest.columns if column.role == "feature"]
    wrong = [
        *(
            f"no column {label} of type {arrow_type}"
            for label, arrow_type in LABEL_COLUMNS.items()
            if label not in columns or (columns[label].type, columns[label].role) != (arrow_type, "label")
        ),
        *(f"feature {feature} is of none of its groups" for feature in features if not feature.startswith(groups)),
        *(f"no feature of {group.removesuffix('__')}" for group in groups if not any(f.startswith(group) for f in features)),
    ]
    if len(columns) != len(manifest.columns):
        wrong.append("two columns of one name")
    if manifest.row_order != ROW_ORDER:
        wrong.append(f"its rows are in an order of another kind: {manifest.row_order}")
    if not manifest.row_count:
        wrong.append("it has no rows")
    if wrong:
        raise DatasetNotAdmitted(AdmissionReason.SCHEMA_UNFIT, f"{name}: {'; '.join(wrong)}")
