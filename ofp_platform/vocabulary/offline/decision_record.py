"""Decision records: the decision on an event, and everything needed to rebuild the snapshot behind it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.envelope import EventType
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, PolicyRev, SafeIdentifier, Time
from ofp_platform.vocabulary.offline.build_intent import Integer
from ofp_platform.vocabulary.position import Basis, Position
from ofp_platform.vocabulary.serving import (
    FeatureDefinitionSet,
    FeatureGroupVersionSet,
    FeatureKeys,
    GraphVersion,
    GroupVersion,
    Version,
)

Score = Annotated[
    Integer | Annotated[str, Field(pattern=r"^-?(0|[1-9][0-9]{0,30})\.[0-9]{1,18}$")],
    Field(description="an integer, or a decimal as a string"),
]


class Outcome(StrEnum):
    """What the caller is told to do with the payment."""

    APPROVE = "approve"
    REVIEW = "review"
    DECLINE = "decline"


class RuleRef(Model):
    """The rule that decided. `digest` is SHA-256 over its content: a version alone is only a promise."""

    rule_name: Name
    rule_version: GroupVersion
    digest: Digest


def decision_id(pins: ContextPins, event_type: str, event_id: str) -> str:
    """SHA-256 over run and event: an event is decided on once, however often it is delivered."""
    return digest_of({"context_pins": pins.wire(), "contract_version": "v0", "event_id": event_id, "event_type": event_type})


class DecisionRecord(Model):
    """One decision. Immutable; the offline plane takes it as parity anchor.

    From `feature_keys` to `graph_version` it is the question and the provenance of the snapshot with
    `feature_snapshot_hash`, in canonical order. `request_context` is there only if on-demand features used it;
    `request_id` only if the request had one.
    """

    kind: Literal["df_decision_record"] = "df_decision_record"
    contract_version: Version = "v0"
    decision_id: Digest
    context_pins: ContextPins
    event_type: EventType
    event_id: Identifier
    event_position: Position
    as_of_time_utc: Time
    feature_snapshot_hash: Digest
    feature_keys: FeatureKeys
    feature_groups: FeatureGroupVersionSet
    request_context: dict[Name, Integer | str] | None = None
    request_id: SafeIdentifier | None = None
    feature_definition_set: FeatureDefinitionSet
    run_config_digest: Digest
    policy_rev: PolicyRev | None = Field(
        default=None, description="of the deployment that decided; null: whoever decided named none"
    )
    input_basis: Basis
    graph_version: GraphVersion | None = None
    rule: RuleRef
    score: Score
    outcome: Outcome = Field(strict=False)
    decided_at_utc: Time

    @model_validator(mode="after")
    def _identified(self) -> Self:
        if self.decision_id != decision_id(self.context_pins, self.event_type, self.event_id):
            raise ValueError("decision_id is not the one of this run and event")
        if self.input_basis.stream_name != self.event_position.stream_name:
            raise ValueError("input_basis is of another stream than event_position")
        return self

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
