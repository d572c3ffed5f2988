"""Decision records: the decision on an event, what decided it, and everything needed to rebuild the vector behind it.

Two versions of one contract. v0: a decision service of somebody's own decided, by a rule that it names. v1: the plane decided, by
the bundle and under the posture that were in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.envelope import EventType
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey
from ofp_platform.vocabulary.loop.bundle import BundleInForce, BundleRef, ReasonCode, Slot
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import Mode, PostureInForce
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, PolicyRev, SafeIdentifier, Time
from ofp_platform.vocabulary.offline.build_intent import Integer
from ofp_platform.vocabulary.position import Basis, Position
from ofp_platform.vocabulary.serving import (
    FeatureDefinitionSet,
    FeatureGroupRef,
    FeatureGroupVersionSet,
    FeatureKeys,
    GraphVersion,
    GroupVersion,
    Version,
)

DECISION = "decision"
"""The event type on the stream of decisions."""
MOST_REASON_CODES = 4
NO_BUNDLE = "none"
"""In place of a bundle's digest where none was in force."""
Score = Annotated[
    Integer | Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]{0,30})\.[0-9]{1,18}$")],
    Field(description="an integer, or a decimal as a string"),
]


class RuleRef(Model):
    """The rule that decided. `digest` is SHA-256 over its content: a version alone is only a promise."""

    rule_name: Name
    rule_version: GroupVersion
    digest: Digest


class Lowering(StrEnum):
    """Why a decision was made in a lower mode than the one in force."""

    NO_BUNDLE = "NO_BUNDLE"
    FEATURES_LATE = "FEATURES_LATE"
    FEATURES_REFUSED = "FEATURES_REFUSED"
    VECTOR_CORRUPT = "VECTOR_CORRUPT"
    INPUT_UNFIT = "INPUT_UNFIT"


class DecidedUnder(Model):
    """The posture in force, and the mode that was applied: a lower one where `lowered` says why. `fail_closed`: by policy, what
    comes of an event in FAIL_CLOSED."""

    in_force: PostureInForce
    applied_mode: Annotated[Mode, Field(strict=False)]
    lowering: Annotated[Lowering, Field(strict=False)] | None = None
    fail_closed: Annotated[Outcome, Field(strict=False)]

    @model_validator(mode="after")
    def _lowered(self) -> Self:
        if (self.applied_mode is self.in_force.mode) == (
            self.lowering is not None
        ) or self.applied_mode.depth < self.in_force.mode.depth:
            raise ValueError("the mode applied is that in force, or a lower one with a reason")
        return self


def decision_id(pins: ContextPins, event_type: str, event_id: str) -> str:
    """SHA-256 over run and event: an event is decided on once, however often it is delivered. Of v0."""
    return digest_of({"context_pins": pins.wire(), "contract_version": "v0", "event_id": event_id, "event_type": event_type})


def loop_decision_id(event_id: str, bundle: BundleRef | None, origin: Position) -> str:
    """SHA-256 over event, bundle and the place of the event in the log. Of v1."""
    place = "/".join((origin.stream_name, origin.incarnation or "", origin.partition_id, str(origin.offset)))
    return sha256(f"{event_id}|{NO_BUNDLE if bundle is None else bundle.digest}|{place}".encode()).hexdigest()


class Vector(NamedTuple):
    """The question and the provenance of the vector that was decided on."""

    snapshot_hash: str
    feature_keys: tuple[FeatureKey, ...]
    feature_groups: tuple[FeatureGroupRef, ...]
    request_context: dict[str, int | str] | None
    feature_definition_set: FeatureDefinitionSet
    run_config_digest: str
    input_basis: Basis
    graph_version: GraphVersion | None


_VECTOR = (
    "feature_snapshot_hash",
    "feature_keys",
    "feature_groups",
    "feature_definition_set",
    "run_config_digest",
    "input_basis",
)


def _as_its_version(schema: dict[str, Any]) -> None:
    """What a version has, and what it does not, for validators that know nothing of this class."""

    def having(present: Sequence[str], absent: Sequence[str]) -> dict[str, Any]:
        there, gone = {"not": {"type": "null"}}, {"type": "null"}
        return {"required": list(present), "properties": {**dict.fromkeys(present, there), **dict.fromkeys(absent, gone)}}

    schema["if"] = {"properties": {"contract_version": {"const": "v0"}}}
    schema["then"] = having((*_VECTOR, "rule", "score"), ("bundle", "slot", "posture", "reason_codes"))
    schema["else"] = having(("slot", "posture", "reason_codes", "policy_rev"), ("rule",))


class DecisionRecord(Model):
    """One decision. Immutable; the offline plane takes it as parity anchor, if it has a vector.

    From `feature_snapshot_hash` to `graph_version` it is the question and the provenance of the vector, in canonical order; v1
    has none of it where it was decided without one (`posture` says why). `request_context` is there only if on-demand features
    used it; `request_id` only if the request had one.
    """

    model_config = ConfigDict(json_schema_extra=_as_its_version)

    kind: Literal["df_decision_record"] = "df_decision_record"
    contract_version: Version | Literal["v1"] = "v0"
    decision_id: Digest
    context_pins: ContextPins
    event_type: EventType
    event_id: Identifier
    event_position: Position
    as_of_time_utc: Time
    feature_snapshot_hash: Digest | None = None
    feature_keys: FeatureKeys | None = None
    feature_groups: FeatureGroupVersionSet | None = None
    request_context: dict[Name, Integer | str] | None = None
    request_id: SafeIdentifier | None = None
    feature_definition_set: FeatureDefinitionSet | None = None
    run_config_digest: Digest | None = None
    policy_rev: PolicyRev | None = Field(
        default=None, description="of the deployment that decided; null: whoever decided named none"
    )
    input_basis: Basis | None = None
    graph_version: GraphVersion | None = None
    rule: RuleRef | None = Field(default=None, description="of v0: what decided")
    score: Score | None = Field(default=None, description="of v1: null where no model scored")
    outcome: Outcome = Field(strict=False)
    decided_at_utc: Time
    bundle: BundleInForce | None = Field(default=None, description="of v1: what decided; null: none was in force")
    slot: Annotated[Slot, Field(strict=False)] | None = Field(default=None, description="of v1")
    posture: DecidedUnder | None = Field(default=None, description="of v1")
    reason_codes: tuple[ReasonCode, ...] | None = Field(
        default=None, strict=False, max_length=MOST_REASON_CODES, description="of v1: the weightiest first"
    )

    @model_validator(mode="after")
    def _identified(self) -> Self:
        if self.decision_id != self._named():
            raise ValueError("decision_id is not the one of this run and event")
        if self.input_basis is not None and self.input_basis.stream_name != self.event_position.stream_name:
            raise ValueError("input_basis is of another stream than event_position")
        vector_fields = [getattr(self, name) for name in _VECTOR]
        if None in vector_fields and any(field is not None for field in (*vector_fields, self.graph_version)):
            raise ValueError("a decision has a whole vector, or none of its fields")
        own_of_v1 = (self.slot, self.posture, self.reason_codes)
        if self.contract_version == "v0":
            missing = [name for name in (*_VECTOR, "rule", "score") if getattr(self, name) is None]
            if missing:
                raise PydanticCustomError(
                    "missing", "v0: a decision has a vector, a rule and a score; not here: " + ", ".join(missing)
                )
            if any(field is not None for field in (self.bundle, *own_of_v1)):
                raise ValueError("v0: bundle, slot, posture and reason_codes belong to v1")
        elif None in own_of_v1 or self.rule is not None or self.policy_rev is None:
            raise ValueError("v1: a decision has slot, posture, reason_codes and policy_rev, and no rule")
        return self

    def _named(self) -> str:
        if self.contract_version == "v0":
            return decision_id(self.context_pins, self.event_type, self.event_id)
        return loop_decision_id(self.event_id, None if self.bundle is None else self.bundle.bundle, self.event_position)

    @property
    def vector(self) -> Vector | None:
        """The vector that was decided on; None: it was decided without."""
        if (
            self.feature_snapshot_hash is None
            or self.feature_keys is None
            or self.feature_groups is None
            or self.feature_definition_set is None
            or self.run_config_digest is None
            or self.input_basis is None
        ):
            return None
        return Vector(
            self.feature_snapshot_hash,
            self.feature_keys,
            self.feature_groups,
            self.request_context,
            self.feature_definition_set,
            self.run_config_digest,
            self.input_basis,
            self.graph_version,
        )

    def wire(self) -> dict[str, Any]:
        """As stored: absent fields left out."""
        return self.model_dump(mode="json", exclude_none=True)


class DecisionReceipt(Model):
    """A decision is recorded. `record_digest`: SHA-256 over its canonical content; `submitted_by`: who sent it first."""

    kind: Literal["df_decision_receipt"] = "df_decision_receipt"
    contract_version: Version = "v0"
    decision_id: Digest
    record_digest: Digest
    submitted_by: SafeIdentifier | None


class DecisionList(Model):
    """A page of decisions, the latest first. `next_cursor` leads to the decisions before them; null: there are none."""

    kind: Literal["df_decision_list"] = "df_decision_list"
    contract_version: Version = "v0"
    decisions: tuple[DecisionRecord, ...] = Field(strict=False)
    next_cursor: str | None
