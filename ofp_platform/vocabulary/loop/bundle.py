"""Bundles: what may decide. Declared rules, a model in exact form, and the features that both need, under one digest."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of, sha256_hex
from ofp_platform.vocabulary.envelope import EventType
from ofp_platform.vocabulary.identity import ContextPins, KeySource, KeyType
from ofp_platform.vocabulary.loop.eval_report import Thresholds
from ofp_platform.vocabulary.loop.exact_model import FieldName
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.model import Digest, Model, Name, SafeIdentifier, Time, is_digest
from ofp_platform.vocabulary.offline.build_intent import Integer
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.serving import Count, FeatureDefinitionSet, FeatureGroupRef, GroupVersion, Version

ReasonCode = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,126}$", description="as in CARD_VELOCITY")]
Number = Integer | Annotated[str, Field(pattern=r"^-?[0-9]{1,30}\.[0-9]{1,18}$")]


class FeatureOperand(Model):
    """A feature of the vector."""

    group_name: Name
    group_version: GroupVersion
    feature: Name


class Comparison(Model):
    """One comparison of a feature or a payload field, exact whatever the scales. An absent value satisfies `is_absent` alone."""

    feature: FeatureOperand | None = None
    field: FieldName | None = None
    operator: Literal["at_least", "above", "at_most", "below", "equals", "is_absent"]
    value: Number | str | bool | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.feature is None) == (self.field is None):
            raise ValueError("a comparison is of a feature or of a payload field")
        if (self.operator == "is_absent") != (self.value is None):
            raise ValueError("is_absent has no value, every other operator has one")
        return self


class Guardrail(Model):
    """A rule: where all comparisons hold, no milder outcome than this comes of it, and its code is among the reasons."""

    reason_code: ReasonCode
    outcome: Literal[Outcome.REVIEW, Outcome.DECLINE]
    all_of: tuple[Comparison, ...] = Field(strict=False, min_length=1)


class BundleModel(Model):
    """The model of a bundle: its object, and from which scores it reviews and declines (scaled as the model's scores are)."""

    path: str = Field(min_length=1, description="path in the object store")
    digest: Digest
    thresholds: Thresholds


class Provenance(Model):
    """Where a bundle comes from; nulls where it has no model."""

    eval_report: Digest | None = None
    train_request: Digest | None = None
    manifest_digests: tuple[Digest, ...] = Field(default=(), strict=False)


class BundleRef(Model):
    """A bundle as a decision names it. `digest`: SHA-256 over its content."""

    bundle_name: Name
    digest: Digest


def bundle_named(text: str) -> BundleRef:
    """The bundle that a text names, NAME/DIGEST.

    Raises:
        ValueError: it names none; the text says how one is named.
    """
    name, _, digest = text.partition("/")
    if not is_digest(digest):
        raise ValueError(f"{text[:100]}: a bundle is named NAME/DIGEST, with all 64 hex digits (`ofp bundle list --json`)")
    return BundleRef(bundle_name=name, digest=digest)


class Bundle(Model):
    """Rules and model that may decide on events of one type. groups: all that it asks for; optional_groups: those of them that it
    can do without.
    """

    kind: Literal["decision_bundle"] = "decision_bundle"
    contract_version: Version = "v0"
    bundle_name: Name
    event_type: EventType
    key_fields: dict[Annotated[KeyType, Field(strict=False)], KeySource] = Field(min_length=1)
    groups: tuple[FeatureGroupRef, ...] = Field(strict=False, min_length=1)
    optional_groups: tuple[FeatureGroupRef, ...] = Field(default=(), strict=False)
    context_fields: tuple[FieldName, ...] = Field(default=(), strict=False)
    feature_definition_set: FeatureDefinitionSet
    guardrails: tuple[Guardrail, ...] = Field(default=(), strict=False)
    model: BundleModel | None = None
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if missing := [group for group in self.optional_groups if group not in self.groups]:
            raise ValueError(f"optional group {missing[0].group_name} is not among the groups")
        asked = {(group.group_name, group.group_version) for group in self.groups}
        operands = [comparison.feature for rule in self.guardrails for comparison in rule.all_of]
        for operand in operands:
            if operand is not None and (operand.group_name, operand.group_version) not in asked:
                raise ValueError(f"a rule reads {operand.group_name} {operand.group_version}, which is not asked for")
        if not self.guardrails and self.model is None:
            raise ValueError("a bundle has rules, or a model, or both: this one decides nothing")
        return self

    def stored(self) -> bytes:
        """The canonical bytes of it all."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def ref(self) -> BundleRef:
        """How a decision names it."""
        return BundleRef(bundle_name=self.bundle_name, digest=sha256_hex(self.stored()))


class Slot(StrEnum):
    """ACTIVE decides; SHADOW decides beside it, and nothing is done about it."""

    ACTIVE = "active"
    SHADOW = "shadow"


Environment = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="the name of a profile")]


class BundleScope(Model):
    """Where a bundle is in force."""

    environment: Environment
    mode: Annotated[TrafficMode, Field(strict=False)]
    slot: Annotated[Slot, Field(strict=False)]

    @property
    def key(self) -> str:
        """As it is looked up."""
        return f"{self.environment}/{self.mode.value}/{self.slot.value}"


class BundleStep(StrEnum):
    """A step in the life of a bundle."""

    PUBLISHED = "PUBLISHED"
    APPROVED = "APPROVED"
    ACTIVATED = "ACTIVATED"
    ROLLED_BACK = "ROLLED_BACK"
    RETIRED = "RETIRED"


BUNDLE_EVENTS = {step: f"bundle_{step.value.lower()}" for step in BundleStep}
"""The event types on control."""


class BundleEvent(Model):
    """One step, as control says it. `scope`: of ACTIVATED and ROLLED_BACK; `bundle` is then what is in force from here on."""

    kind: Literal["bundle_event"] = "bundle_event"
    contract_version: Version = "v0"
    context_pins: ContextPins
    sequence: Count
    step: Annotated[BundleStep, Field(strict=False)]
    bundle: BundleRef
    scope: BundleScope | None = None
    replaces: BundleRef | None = Field(default=None, description="what was in force before; null: nothing")
    actor: SafeIdentifier
    reason: str = Field(min_length=1, max_length=400)
    at_utc: Time

    @model_validator(mode="after")
    def _scoped(self) -> Self:
        if (self.step in (BundleStep.ACTIVATED, BundleStep.ROLLED_BACK)) != (self.scope is not None):
            raise ValueError("a scope belongs to ACTIVATED and ROLLED_BACK, and to no other step")
        return self

    def wire(self) -> dict[str, Any]:
        """As stored and as control says it: what is absent is left out."""
        return {
            **self.model_dump(mode="json", exclude_none=True, exclude={"context_pins"}),
            "context_pins": self.context_pins.wire(),
        }

    @property
    def message_id(self) -> str:
        """The id of the message on control: SHA-256 over the canonical bytes of it all."""
        return digest_of(self.wire())


class BundleMessage(BundleEvent):
    """A step as it stands on control. `scenario_run_id`: by which control places its messages; of a run that is none of a
    scenario, its run_id.
    """

    scenario_run_id: SafeIdentifier


class BundleInForce(Model):
    """The bundle in force in a scope, since which step of the registry, and where control says so."""

    bundle: BundleRef
    sequence: Count
    position: Position
