"""The receipts of the stages of a build, and the outcome of each kind of build, as the run ledger stores them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ofp_platform.vocabulary.model import Digest, Model, Name
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.build_refusal import Refusal
from ofp_platform.vocabulary.offline.dataset_manifest import (
    DatasetManifest,
    LabelReceipt,
    ObjectPath,
    ParityReceipt,
    ReplayReceipt,
)
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine
from ofp_platform.vocabulary.serving import Count


class ReplayStageReceipt(ReplayReceipt):
    """The replay, and how many archived positions were held against the log."""

    positions_cross_checked: Count


class SizeReceipt(Model):
    """How large the build is, told before its first row: rows at most, bytes of scratch and files as estimated."""

    records: Count
    rows: Count
    bytes: Count


class DayOfLabels(Model):
    """The counts of the label receipt for the rows of one day, UTC."""

    day: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    rows: Count
    labelled: Count
    mature: Count
    immature: Count
    covered: Count


class LabelStageReceipt(LabelReceipt):
    """The labels, whole and by day."""

    by_day: tuple[DayOfLabels, ...] = Field(strict=False)


class StagedDataset(Model):
    """A dataset that is built and not published yet."""

    manifest: DatasetManifest
    events_without_decision: Count
    engine: FeatureEngine | None = Field(default=None, strict=False, description="null for the processes of the plane")


class DatasetOutcome(Model):
    """The outcome of a dataset build."""

    dataset_name: Name
    dataset_identity: Digest
    manifest_path: ObjectPath
    manifest_digest: Digest
    content_digest: Digest
    rows: Count


class SnapshotOutcome(Model):
    """The outcome of a forensic rebuild: against the expected hash, REBUILT where none was given."""

    outcome: Literal["REBUILT", "MATCH", "MISMATCH"]
    feature_snapshot_hash: Digest
    object_path: ObjectPath
    records: Count = Field(description="records of the replay")


BuildOutcome = DatasetOutcome | ParityReceipt | SnapshotOutcome
STAGE_CONTENTS: dict[str, type[Model]] = {
    "plan": BuildPlan,
    "replay": ReplayStageReceipt,
    "size": SizeReceipt,
    "parity": ParityReceipt,
    "labels": LabelStageReceipt,
    "staged": StagedDataset,
    "manifest": DatasetOutcome,
    "snapshot": SnapshotOutcome,
    "refusal": Refusal,
}
"""The model of each stage's receipt."""
