"""Actions: an intent says that something outside is to be done, attempts are made at it, one outcome says how it ended."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ofp_platform.vocabulary.canonical import digest_of, jcs_bytes, sha256_hex
from ofp_platform.vocabulary.envelope import ijson_bytes
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey
from ofp_platform.vocabulary.model import Digest, Model, Name, PolicyRev, SafeIdentifier, Time
from ofp_platform.vocabulary.raw_identifier import raw_identifier_in
from ofp_platform.vocabulary.serving import Count, Version

ACTION_INTENT, ACTION_OUTCOME = "action_intent", "action_outcome"
"""The event types of actions in the stream of decisions."""
HOLD_ACCOUNT, RELEASE_ACCOUNT = "hold_account", "release_account"
"""The action types that the plane does by itself, on an account."""
MAX_PARAMETER_BYTES = 4_096
Reason = Annotated[str, Field(max_length=400, description="in words, for people")]


class OriginKind(StrEnum):
    """Who wants an action: a decision, a case, or an operator by hand."""

    DECISION = "decision"
    CASE = "case"
    OPERATOR = "operator"


class ActionOrigin(Model):
    """Where an intent comes from. `reference`: the decision id, the event of the case, or the request of the operator."""

    origin_kind: Annotated[OriginKind, Field(strict=False)]
    reference: SafeIdentifier


class WebhookTarget(Model):
    """A webhook of the action policy, by its name."""

    webhook: Name


ActionTarget = FeatureKey | WebhookTarget


def target_of(text: str) -> ActionTarget:
    """The target that a text names: KEY_TYPE:KEY_ID, or webhook:NAME.

    Raises:
        ValueError: it names none.
    """
    kind, _, name = text.partition(":")
    if not name:
        raise ValueError(f"target {text}: write KEY_TYPE:KEY_ID as in account:acct-1, or webhook:NAME")
    if kind == "webhook":
        return WebhookTarget(webhook=name)
    return FeatureKey.model_validate({"key_type": kind, "key_id": name})


def idempotency_key(origin: ActionOrigin, action_type: str, target: ActionTarget) -> str:
    """SHA-256 over the canonical bytes of what is to be done because of what: twice the same is one action."""
    parts = {"origin": origin.model_dump(mode="json"), "action_type": action_type, "target": target.model_dump(mode="json")}
    return digest_of(parts)


def _small_and_safe(parameters: dict[str, JsonValue]) -> None:
    try:
        encoded = ijson_bytes(parameters)  # as the log will: what it could not read back would stop every executor
    except (ValueError, TypeError) as error:
        raise ValueError(f"parameters: not I-JSON: {error}") from None
    if len(encoded) > MAX_PARAMETER_BYTES:
        raise ValueError(f"parameters: more than {MAX_PARAMETER_BYTES} canonical bytes; send a reference instead")
    if raw_identifier_in(parameters) is not None:
        raise ValueError("parameters: hold a card number, which no log takes; send the entity id")


class ActionIntent(Model):
    """An action that is wanted: by whom, because of what, on what. `at_utc`: when it was asked for, no part of what it is."""

    kind: Literal["action_intent"] = "action_intent"
    contract_version: Version = "v0"
    context_pins: ContextPins
    actor: SafeIdentifier
    origin: ActionOrigin
    action_type: Name
    target: ActionTarget
    parameters: dict[Name, JsonValue] = Field(default={}, description="small I-JSON, at most 4,096 canonical bytes")
    reason: Reason = ""
    idempotency_key: Digest
    policy_rev: PolicyRev
    at_utc: Time

    @model_validator(mode="after")
    def _own_key(self) -> Self:
        _small_and_safe(self.parameters)
        if self.idempotency_key != idempotency_key(self.origin, self.action_type, self.target):
            raise ValueError("idempotency_key: is not the digest of origin, action type and target")
        return self

    @classmethod
    def create(cls, *, origin: ActionOrigin, action_type: str, target: ActionTarget, **fields: Any) -> Self:
        """An intent with the key that follows from it; `fields`: the others.

        Raises:
            pydantic.ValidationError: a field that is wrong.
        """
        key = idempotency_key(origin, action_type, target)
        return cls(origin=origin, action_type=action_type, target=target, idempotency_key=key, **fields)

    def wire(self) -> dict[str, Any]:
        """As stored: absent pins left out."""
        return {**self.model_dump(mode="json", exclude={"context_pins"}), "context_pins": self.context_pins.wire()}

    @property
    def content(self) -> str:
        """RFC 8785 text of it all."""
        return jcs_bytes(self.wire()).decode("utf-8")

    @property
    def content_digest(self) -> str:
        """SHA-256 over what is wanted: of it all but the time of asking. Two intents of one key must have one."""
        return sha256_hex(jcs_bytes({name: value for name, value in self.wire().items() if name != "at_utc"}))

    @property
    def scope(self) -> str:
        """The scope that an allow-list names: the type of the key, or the name of the webhook."""
        return self.target.webhook if isinstance(self.target, WebhookTarget) else self.target.key_type.value


class OutcomeKind(StrEnum):
    """How an intent ended: done once; refused by the allow-list with nothing done; or not done, for good."""

    EXECUTED = "EXECUTED"
    DENIED = "DENIED"
    FAILED = "FAILED"


class ActionOutcome(Model):
    """The end of an intent. `attempts`: that were begun; `executor`: the one that an attempt is made with; `settled_by`: the
    operator who found out that it was done; `action_policy_rev`: the action policy in force.
    """

    kind: Literal["action_outcome"] = "action_outcome"
    contract_version: Version = "v0"
    context_pins: ContextPins
    idempotency_key: Digest
    outcome: Annotated[OutcomeKind, Field(strict=False)]
    attempts: Count
    reason: Reason
    executor: Name
    settled_by: SafeIdentifier | None = None
    action_policy_rev: PolicyRev
    at_utc: Time

    def wire(self) -> dict[str, Any]:
        """As stored: what is absent is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def message_id(self) -> str:
        """The identity of its message in the stream of decisions."""
        return sha256(f"outcome|{self.idempotency_key}".encode()).hexdigest()


class AttemptEnd(StrEnum):
    """The end of an attempt. One without an end is unknown: done, or not."""

    DONE = "DONE"
    NOT_DONE = "NOT_DONE"
    REFUSED = "REFUSED"


class ActionAttempt(Model):
    """One attempt at an intent, from 1. Without `end` nobody knows yet what became of it."""

    attempt: Annotated[int, Field(ge=1)]
    executor: Name
    started_at_utc: Time
    end: Annotated[AttemptEnd, Field(strict=False)] | None = None
    reason: Reason = ""
    ended_at_utc: Time | None = None


class ActionState(StrEnum):
    """Where an intent stands: waiting, begun and nobody knows whether it was done, or ended as its outcome says."""

    OPEN = "OPEN"
    UNKNOWN = "UNKNOWN"
    EXECUTED = "EXECUTED"
    DENIED = "DENIED"
    FAILED = "FAILED"


class ActionRecord(Model):
    """An intent with everything that was done about it. `waiting`: why it is not over, in words. `conflicts`: how many others
    were offered under its key and refused.
    """

    kind: Literal["action_record"] = "action_record"
    contract_version: Version = "v0"
    intent: ActionIntent
    state: Annotated[ActionState, Field(strict=False)]
    attempts: tuple[ActionAttempt, ...] = Field(default=(), strict=False)
    outcome: ActionOutcome | None = None
    waiting: str = ""
    conflicts: Count = 0

    def wire(self) -> dict[str, Any]:
        """As it is shown: what is absent is left out."""
        fields = self.model_dump(mode="json", exclude_none=True, exclude={"intent"})
        return {**fields, "intent": self.intent.wire()}
