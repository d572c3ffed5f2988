"""Receipts of ingress: one for each record that was sent, whatever became of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.envelope import EventType
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Digest, Identifier, Model, SafeIdentifier, Time
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.serving import Count, Version


class AdmissionOutcome(StrEnum):
    """The fate of a record: appended, there already, or set aside."""

    ADMIT = "ADMIT"
    DUPLICATE = "DUPLICATE"
    QUARANTINE = "QUARANTINE"


class QuarantineReason(StrEnum):
    """Why a record was set aside, from a closed list: the first seven are those of a log, the others of ingress."""

    INVALID_ENVELOPE = "INVALID_ENVELOPE"
    INVALID_TIME = "INVALID_TIME"
    NOT_I_JSON = "NOT_I_JSON"
    RAW_IDENTIFIER = "RAW_IDENTIFIER"
    RECORD_TOO_LARGE = "RECORD_TOO_LARGE"
    MISSING_PARTITION_KEY = "MISSING_PARTITION_KEY"
    AGGREGATED_RECORD = "AGGREGATED_RECORD"
    UNKNOWN_EVENT_TYPE = "UNKNOWN_EVENT_TYPE"
    UNKNOWN_SCHEMA_VERSION = "UNKNOWN_SCHEMA_VERSION"
    PAYLOAD_SCHEMA = "PAYLOAD_SCHEMA"
    RUN_NOT_ACTIVE = "RUN_NOT_ACTIVE"
    EVENT_ID_CONFLICT = "EVENT_ID_CONFLICT"


class RecordReceipt(Model):
    """The fate of one record of a batch. `place`: its place in the batch, from 0.

    `position`: where the record stands (ADMIT), or where the first of its identity does (DUPLICATE, EVENT_ID_CONFLICT).
    Class, id and payload hash are left out of a record that is no envelope. `admitted_payload_hash`: of an id that came with
    another payload, that of the first.
    """

    place: Count
    outcome: AdmissionOutcome = Field(strict=False)
    event_class: EventType | None = None
    event_id: Identifier | None = None
    payload_hash: Digest | None = None
    position: Position | None = None
    reason: Annotated[QuarantineReason, Field(strict=False)] | None = None
    detail: str | None = Field(default=None, description="what is wrong, and of which field; never a value")
    admitted_payload_hash: Digest | None = None

    @model_validator(mode="after")
    def _as_its_outcome(self) -> Self:
        is_quarantined = self.outcome is AdmissionOutcome.QUARANTINE
        if is_quarantined != (self.reason is not None) or (not is_quarantined and self.position is None):
            raise ValueError("a record in quarantine has a reason, any other a position")
        return self

    def wire(self) -> dict[str, Any]:
        """As it crosses a boundary: what is absent is left out."""
        return self.model_dump(mode="json", exclude_none=True)


class AdmissionReceipt(RecordReceipt):
    """The receipt of one record, with its batch and run."""

    kind: Literal["admission_receipt"] = "admission_receipt"
    contract_version: Version = "v0"
    context_pins: ContextPins = Field(description="the run that was admitted for")
    batch_id: Count


class AdmissionAnswer(Model):
    """The answer to a batch that was sent: a receipt for each record, in their order.

    `repeated`: the batch came before under the same Idempotency-Key; this is the answer that it got then.
    """

    kind: Literal["admission_answer"] = "admission_answer"
    contract_version: Version = "v0"
    context_pins: ContextPins
    batch_id: Count
    repeated: bool
    receipts: tuple[RecordReceipt, ...] = Field(strict=False, min_length=1)

    def count(self, outcome: AdmissionOutcome) -> int:
        """How many records ended so."""
        return sum(receipt.outcome is outcome for receipt in self.receipts)


class AdmissionBatch(Model):
    """A batch as it was received, and how its records ended."""

    kind: Literal["admission_batch"] = "admission_batch"
    contract_version: Version = "v0"
    context_pins: ContextPins
    batch_id: Count
    producer: SafeIdentifier
    class_map_digest: Digest
    received_at_utc: Time
    records: Count
    admitted: Count
    duplicates: Count
    quarantined: Count

    def wire(self) -> dict[str, Any]:
        """As it crosses a boundary: absent pins left out."""
        return {**self.model_dump(mode="json", exclude={"context_pins"}), "context_pins": self.context_pins.wire()}
