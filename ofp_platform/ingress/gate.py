"""The gate: which records of a batch may be admitted, and why each other one is set aside. Pure.

What needs the store (whether a record was admitted before) is asked afterwards, of those that pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

from ofp_platform.ingress.class_map import ClassMap, MappedType
from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import Admitted
from ofp_platform.log.port import RecordRefusal
from ofp_platform.vocabulary.admission_receipt import QuarantineReason
from ofp_platform.vocabulary.identity import ContextPins

_PART = re.compile(r"[A-Za-z_]{1,64}|[0-9]{1,6}", re.ASCII)
Sent = Mapping[str, Any] | RecordRefusal
"""A record as a producer sent it; or why its text is no JSON object, said by who read it."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A record that may be admitted. `event_key`: 32 bytes, its identity within the run."""

    event_class: str
    is_context: bool
    event_key: bytes
    record: Admitted


@dataclass(frozen=True, slots=True)
class SetAside:
    """A record that may not. Type, id, class and payload hash where it is an envelope."""

    reason: QuarantineReason
    detail: str
    event_class: str | None = None
    event_type: str | None = None
    event_id: str | None = None
    payload_hash: bytes | None = None
    first_place: int | None = None
    """Of an id that came with another payload in the same batch: the place of the first of it."""


def event_key(event_class: str, event_id: str) -> bytes:
    """The identity of an event within its run, 32 bytes. A class has no character 0."""
    return sha256(f"{event_class}\0{event_id}".encode()).digest()


@dataclass(frozen=True)
class Gate:
    """Of one run. `traffic`, `context`: the admission of each stream; None: the run has no stream of links."""

    pins: ContextPins
    class_map: ClassMap
    traffic: Admission
    context: Admission | None

    def examine(self, records: Sequence[Sent]) -> list[Passed | SetAside]:
        """The outcome of each record, in the order of the batch."""
        return [self._verdict(index, record) for index, record in enumerate(records)]

    def _verdict(self, index: int, record: Sent) -> Passed | SetAside:
        if isinstance(record, RecordRefusal):
            return SetAside(QuarantineReason(record.reason.value), record.message)
        event_type = record.get("event_type")
        mapped_type = self.class_map.events.get(event_type) if isinstance(event_type, str) else None
        is_context = mapped_type is not None and mapped_type.stream == "context" and self.context is not None
        admission = self.context if is_context and self.context is not None else self.traffic
        admitted_record = admission.admit(index, record)
        if isinstance(admitted_record, RecordRefusal):
            return SetAside(QuarantineReason(admitted_record.reason.value), admitted_record.message)
        envelope = admitted_record.envelope
        problem = self._problem(mapped_type, admitted_record)
        name = envelope.event_type if mapped_type is None else mapped_type.event_class
        if problem is not None:
            reason, detail = problem
            return SetAside(reason, detail, name, envelope.event_type, envelope.event_id, admitted_record.payload_hash)
        return Passed(name, is_context, event_key(name, envelope.event_id), admitted_record)

    def _problem(self, mapped_type: MappedType | None, admitted_record: Admitted) -> tuple[QuarantineReason, str] | None:
        if mapped_type is None:
            return QuarantineReason.UNKNOWN_EVENT_TYPE, f"event_type: known are {', '.join(self.class_map.events)}"
        if admitted_record.envelope.schema_version not in mapped_type.schema_versions:
            known_versions = ", ".join(mapped_type.schema_versions)
            return (
                QuarantineReason.UNKNOWN_SCHEMA_VERSION,
                f"schema_version of {admitted_record.envelope.event_type}: known are {known_versions}",
            )
        fault = self._payload_fault(admitted_record)
        if fault is not None:
            return QuarantineReason.PAYLOAD_SCHEMA, fault
        if admitted_record.pins != self.pins:
            return QuarantineReason.RUN_NOT_ACTIVE, "pins: of another run than the one that is active here"
        return None

    def _payload_fault(self, admitted_record: Admitted) -> str | None:
        """The first place of a payload that is not as its schema says, and the keyword against which; never a value."""
        envelope = admitted_record.envelope
        validator = self._validators.get((envelope.event_type, envelope.schema_version))
        if validator is None or validator.is_valid(envelope.payload):
            return None
        error = next(iter(validator.iter_errors(envelope.payload)))
        names = ["payload", *(str(part) for part in error.instance_path)]
        field = ".".join(names) if all(_PART.fullmatch(name) for name in names) else "payload"
        keywords = [part for part in error.schema_path if isinstance(part, str)]
        return f"{field}: is not as the schema of {envelope.event_type} {envelope.schema_version} says ({keywords[-1]})"

    @cached_property
    def _validators(self) -> dict[tuple[str, str], Any]:
        return self.class_map.validators
