"""The manifest of a published dataset: what it is, what it was made of, that it passed its gates. Immutable."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, computed_field, model_validator

from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of, sha256_hex
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import DIGEST_PATTERN, Digest, Identifier, Model, Name, PolicyRev, Time
from ofp_platform.vocabulary.offline.adjudication import Adjudication
from ofp_platform.vocabulary.offline.build_intent import AdmissionTimes, AsOfBasis, Purpose, Scope
from ofp_platform.vocabulary.offline.build_plan import (
    BuildPlan,
    BuildPolicy,
    LabelBasis,
    ParityRequest,
    PinnedPack,
    PinnedRunFacts,
    dataset_identity,
)
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import StreamName
from ofp_platform.vocabulary.serving import OFFLINE_CONTRACT_VERSION, Count, FeatureGroupVersionSet, GraphVersion, OfflineVersion

_SEAL = "SHA-256 over the canonical bytes of all other fields"
ObjectPath = Annotated[str, Field(pattern=r"^ofs/[A-Za-z0-9_./-]+$", description="path in the object store")]


class DataFile(Model):
    """One Parquet file, in the order of its rows."""

    path: ObjectPath
    rows: Count
    bytes: Count
    sha256: Digest


class DatasetColumn(Model):
    """One column as it is stored. `role`: what it is for."""

    name: str
    type: str = Field(description="Arrow type, as in int64, decimal128(38, 6), timestamp[us, tz=UTC]")
    role: Literal["row_key", "as_of", "payload", "feature", "label"]


class ReplayReceipt(Model):
    """What became of every record of the replay basis: the counts add up to `records`."""

    records: Count
    applied: Count
    duplicates: Count
    failed: Count
    ignored: Count = Field(description="of an event type that the pack does not know")
    other_run: Count = Field(default=0, description="of other runs in the same stream")
    failures_by_reason: dict[str, Count] = Field(default_factory=dict)
    group_failures_by_reason: dict[str, Count] = Field(
        default_factory=dict, description="of applied records that some groups of the pack cannot use"
    )
    failed_for_groups: Count = Field(default=0, description="records that some group of the dataset should use and cannot")
    anomalies: Count = 0
    amendments: Count = Field(default=0, description="of the applied, those that amend an event")
    unmet_amendments: Count = Field(default=0, description="of them, those whose event is not in the replay: they change nothing")
    first_unmet: tuple[str, ...] = Field(default=(), strict=False, description="the first 20 of these, each as partition/offset")
    watermark_utc: Time | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.applied + self.duplicates + self.failed + self.ignored + self.other_run != self.records:
            raise ValueError("the counts do not add up to the records: some record has no fate")
        return self


class LabelReceipt(Model):
    """What the labels cover. Shares are decimals of six digits."""

    rows: Count
    labelled: Count = Field(description="rows with an assertion")
    mature: Count
    immature: Count
    covered: Count = Field(description="mature rows that an assertion speaks of, or whose silence the policy reads")
    coverage: str = Field(description="covered / mature, rounded down")
    voided: Count = Field(default=0, description="labelled rows whose event an amendment voided by the end of the replay")
    voided_events: tuple[str, ...] = Field(
        default=(), strict=False, description="the first 20 of their events, each as class/id, by class and id"
    )
    resolved_digest: Digest = Field(description="SHA-256 over the ids of the assertions that hold as of the label basis")


class ParityReceipt(Model):
    """How the recorded decisions inside the replay compare with their rebuild."""

    anchors: Count
    match: Count
    mismatch: Count
    uncheckable: Count


class ServedReceipt(Model):
    """Rows held against the stored vectors that were served for their decisions, value by value: all are equal."""

    rows: Count = Field(description="rows with a decision")
    compared: Count = Field(description="of them, those whose vector is stored and has values of the dataset's groups")
    values: Count = Field(description="values that were compared")


class FeatureSkew(Model):
    """How one feature of the rows differs from what was served."""

    compared: Count = Field(description="decisions whose vector has the feature")
    differing: Count = Field(description="of them, those that were served another value")
    share: str | None = Field(default=None, description="differing / compared, six digits, rounded up; absent: nothing compared")


class SkewTable(Model):
    """Rows of events beside what was served for them, where the as-of basis is not that of the decision."""

    rows: Count = Field(description="of the scope, those that the policy leaves out as immature included")
    decisions: Count = Field(description="recorded decisions about these rows")
    compared: Count = Field(description="of them, those whose vector is stored and has values of the dataset's groups")
    features: dict[str, FeatureSkew] = Field(description="by column, every windowed feature of the dataset")


class Gates(Model):
    """The gates that the dataset passed. A manifest with another content than passes does not exist."""

    completeness: ReplayReceipt
    label_rows_checked: Count = Field(default=0, description="labelled rows held against every raw assertion")
    feature_rows_checked: Count = Field(description="rows whose features were computed again from what they could know")
    labels: LabelReceipt | None = None
    parity: ParityReceipt | None = None
    served: ServedReceipt | None = Field(default=None, description="of a dataset of decision basis")


def _with_seal(schema: dict[str, Any]) -> None:
    """The seal in the schema of what is published: to the model it is no field, but computed of all the others."""
    schema["properties"]["seal"] = {"description": _SEAL, "pattern": DIGEST_PATTERN, "title": "Seal", "type": "string"}
    schema["required"] = [*schema["required"], "seal"]


class DatasetManifest(Model):
    """A published dataset. It holds no time of the clock and no name of a machine: two builders write the same bytes."""

    model_config = ConfigDict(json_schema_extra=_with_seal)

    kind: Literal["dataset_manifest"] = "dataset_manifest"
    contract_version: OfflineVersion = OFFLINE_CONTRACT_VERSION
    dataset_name: Name
    dataset_identity: Digest
    purpose: Purpose = Field(strict=False)
    request_id: Digest
    supersedes: Digest | None = None
    context_pins: ContextPins
    stream_name: StreamName
    run_facts: PinnedRunFacts
    replay_basis: ReplayBasis
    replay_selected_by: AdmissionTimes | None = None
    feature_pack: PinnedPack
    feature_groups: FeatureGroupVersionSet
    run_config_digest: Digest
    scope: Scope
    as_of_basis: AsOfBasis = Field(strict=False)
    graph_version: GraphVersion | None = Field(
        default=None,
        description="the links of identities that rows may know, where a group resolves them; of decisions: see rows",
    )
    label_basis: LabelBasis | None = None
    adjudications: tuple[Adjudication, ...] | None = Field(default=None, strict=False)
    policy: BuildPolicy
    parity_request: ParityRequest
    policy_rev: PolicyRev | None = Field(
        default=None, description="of the deployment that built it, no part of the identity; null: an earlier release"
    )
    ofs_code_release_id: Identifier
    row_count: Count
    row_order: str
    content_digest: Digest
    columns: tuple[DatasetColumn, ...] = Field(strict=False, min_length=1)
    features_left_out: tuple[str, ...] = Field(
        default=(), strict=False, description="on-demand features of the groups: they need a request, and make no column"
    )
    values_out_of_range: dict[str, Count] = Field(
        default_factory=dict, description="by column, the values beyond what is served: null in the rows, as in an answer"
    )
    skew: SkewTable | None = Field(default=None, description="of rows of events with another basis than decision; no gate")
    files: tuple[DataFile, ...] = Field(strict=False)
    gates: Gates

    @computed_field(description=_SEAL)  # type: ignore[prop-decorator]
    @property
    def seal(self) -> Digest:
        """The digest that proves a published manifest unchanged."""
        return digest_of(self.model_dump(mode="json", exclude_none=True, exclude={"seal"}))

    @model_validator(mode="wrap")
    @classmethod
    def _proven(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict) or "seal" not in data:
            return handler(data)
        manifest = handler({name: value for name, value in data.items() if name != "seal"})
        if data["seal"] != manifest.seal:
            raise ValueError("seal is not the digest of the manifest: it was changed after it was written")
        return manifest

    def wire(self) -> dict[str, Any]:
        """As published: absent fields left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def encoded(self) -> bytes:
        """The canonical bytes that are published."""
        return canonical_bytes(self.wire())

    @property
    def derived_identity(self) -> str:
        """The identity that follows from the fields; another than `dataset_identity` if a release of another form wrote it."""
        return dataset_identity(self.wire(), self.row_order)

    @property
    def digest(self) -> str:
        """SHA-256 of the published bytes: what names this manifest for good."""
        return sha256_hex(self.encoded())


def manifest_path(dataset_name: str, dataset_identity: str) -> str:
    """Where the manifest of a dataset stands."""
    return f"ofs/datasets/{dataset_name}/{dataset_identity}/manifest.json"


def data_path(dataset_name: str, dataset_identity: str, file_digests: list[str], part: int) -> str:
    """Where a data file stands: the folder is named by all its files, so that it never holds a file of another build."""
    folder = digest_of(file_digests)[:32]
    return f"ofs/datasets/{dataset_name}/{dataset_identity}/data-{folder}/part-{part:05d}.parquet"


def manifest_of(
    plan: BuildPlan,
    *,
    row_count: int,
    row_order: str,
    content_digest: str,
    columns: tuple[DatasetColumn, ...],
    features_left_out: tuple[str, ...] = (),
    values_out_of_range: dict[str, int],
    skew: SkewTable | None = None,
    files: tuple[DataFile, ...],
    gates: Gates,
) -> DatasetManifest:
    """The manifest of what was built to a plan.

    Raises:
        ValueError: the plan is not that of a dataset.
    """
    intent = plan.intent
    if (
        intent.intent != "dataset_build"
        or plan.feature_pack is None
        or plan.feature_groups is None
        or plan.scope is None
        or plan.parity_request is None
    ):
        raise ValueError("only the plan of a dataset_build has a manifest")
    return DatasetManifest(
        dataset_name=intent.dataset_name,
        dataset_identity=plan.dataset_identity,
        purpose=intent.purpose,
        request_id=plan.request_id,
        supersedes=intent.supersedes,
        context_pins=plan.context_pins,
        stream_name=plan.stream_name,
        run_facts=plan.run_facts,
        replay_basis=plan.replay_basis,
        replay_selected_by=plan.replay_selected_by,
        feature_pack=plan.feature_pack,
        feature_groups=plan.feature_groups,
        run_config_digest=plan.run_config_digest,
        scope=plan.scope,
        as_of_basis=intent.as_of_basis,
        graph_version=plan.graph_version,
        label_basis=plan.label_basis,
        adjudications=plan.adjudications,
        policy=plan.policy,
        parity_request=plan.parity_request,
        policy_rev=plan.policy_rev,
        ofs_code_release_id=plan.ofs_code_release_id,
        row_count=row_count,
        row_order=row_order,
        content_digest=content_digest,
        columns=columns,
        features_left_out=features_left_out,
        values_out_of_range=values_out_of_range,
        skew=skew,
        files=files,
        gates=gates,
    )
