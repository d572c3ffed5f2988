"""Lists of what the offline plane keeps, as the service shows them: builds, comparisons, datasets. Each by pages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, PolicyRev, Time
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, Purpose
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.parity_record import EventRef
from ofp_platform.vocabulary.serving import Count, GroupVersion, Value, Version

MOST_ENTRIES = 100
"""Entries of a page."""
Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="a day, UTC")]
NextCursor = Annotated[str | None, Field(description="leads to the entries behind it; null: there are none")]


class ShownRefusal(Model):
    """A refusal as it was recorded, by whichever release."""

    reason: str
    field: str
    message: str


class ShownSize(Model):
    """How large a build is, as told before its first row: rows at most, bytes of scratch and files as estimated."""

    records: Count
    rows: Count
    bytes: Count


class ShownStage(Model):
    """The receipt of a stage that ended."""

    stage: str
    attempt: Count
    publish_attempt: Count
    digest: Digest
    recorded_at_utc: Time


class BuildEntry(Model):
    """One request, also one whose intent another release wrote in a form that is not read here."""

    run_key: Digest
    state: RunState = Field(strict=False)
    intent: str = Field(description="its kind, as in dataset_build")
    dataset_name: str | None
    submitted_by: str | None
    publish_only: bool
    attempts: Count
    attempt_limit: Count
    publish_attempts: Count
    publish_attempt_limit: Count
    refusal: ShownRefusal | None = Field(description="why it failed, or why publication is still to come")
    size: ShownSize | None = Field(description="of the newest attempt that told it; null: none did")
    newest_stage: ShownStage | None = Field(description="the last stage that ended; null: none did")
    dataset_identity: Digest | None = Field(description="of a build that is DONE and gave a dataset")
    submitted_at_utc: Time
    changed_at_utc: Time


class BuildList(Model):
    """A page of builds of the run that is served, the newest first."""

    kind: Literal["ofs_build_list"] = "ofs_build_list"
    contract_version: Version = "v0"
    builds: tuple[BuildEntry, ...] = Field(strict=False)
    next_cursor: NextCursor


class BuildProgress(Model):
    """One build, and every stage of every attempt that ended, in order."""

    kind: Literal["ofs_build_progress"] = "ofs_build_progress"
    contract_version: Version = "v0"
    build: BuildEntry
    stages: tuple[ShownStage, ...] = Field(strict=False)


class ParityComparison(Model):
    """One comparison of recorded decisions with their rebuild. What was not compared is in none of the counts."""

    comparison_id: Digest
    requested_by: Literal["run", "build"] = Field(description="run: `ofp parity run`; build: the parity of a build of this key")
    match: Count
    mismatch: Count
    uncheckable: Count
    first_as_of_utc: Time | None = Field(description="of what was compared; null: no provenance is readable")
    last_as_of_utc: Time | None


class ParityList(Model):
    """A page of comparisons of the run that is served, by their newest as-of, the newest first."""

    kind: Literal["ofs_parity_list"] = "ofs_parity_list"
    contract_version: Version = "v0"
    comparisons: tuple[ParityComparison, ...] = Field(strict=False)
    next_cursor: NextCursor


class ParityDay(Model):
    """How the snapshots of one day (of their as-of) compare that hold a group."""

    day: Day
    group_name: Name
    group_version: GroupVersion
    match: Count
    mismatch: Count
    uncheckable: Count


class CorrectedGroup(Model):
    """Decisions of one day that late events would have changed in a group."""

    day: Day
    group_name: Name
    group_version: GroupVersion
    decisions: Count
    values: Count


class UncheckableCount(Model):
    """How many snapshots could not be compared for one reason."""

    reason: str
    count: Count


class ShownMismatch(Model):
    """One snapshot that is not what the log gives, and the first place at which they differ."""

    decision_id: Identifier | None
    online_snapshot_ref: Digest
    offline_snapshot_ref: Digest | None
    as_of_time_utc: Time | None
    where: str | None
    key_type: KeyType | None = Field(strict=False)
    key_id: str | None
    group_name: Name | None
    group_version: GroupVersion | None
    feature: str | None
    served: Value | None = Field(description="null where it is no single value")
    rebuilt: Value | None
    differences: Count = Field(description="places that differ")
    detail: str | None
    events: tuple[EventRef, ...] = Field(strict=False, description="whose presence explains the served value, where one does")


class ParityReport(Model):
    """One comparison by day and group, the newest days first, with the earliest mismatches."""

    kind: Literal["ofs_parity_report"] = "ofs_parity_report"
    contract_version: Version = "v0"
    comparison: ParityComparison
    days: tuple[ParityDay, ...] = Field(strict=False)
    undated: Count = Field(description="snapshots in none of the days: time or groups are not readable")
    uncheckable: tuple[UncheckableCount, ...] = Field(strict=False)
    mismatches: tuple[ShownMismatch, ...] = Field(strict=False, description="the earliest; `comparison` has how many there are")
    corrected: tuple[CorrectedGroup, ...] = Field(strict=False, description="of the same days")
    next_before: Day | None = Field(description="leads to the days before it; null: there are none")


class DatasetState(Model):
    """How the manifest compares with what index and run ledger recorded. The data files are not read for it."""

    state: Literal["AS_RECORDED", "DIFFERS", "UNREADABLE"]
    problems: tuple[str, ...] = Field(strict=False)


class SkewGist(Model):
    """How the rows of a dataset differ from what was served: the feature that differs most, and how many do."""

    decisions: Count
    compared: Count
    features: Count
    differing_features: Count
    worst_feature: str | None
    worst_differing: Count
    worst_compared: Count


class DatasetEntry(Model):
    """One published dataset. What stands in its manifest is null where that cannot be read."""

    dataset_name: str
    dataset_identity: Digest
    request_id: Digest
    published_at_utc: Time | None = Field(description="null: no build of this ledger recorded it")
    supersedes: Digest | None
    superseded_by: tuple[Digest, ...] = Field(strict=False)
    manifest: DatasetState
    purpose: Purpose | None = Field(default=None, strict=False)
    as_of_basis: AsOfBasis | None = Field(default=None, strict=False)
    rows: Count | None = None
    columns: Count | None = None
    bytes: Count | None = None
    feature_pack: PinnedPack | None = None
    label_type: Name | None = None
    policy_rev: PolicyRev | None = None
    skew: SkewGist | None = Field(default=None, description="null: the manifest has no table of skew")


class DatasetList(Model):
    """A page of published datasets of the run that is served, by name and identity."""

    kind: Literal["ofs_dataset_list"] = "ofs_dataset_list"
    contract_version: Version = "v0"
    datasets: tuple[DatasetEntry, ...] = Field(strict=False)
    next_cursor: NextCursor


class PublishedDataset(Model):
    """One published dataset with its manifest; null: it cannot be read, `entry` says why."""

    kind: Literal["ofs_published_dataset"] = "ofs_published_dataset"
    contract_version: Version = "v0"
    entry: DatasetEntry
    manifest: DatasetManifest | None
