"""The gate: which records of a batch may be admitted, and why each other one is set aside. Pure.

What needs the store (whether a record was admitted before) is asked afterwards, of those that pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple

from ofp_platform.ingress.class_map import ClassMap, MappedType
from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import AdmittedColumns, Kind
from ofp_platform.log.column_admission import PART_RECORDS, admit_plain, plain_columns
from ofp_platform.log.port import RecordRefusal
from ofp_platform.vocabulary.admission_receipt import QuarantineReason
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins

_PART = re.compile(r"[A-Za-z_]{1,64}|[0-9]{1,6}", re.ASCII)
_WORTH_COLUMNS = 8
"""Records from which columns are faster than one by one."""
Sent = Mapping[str, Any] | RecordRefusal
"""A record as a producer sent it; or why its text is no JSON object, said by who read it."""


class Passed(NamedTuple):
    """A record that may be admitted: row `row` of columns. `event_key`: 32 bytes, its identity within the run."""

    event_class: str
    is_context: bool
    event_key: bytes
    payload_hash: bytes
    columns: AdmittedColumns
    row: int

    @property
    def event_id(self) -> str:
        """Its id."""
        return self.columns.event_ids[self.row]

    @property
    def event_type(self) -> str:
        """Its type."""
        return self.columns.kinds[self.row][0]


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
        verdicts: list[Passed | SetAside] = []
        for start in range(0, len(records), PART_RECORDS):
            part = records[start : start + PART_RECORDS]
            plain = self._examine_plain(part) if len(part) >= _WORTH_COLUMNS else None
            if plain is None:
                own_columns = {is_context: AdmittedColumns() for is_context in (False, True)}
                plain = [self._verdict(index, record, own_columns) for index, record in enumerate(part)]
            verdicts += plain
        return verdicts

    def _examine_plain(self, records: Sequence[Sent]) -> list[Passed | SetAside] | None:
        """The same of records that are validated in columns; None where one of them needs a closer look."""
        events = plain_columns(records)
        if events is None:
            return None
        try:
            streams = {self._goes_to_context(self.class_map.events.get(name)) for name in set(events.event_types)}
        except TypeError:  # no text
            return None
        if len(streams) > 1:
            return None
        is_context = streams.pop()
        columns = admit_plain(self._admission(is_context=is_context), events, 0)
        if columns is None:
            return None
        types = {kind: self.class_map.events.get(kind[0]) for kind in set(columns.kinds)}
        classes = {kind: kind[0] if mapped_type is None else mapped_type.event_class for kind, mapped_type in types.items()}
        passed_records = [
            Passed(classes[kind], is_context, event_key(classes[kind], event_id), payload_hash, columns, row)
            for row, (kind, event_id, payload_hash) in enumerate(
                zip(columns.kinds, columns.event_ids, columns.payload_hashes, strict=True)
            )
        ]
        if all(self._takes_all(kind, mapped_type) for kind, mapped_type in types.items()):
            return list(passed_records)
        return [
            self._verdict_on(verdict, types[kind], payload)
            for verdict, kind, payload in zip(passed_records, columns.kinds, events.payloads, strict=True)
        ]

    def _takes_all(self, kind: Kind, mapped_type: MappedType | None) -> bool:
        """Whether every record of a kind passes, whatever its payload."""
        if mapped_type is None or kind[1] not in mapped_type.schema_versions or kind[2] != self._pins_bytes:
            return False
        return (kind[0], kind[1]) not in self._validators

    def _verdict(self, index: int, record: Sent, own_columns: Mapping[bool, AdmittedColumns]) -> Passed | SetAside:
        if isinstance(record, RecordRefusal):
            return SetAside(QuarantineReason(record.reason.value), record.message)
        event_type = record.get("event_type")
        mapped_type = self.class_map.events.get(event_type) if isinstance(event_type, str) else None
        is_context = self._goes_to_context(mapped_type)
        admitted_record = self._admission(is_context=is_context).admit(index, record)
        if isinstance(admitted_record, RecordRefusal):
            return SetAside(QuarantineReason(admitted_record.reason.value), admitted_record.message)
        envelope, columns = admitted_record.envelope, own_columns[is_context]
        columns.add(len(columns), admitted_record)
        name = envelope.event_type if mapped_type is None else mapped_type.event_class
        key = event_key(name, envelope.event_id)
        passed_record = Passed(name, is_context, key, admitted_record.payload_hash, columns, len(columns) - 1)
        return self._verdict_on(passed_record, mapped_type, envelope.payload)

    def _goes_to_context(self, mapped_type: MappedType | None) -> bool:
        return mapped_type is not None and mapped_type.stream == "context" and self.context is not None

    def _admission(self, *, is_context: bool) -> Admission:
        return self.context if is_context and self.context is not None else self.traffic

    def _verdict_on(self, verdict: Passed, mapped_type: MappedType | None, payload: Any) -> Passed | SetAside:
        problem = self._problem(verdict.columns.kinds[verdict.row], mapped_type, payload)
        if problem is None:
            return verdict
        return SetAside(*problem, verdict.event_class, verdict.event_type, verdict.event_id, verdict.payload_hash)

    def _problem(self, kind: Kind, mapped_type: MappedType | None, payload: Any) -> tuple[QuarantineReason, str] | None:
        event_type, version, pins_bytes = kind
        if mapped_type is None:
            return QuarantineReason.UNKNOWN_EVENT_TYPE, f"event_type: known are {', '.join(self.class_map.events)}"
        if version not in mapped_type.schema_versions:
            known_versions = ", ".join(mapped_type.schema_versions)
            return QuarantineReason.UNKNOWN_SCHEMA_VERSION, f"schema_version of {event_type}: known are {known_versions}"
        fault = self._payload_fault(event_type, version, payload)
        if fault is not None:
            return QuarantineReason.PAYLOAD_SCHEMA, fault
        if pins_bytes != self._pins_bytes:
            return QuarantineReason.RUN_NOT_ACTIVE, "pins: of another run than the one that is active here"
        return None

    def _payload_fault(self, event_type: str, version: str, payload: Any) -> str | None:
        """The first place of a payload that is not as its schema says, and the keyword against which; never a value."""
        validator = self._validators.get((event_type, version))
        if validator is None or validator.is_valid(payload):
            return None
        error = next(iter(validator.iter_errors(payload)))
        names = ["payload", *(str(part) for part in error.instance_path)]
        field = ".".join(names) if all(_PART.fullmatch(name) for name in names) else "payload"
        keywords = [part for part in error.schema_path if isinstance(part, str)]
        return f"{field}: is not as the schema of {event_type} {version} says ({keywords[-1]})"

    @cached_property
    def _pins_bytes(self) -> bytes:
        return canonical_bytes(self.pins.wire())

    @cached_property
    def _validators(self) -> dict[tuple[str, str], Any]:
        return self.class_map.validators
