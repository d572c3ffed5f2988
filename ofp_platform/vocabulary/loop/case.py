"""Cases: an event that a person looks at, and one append-only timeline of all that is known, asked and said about it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, model_validator

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.action import target_of
from ofp_platform.vocabulary.loop.bundle import ReasonCode
from ofp_platform.vocabulary.loop.decision_record import Score
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, SafeIdentifier, Time
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.raw_identifier import without_raw_identifier
from ofp_platform.vocabulary.scenario import platform_run_of
from ofp_platform.vocabulary.serving import Count, Version

LABEL_VALUES: Mapping[str, Mapping[str, int]] = {
    "fraud_disposition": {"legitimate": 0, "fraud": 1, "suspected": 2},
    "chargeback_status": {"none": 0, "filed": 1, "lost": 2, "won": 3},
    "account_takeover": {"no": 0, "yes": 1},
}
"""Label types of investigations: each word that may be said, and the value that the label store keeps for it."""
CASE_SOURCE = "case_investigation"
"""The `source` of assertions made in a case, whoever made them."""
Text = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(without_raw_identifier)]
ReasonText = Annotated[str, Field(min_length=1, max_length=400), AfterValidator(without_raw_identifier)]
LogPlace = Annotated[
    str, Field(pattern=r"^[^:\s]{1,128}:[0-9]{1,128}$", description="PARTITION:OFFSET, as `ofp log show` takes it")
]


class CaseTrigger(StrEnum):
    """Causes that open a case, or call attention to it again."""

    DECISION_ESCALATION = "DECISION_ESCALATION"
    ACTION_FAILURE = "ACTION_FAILURE"
    ANOMALY = "ANOMALY"
    EXTERNAL_SIGNAL = "EXTERNAL_SIGNAL"
    MANUAL_ASSERTION = "MANUAL_ASSERTION"


class EntryType(StrEnum):
    """The kind of an entry of a timeline."""

    TRIGGERED = "TRIGGERED"
    NOTE = "NOTE"
    ACTION_REQUESTED = "ACTION_REQUESTED"
    LABEL_PENDING = "LABEL_PENDING"
    LABEL_ACCEPTED = "LABEL_ACCEPTED"
    LABEL_REJECTED = "LABEL_REJECTED"
    CLOSED = "CLOSED"
    REOPENED = "REOPENED"


def case_id(pins: ContextPins, event_class: str, event_id: str) -> str:
    """SHA-256 over session, class and id, joined by `|`: an event of a session has one case, whoever opens it."""
    return sha256(f"{platform_run_of(pins)}|{event_class}|{event_id}".encode()).hexdigest()


class DecisionEvidence(Model):
    """A decision by reference: its record, the snapshot that it was made on (none: it was made without), the rule or bundle that
    decided, and where its event stands in the log.
    """

    evidence: Literal["decision"] = "decision"
    decision_id: Digest
    record_digest: Digest
    snapshot_hash: Digest | None = None
    rule_digest: Digest | None = None
    bundle_digest: Digest | None = None
    outcome: Annotated[Outcome, Field(strict=False)]
    score: Score | None = None
    reason_codes: tuple[ReasonCode, ...] = Field(default=(), strict=False)
    stream_name: Identifier
    position: LogPlace


class AnomalyEvidence(Model):
    """An id that came with two payloads: where the two records stand."""

    evidence: Literal["anomaly"] = "anomaly"
    stream_name: Identifier
    position: LogPlace
    first_position: LogPlace


class ActionEvidence(Model):
    """An action that failed, by the digest of its outcome."""

    evidence: Literal["action"] = "action"
    outcome_digest: Digest


class StatedEvidence(Model):
    """A statement of somebody, in words without raw identifiers."""

    evidence: Literal["statement"] = "statement"
    reason: ReasonText


_EVIDENCE_OF: Mapping[CaseTrigger, type[Model]] = {
    CaseTrigger.DECISION_ESCALATION: DecisionEvidence,
    CaseTrigger.ACTION_FAILURE: ActionEvidence,
    CaseTrigger.ANOMALY: AnomalyEvidence,
    CaseTrigger.EXTERNAL_SIGNAL: StatedEvidence,
    CaseTrigger.MANUAL_ASSERTION: StatedEvidence,
}


class Triggered(Model):
    """The case was opened, or something more came up about its event."""

    entry_type: Literal[EntryType.TRIGGERED] = EntryType.TRIGGERED
    trigger: Annotated[CaseTrigger, Field(strict=False)]
    evidence: Annotated[DecisionEvidence | AnomalyEvidence | ActionEvidence | StatedEvidence, Field(discriminator="evidence")]

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        if not isinstance(self.evidence, _EVIDENCE_OF[self.trigger]):
            raise ValueError(f"{self.trigger} has another kind of evidence")
        return self


class Note(Model):
    """A note of an investigator."""

    entry_type: Literal[EntryType.NOTE] = EntryType.NOTE
    text: Text


class ActionRequested(Model):
    """An action that an investigator asked for. Asking does nothing by itself: an executor does, or denies it."""

    entry_type: Literal[EntryType.ACTION_REQUESTED] = EntryType.ACTION_REQUESTED
    action_type: Name
    target: SafeIdentifier = Field(description="KEY_TYPE:KEY_ID, or webhook:NAME")
    reason: ReasonText

    @model_validator(mode="after")
    def _on_something(self) -> Self:
        try:
            target_of(self.target)
        except ValueError:
            raise ValueError("target: write KEY_TYPE:KEY_ID as in account:acct-1, or webhook:NAME") from None
        return self


class LabelPending(Model):
    """A label that was asserted, and is not yet known to be stored. `word`: as it was said, of `LABEL_VALUES`."""

    entry_type: Literal[EntryType.LABEL_PENDING] = EntryType.LABEL_PENDING
    word: Name
    assertion_id: Digest
    assertion: LabelAssertion

    @model_validator(mode="after")
    def _in_the_table(self) -> Self:
        if label_value(self.assertion.label_type, self.word) != self.assertion.value:
            raise ValueError("the value of the assertion is not that of the word")
        if self.assertion_id != self.assertion.assertion_id:
            raise ValueError("assertion_id is not that of the assertion")
        return self


class LabelAccepted(Model):
    """The label store has an assertion durably."""

    entry_type: Literal[EntryType.LABEL_ACCEPTED] = EntryType.LABEL_ACCEPTED
    assertion_id: Digest


class LabelRejected(Model):
    """The label store refused an assertion."""

    entry_type: Literal[EntryType.LABEL_REJECTED] = EntryType.LABEL_REJECTED
    assertion_id: Digest
    reason: ReasonText


class Closed(Model):
    """Nobody has to look at the case any more."""

    entry_type: Literal[EntryType.CLOSED] = EntryType.CLOSED
    reason: ReasonText


class Reopened(Model):
    """Somebody has to look at the case again."""

    entry_type: Literal[EntryType.REOPENED] = EntryType.REOPENED
    reason: ReasonText


CaseContent = Annotated[
    Triggered | Note | ActionRequested | LabelPending | LabelAccepted | LabelRejected | Closed | Reopened,
    Field(discriminator="entry_type"),
]
CONTENT: TypeAdapter[CaseContent] = TypeAdapter(CaseContent)


def content_wire(content: CaseContent) -> dict[str, Any]:
    """As stored."""
    return content.model_dump(mode="json")


def content_digest(content: CaseContent) -> str:
    """SHA-256 over the canonical bytes of a content."""
    return digest_of(content_wire(content))


class CaseEntry(Model):
    """One entry of a timeline. `sequence`: its number in the run, in the order in which entries became visible.

    `source_ref` names where the entry comes from: a case has one entry of a type for each.
    """

    sequence: Count
    source_ref: SafeIdentifier
    at_utc: Time
    actor: SafeIdentifier
    content: CaseContent


class CaseEvent(Model):
    """The event that a case is about."""

    event_class: Identifier
    event_id: Identifier


class CaseEntryConflict(Model):
    """An entry that came again with other content: the first stands, this one is kept beside it."""

    kind: Literal["case_entry_conflict"] = "case_entry_conflict"
    contract_version: Version = "v0"
    case_id: Digest
    entry_type: Annotated[EntryType, Field(strict=False)]
    source_ref: SafeIdentifier
    first_digest: Digest
    other_digest: Digest
    at_utc: Time
    actor: SafeIdentifier


class NoSuchLabel(ValueError):
    """A label type, or a word, that is not in `LABEL_VALUES`; the text says which there are."""


def label_value(label_type: str, word: str) -> int:
    """The value of a word.

    Raises:
        NoSuchLabel: see there.
    """
    words = LABEL_VALUES.get(label_type)
    if words is None:
        raise NoSuchLabel(f"there is no label type {label_type!r} of cases; there are {', '.join(LABEL_VALUES)}")
    if word not in words:
        raise NoSuchLabel(f"{label_type} has no value {word!r}; it has {', '.join(words)}")
    return words[word]
