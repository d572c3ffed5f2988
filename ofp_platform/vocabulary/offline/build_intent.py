"""Intents: requests to the offline plane, pinned so that it means the same tomorrow."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from ofp_platform.vocabulary.canonical import MAX_INTEGER, digest_of
from ofp_platform.vocabulary.identity import ContextPins, KeyId, KeyType
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, Time
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis, ReversedRange
from ofp_platform.vocabulary.position import Basis, StreamName
from ofp_platform.vocabulary.serving import FeatureGroupRef, FeatureGroupVersionSet, FeatureKeys, GraphVersion, Version
from ofp_platform.vocabulary.times import parse_time

Revision = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
Integer = Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Scalar = Integer | str | bool
TableColumn = Annotated[str, Field(min_length=1, max_length=200)]
GRAPH_VERSION_COLUMN = "graph_version"
"""The column of a dataset that names the version of the identity graph that a row knows."""
ParityAnchors = Literal["none", "all_decisions_in_replay"]


class AsOfBasis(StrEnum):
    """What a row may know of the replay basis. There is no default: an intent says which."""

    DECISION = "decision"
    INGEST_TIME = "ingest_time"
    EVENT_TIME = "event_time"


class AsOfSpec(Model):
    """The instant of features, and what was known of the log: `decision`, a basis as a decision records it."""

    as_of_time_utc: Time
    as_of_basis: AsOfBasis = Field(strict=False)


class Purpose(StrEnum):
    """What a dataset is for. A training set passes every gate or does not exist."""

    TRAINING = "training"
    ANALYSIS = "analysis"


def _check_forward(from_utc: str | None, to_utc: str | None) -> None:
    if from_utc is not None and to_utc is not None and parse_time(from_utc) >= parse_time(to_utc):
        raise ReversedRange("the time range is reversed or empty: from_utc must lie before to_utc")


class AdmissionTimes(Model):
    """Selects the records that were admitted in [from, to), by offsets: the resolver records both."""

    select: Literal["admission_times"] = "admission_times"
    from_utc: Time
    to_utc: Time

    @model_validator(mode="after")
    def _forward(self) -> Self:
        _check_forward(self.from_utc, self.to_utc)
        return self


class Offsets(Model):
    """Selects spans of offsets."""

    select: Literal["offsets"] = "offsets"
    basis: ReplayBasis


class FeaturePackRef(Model):
    """A published pack. With the digest the revision is checked against it."""

    pack_id: Name
    revision: Revision
    digest: Digest | None = None


class FieldFilter(Model):
    """Keeps the events whose payload field holds one of the values."""

    field: Identifier
    one_of: tuple[Scalar, ...] = Field(strict=False, min_length=1)


class PerEvent(Model):
    """One row per event of these types, `from_utc <= ts < to_utc`; features of the keys that it touches, as of its ts."""

    kind: Literal["per_event"] = "per_event"
    event_types: tuple[Identifier, ...] = Field(strict=False, min_length=1)
    from_utc: Time | None = None
    to_utc: Time | None = None
    filters: tuple[FieldFilter, ...] = Field(default=(), strict=False)
    payload_fields: tuple[Identifier, ...] = Field(
        default=(), strict=False, description="payload fields that become columns, by the types that the pack routes"
    )

    @model_validator(mode="after")
    def _forward(self) -> Self:
        _check_forward(self.from_utc, self.to_utc)
        return self


class EntityTime(Model):
    """One entity at one time."""

    key_id: KeyId
    as_of_time_utc: Time


class PerEntity(Model):
    """One row per listed entity and time."""

    kind: Literal["per_entity"] = "per_entity"
    key_type: KeyType = Field(strict=False)
    rows: tuple[EntityTime, ...] = Field(strict=False, min_length=1)


class PerGrid(Model):
    """One row per entity and point of a grid of times: from, from + step, ... before to. No list: every entity of the replay."""

    kind: Literal["per_grid"] = "per_grid"
    key_type: KeyType = Field(strict=False)
    from_utc: Time
    to_utc: Time
    step_seconds: int = Field(ge=1, le=366 * 86_400)
    key_ids: tuple[KeyId, ...] | None = Field(default=None, strict=False, min_length=1)

    @model_validator(mode="after")
    def _forward(self) -> Self:
        _check_forward(self.from_utc, self.to_utc)
        return self


class PerTable(Model):
    """One row per row of an entity table, in its order: keys, an as-of, and columns that the dataset keeps as they are.

    The table is stored beside the run's datasets under its content digest; what else is said here must be so in the table.
    """

    kind: Literal["per_table"] = "per_table"
    table: Digest = Field(description="content digest of the entity table (docs/datasets.md)")
    rows: int = Field(ge=1, le=MAX_INTEGER)
    key_types: tuple[Annotated[KeyType, Field(strict=False)], ...] = Field(
        strict=False, min_length=1, description="those of its keys, sorted"
    )
    columns: tuple[TableColumn, ...] = Field(default=(), strict=False, description="its other columns, in their order")
    label_columns: tuple[TableColumn, ...] = Field(
        default=(), strict=False, description="those of `columns` that are learned; nothing proves since when they were known"
    )


Scope = Annotated[PerEvent | PerEntity | PerGrid | PerTable, Field(discriminator="kind")]


class ResolutionRule(StrEnum):
    """Which of several assertions about an event holds.

    LATEST_OBSERVED: the one observed last. PRECEDENCE: that of the foremost class of sources, and of one class the one observed
    last. Of one time, that with the greatest assertion id.
    """

    LATEST_OBSERVED = "latest_observed"
    PRECEDENCE = "precedence"


class SourceClass(StrEnum):
    """A class of sources of assertions, the foremost first."""

    HUMAN = "human"
    EXTERNAL = "external"
    AUTOMATED = "automated"


SourceClasses = Annotated[
    dict[Identifier, Annotated[SourceClass, Field(strict=False)]],
    Field(min_length=1, description="`source` of assertions, and the class of each"),
]


class LabelRequest(Model):
    """Which label, as of when, by which rule. `maturity_seconds`: how long after an event a label of it may still come."""

    label_type: Name
    as_of_utc: Time | None = Field(default=None, description="required; its absence is refused as LABEL_ASOF_MISSING")
    maturity_seconds: int = Field(ge=0, le=10 * 366 * 86_400)
    rule: Annotated[ResolutionRule, Field(strict=False)] | None = Field(
        default=None, description="which of several assertions holds; absent: latest_observed"
    )
    source_classes: SourceClasses | None = Field(default=None, description="required of, and only of, `precedence`")

    @model_validator(mode="after")
    def _classes_of_precedence(self) -> Self:
        if (self.rule is ResolutionRule.PRECEDENCE) != (self.source_classes is not None):
            raise ValueError("source_classes goes with the rule precedence: both or neither")
        return self


class PolicyRef(Model):
    """A build policy, by revision. `digest`: of one that a deployment declares itself, SHA-256 over its content."""

    policy_id: Name
    revision: Revision
    digest: Digest | None = Field(default=None, description="required of a policy that does not ship with the package")


class _Intent(Model):
    """What all intents name. `note` and `submitted_by` are no part of the identity."""

    kind: Literal["ofs_build_intent"] = "ofs_build_intent"
    contract_version: Version = "v0"
    context_pins: ContextPins
    run_facts_ref: Identifier = Field(description="explicit reference of the run's facts; never the latest")
    stream_name: StreamName
    policy: PolicyRef
    note: str | None = Field(default=None, max_length=1000)
    submitted_by: Identifier | None = None


class DatasetBuild(_Intent):
    """Build and publish a dataset."""

    intent: Literal["dataset_build"] = "dataset_build"
    dataset_name: Name
    purpose: Purpose = Field(strict=False)
    replay: Annotated[Offsets | AdmissionTimes, Field(discriminator="select")]
    feature_pack: FeaturePackRef
    feature_groups: tuple[FeatureGroupRef, ...] = Field(strict=False, min_length=1)
    scope: Scope
    as_of_basis: AsOfBasis = Field(strict=False)
    graph_version: GraphVersion | None = Field(
        default=None,
        description="the links that rows may know, where a group resolves identities; default: those admitted by the end of the"
        " replay's data. Rows of decisions know what their decision recorded",
    )
    label: LabelRequest | None = None
    parity_anchors: ParityAnchors = "all_decisions_in_replay"
    supersedes: Digest | None = Field(default=None, description="identity of the dataset that this one replaces")


class ParityRebuild(_Intent):
    """Rebuild what decisions were served, and compare. Without a list: every recorded decision inside the replay."""

    intent: Literal["parity_rebuild"] = "parity_rebuild"
    replay: Annotated[Offsets | AdmissionTimes, Field(discriminator="select")]
    decision_ids: tuple[Identifier, ...] | None = Field(default=None, strict=False, min_length=1)


class ForensicRebuild(_Intent):
    """One snapshot at a basis, also behind the serving horizon."""

    intent: Literal["forensic_rebuild"] = "forensic_rebuild"
    basis: Basis
    feature_pack: FeaturePackRef
    run_config_digest: Digest
    feature_keys: FeatureKeys
    feature_groups: FeatureGroupVersionSet
    as_of_time_utc: Time
    graph_version: GraphVersion | None = Field(default=None, description="of the snapshot, where a group resolves identities")
    request_context: dict[Name, Integer | str] | None = None
    expected_hash: Digest | None = None


BuildIntent = Annotated[DatasetBuild | ParityRebuild | ForensicRebuild, Field(discriminator="intent")]
INTENT: TypeAdapter[DatasetBuild | ParityRebuild | ForensicRebuild] = TypeAdapter(BuildIntent)


def intent_wire(intent: DatasetBuild | ParityRebuild | ForensicRebuild) -> dict[str, Any]:
    """The intent as stored: absent fields left out."""
    return intent.model_dump(mode="json", exclude_none=True)


def request_id(intent: DatasetBuild | ParityRebuild | ForensicRebuild) -> str:
    """SHA-256 of the intent's canonical bytes without `note` and `submitted_by`: the same request, whoever asks."""
    wire = intent_wire(intent)
    wire.pop("note", None)
    wire.pop("submitted_by", None)
    return digest_of(wire)
