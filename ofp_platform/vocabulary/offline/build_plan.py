"""Plans: resolved intents, everything pinned, nothing left to look up. Immutable."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import MAX_INTEGER, digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, PolicyRev, Time
from ofp_platform.vocabulary.offline.adjudication import Adjudication
from ofp_platform.vocabulary.offline.build_intent import (
    AdmissionTimes,
    AsOfBasis,
    DatasetBuild,
    ForensicRebuild,
    ParityAnchors,
    ParityRebuild,
    PerTable,
    Purpose,
    Revision,
    Scope,
    SourceClasses,
)
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import PartitionBasis, StreamName
from ofp_platform.vocabulary.serving import FeatureGroupVersionSet, GraphVersion, Version

ROW_ORDER = "event_time_then_identity"
TABLE_ORDER = "entity_table"
IDENTITY_FIELDS = (
    "context_pins",
    "stream_name",
    "replay_basis",
    "feature_pack",
    "feature_groups",
    "run_config_digest",
    "scope",
    "as_of_basis",
    "graph_version",
    "purpose",
    "label_basis",
    "adjudications",
    "policy",
    "parity_request",
    "ofs_code_release_id",
)
"""Of a plan, and of its manifest: what a dataset's identity is made of, beside its run facts and the order of its rows."""


Share = Annotated[str, Field(pattern=r"^(0\.[0-9]{1,6}|1\.0{1,6})$")]
_SHARE_DIGITS = 6


def at_most(part: int, whole: int, share: str) -> bool:
    """Whether part / whole is at most a share, compared exactly; nothing of nothing is."""
    digits, _, fraction = share.partition(".")
    numerator, denominator = int(digits + fraction.ljust(_SHARE_DIGITS, "0")), int(10**_SHARE_DIGITS)
    return part * denominator <= numerator * whole


class BuildPolicy(Model):
    """What a build must hold to: shipped, or declared beside a pack. Its content is part of a dataset's identity."""

    policy_id: Name
    revision: Revision
    min_label_coverage: Share = Field(description="least share of mature rows that have a label, a decimal")
    immature_rows: Literal["keep", "drop"] = "keep"
    unlabelled_means: int | None = Field(default=None, description="value of a mature row without an assertion; null: none")
    max_values_out_of_range: int = Field(
        default=0, ge=0, description="values beyond what is served, null in the rows, that a training set may have"
    )
    require_parity: bool = Field(default=True, description="one decision that is not what the log gives, and no dataset")
    min_parity_anchors: int = Field(default=1, ge=0, description="least number of recorded decisions that are compared")
    max_uncheckable_share: Share = Field(
        default="0.0", description="greatest share of the compared decisions that may be UNCHECKABLE, a decimal"
    )
    max_failed_share: Share = Field(
        default="0.0", description="greatest share of the run's records that may fail for the groups asked for, a decimal"
    )
    max_attempts: int = Field(default=3, ge=1, le=20)

    @model_validator(mode="after")
    def _compared(self) -> Self:
        if self.require_parity and self.min_parity_anchors == 0:
            raise ValueError("require_parity without a least number of anchors is met by comparing nothing")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over the content: how a request names a policy that does not ship with the package."""
        return digest_of(self.model_dump(mode="json"))

    def weaknesses_for_training(self) -> list[str]:
        """Why a dataset that is built under this policy is not fit to train on, in words; empty where it may be."""
        return [
            words
            for words, is_weak in (
                ("it asks for no parity", not self.require_parity),
                ("it asks for no label coverage", Fraction(self.min_label_coverage) == 0),
            )
            if is_weak
        ]


class PinnedPack(Model):
    """The pack a build computes with."""

    pack_id: Name
    revision: Revision
    digest: Digest


LATEST_OBSERVED: Literal["greatest_observed_time_then_assertion_id"] = "greatest_observed_time_then_assertion_id"
PRECEDENCE: Literal["source_class_then_greatest_observed_time_then_assertion_id"] = (
    "source_class_then_greatest_observed_time_then_assertion_id"
)
"""How one assertion is chosen of several about an event, as a plan spells it out."""


class LabelBasis(Model):
    """Which labels, as of when, by which rule. No assertion at `next_sequence` of the run's label store or behind it counts."""

    label_type: Name
    as_of_utc: Time
    maturity_seconds: int = Field(ge=0)
    next_sequence: int = Field(ge=0, le=MAX_INTEGER, description="exclusive-next sequence of the append-only label store")
    rule: Literal["greatest_observed_time_then_assertion_id", "source_class_then_greatest_observed_time_then_assertion_id"] = (
        LATEST_OBSERVED
    )
    source_classes: SourceClasses | None = Field(default=None, description="of a rule that begins with the class of the source")

    @model_validator(mode="after")
    def _classes_of_precedence(self) -> Self:
        if (self.rule == PRECEDENCE) != (self.source_classes is not None):
            raise ValueError("source_classes goes with the rule that begins with the class of the source: both or neither")
        return self


class ParityRequest(Model):
    """The parity that was asked for, and the decisions of the replay that rows of events, or parity, are compared with.

    What else a dataset must pass stands in its policy.
    """

    parity_anchors: ParityAnchors
    anchors: int = Field(ge=0, le=MAX_INTEGER)
    anchors_digest: Digest = Field(description="SHA-256 over the canonical JSON of the decision ids, sorted; the plan lists them")

    @classmethod
    def of(cls, parity_anchors: ParityAnchors, decision_ids: tuple[str, ...]) -> ParityRequest:
        """The request that these decisions (sorted) answer."""
        return cls(parity_anchors=parity_anchors, anchors=len(decision_ids), anchors_digest=digest_of(list(decision_ids)))


class PinnedRunFacts(Model):
    """The run's facts as they were read."""

    reference: Identifier
    digest: Digest


class BuildPlan(Model):
    """A resolved intent. `cut_over`: up to where each partition is read from the archive; the rest comes from the log."""

    kind: Literal["ofs_build_plan"] = "ofs_build_plan"
    contract_version: Version = "v0"
    request_id: Digest
    intent: Annotated[DatasetBuild | ParityRebuild | ForensicRebuild, Field(discriminator="intent")]
    context_pins: ContextPins
    stream_name: StreamName
    run_facts: PinnedRunFacts
    replay_basis: ReplayBasis
    replay_selected_by: AdmissionTimes | None = None
    newest_before_replay_utc: Time | None = Field(
        default=None, description="bound on event times before the replay, as receipts prove it; null: nothing stands there"
    )
    cut_over: tuple[PartitionBasis, ...] = Field(strict=False)
    feature_pack: PinnedPack | None = None
    feature_groups: FeatureGroupVersionSet | None = None
    clock_skew_us: int = Field(ge=0)
    allowed_lateness_us: int = Field(ge=0)
    run_config_digest: Digest
    scope: Scope | None = None
    as_of_basis: AsOfBasis | None = Field(default=None, strict=False)
    graph_version: GraphVersion | None = Field(
        default=None,
        description="the links of identities that a build may know; absent where it resolves none, or by its decisions'",
    )
    purpose: Purpose | None = Field(default=None, strict=False)
    label_basis: LabelBasis | None = None
    adjudications: tuple[Adjudication, ...] | None = Field(
        default=None, strict=False, description="decisions about ids of the replay that have several contents, by class and id"
    )
    parity_request: ParityRequest | None = Field(default=None, description="of a dataset_build")
    decisions: tuple[Identifier, ...] = Field(
        default=(),
        strict=False,
        description="decision ids of the replay, sorted: what rows of a decision dataset are made of, and all rows of events are"
        " compared with",
    )
    parity_anchors: tuple[Identifier, ...] = Field(default=(), strict=False, description="decision ids, sorted")
    policy: BuildPolicy
    policy_rev: PolicyRev | None = Field(default=None, description="of the deployment that resolved it; null: an earlier release")
    ofs_code_release_id: Identifier

    def wire(self) -> dict[str, Any]:
        """As stored: absent fields left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def row_order(self) -> str:
        """The order of the rows: that of an entity table, where the scope is one."""
        return TABLE_ORDER if isinstance(self.scope, PerTable) else ROW_ORDER

    @property
    def dataset_identity(self) -> str:
        """See `dataset_identity`."""
        return dataset_identity(self.wire(), self.row_order)


def dataset_identity(wire: Mapping[str, Any], row_order: str) -> str:
    """SHA-256 over what gives a dataset meaning (docs/glossary.md: dataset identity), from a plan or a manifest as stored.

    Not in it: where the records were read from, how the replay was selected, who asked.
    """
    meaning = {name: wire[name] for name in IDENTITY_FIELDS if name in wire}
    return digest_of({"contract_version": "v0", "row_order": row_order, "run_facts": wire["run_facts"]["digest"], **meaning})
