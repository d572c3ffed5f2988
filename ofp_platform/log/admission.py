"""Admission to a log: validation of envelopes, one refusal with a reason per record.

No message here holds a value of the record: what is refused may be a card number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ofp_platform.log.admitted import Admitted, AdmittedBatch, AdmittedColumns, Kind
from ofp_platform.log.port import AdmissionClock, Candidate, RecordRefusal, RefusalReason
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.envelope import Envelope, amends_bytes, hash_of_parts, ijson_bytes
from ofp_platform.vocabulary.identity import PIN_NAMES, ContextPins
from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier, json_is_suspect, raw_identifier_in, redact
from ofp_platform.vocabulary.times import parse_time

MAX_PAYLOAD_BYTES = 1_000_000  # with its envelope and key below the 1 MiB of a Kinesis record, so both logs take the same
MAX_KEY_LENGTH = 256
_RUNS_KEPT = 4096
_SHARED = (*PIN_NAMES, "event_type", "schema_version")
_ANY_TIME = "1970-01-01T00:00:00Z"
_TIMES = ("ts_utc", "emitted_at_utc")
_KEY_PATH = re.compile(r"payload(\.[^.]+)+|event_id|event_type")
_FIELD_NAME = re.compile(r"[A-Za-z_]{1,64}", re.ASCII)


class Admission:
    """Validates records for one stream. Safe to share between threads."""

    def __init__(self, partition_key: str) -> None:
        """`partition_key` is the dotted path of the key in the envelope, such as `payload.account_id`.

        Raises:
            ValueError: the path can never name a key.
        """
        if _KEY_PATH.fullmatch(partition_key) is None:
            raise ValueError(
                f"partition key {partition_key!r} is not a path: write 'payload.' and a field, or 'event_id', or 'event_type'"
            )
        self.partition_key = partition_key
        self._path = tuple(partition_key.split("."))
        self._runs: dict[tuple[Any, ...], tuple[ContextPins, bytes, str | None]] = {}

    def admit(self, index: int, candidate: Candidate) -> Admitted | RecordRefusal:
        """The record with everything that a log needs to know about it, or why it is refused."""
        if isinstance(candidate, Envelope):
            envelope = candidate
        else:
            try:
                envelope = Envelope.model_validate(candidate)
            except ValidationError as error:
                return _invalid(index, error, candidate)
            except RecursionError:
                return _nesting(index)
        fields = envelope.__dict__
        try:
            payload = ijson_bytes(fields["payload"])
        except (ValueError, TypeError):
            return RecordRefusal(index, RefusalReason.NOT_I_JSON, _not_ijson(fields["payload"]))
        except RecursionError:
            return _nesting(index)
        if len(payload) > MAX_PAYLOAD_BYTES:
            text = f"payload: {len(payload)} canonical bytes, the limit is {MAX_PAYLOAD_BYTES}"
            return RecordRefusal(index, RefusalReason.RECORD_TOO_LARGE, text)
        pins, pins_bytes, raw = self._run_of(envelope)
        amends = fields["amends"]
        if json_is_suspect(b"%bx%b" % (fields["event_id"].encode(), payload)):
            raw = "event_id" if holds_raw_identifier(fields["event_id"]) else raw or raw_identifier_in(fields["payload"])
        if amends is not None and holds_raw_identifier(amends.event_id):
            raw = raw or "amends.event_id"
        if raw is not None:
            text = f"{redact(raw[:200])}: a raw identifier (13 to 19 digits that pass the Luhn check) never enters the log"
            return RecordRefusal(index, RefusalReason.RAW_IDENTIFIER, text)
        key = self._key_of(fields)
        if key is None:
            text = f"{self.partition_key}: must be a string of 1 to {MAX_KEY_LENGTH} characters or an integer"
            return RecordRefusal(index, RefusalReason.MISSING_PARTITION_KEY, text)
        emitted, amended = fields["emitted_at_utc"], amends_bytes(amends)
        return Admitted(
            envelope,
            parse_time(fields["ts_utc"]),
            None if emitted is None else parse_time(emitted),
            pins,
            pins_bytes,
            payload,
            amended,
            hash_of_parts(fields["event_type"], fields["schema_version"], fields["ts_utc"], pins_bytes, payload, amended),
            key,
        )

    def admit_batch(self, candidates: Sequence[Candidate], clock: AdmissionClock | None) -> AdmittedBatch:
        """Outcome of each record. `clock` is asked for the admitted ones, in their order."""
        records = AdmittedColumns()
        refusals: list[RecordRefusal] = []
        times: list[int] = []
        for index, candidate in enumerate(candidates):
            outcome = self.admit(index, candidate)
            if isinstance(outcome, RecordRefusal):
                refusals.append(outcome)
                continue
            records.add(index, outcome)
            if clock is not None:
                times.append(clock(outcome.envelope))
        return AdmittedBatch(len(candidates), records, refusals, None if clock is None else times)

    def kind_of(self, event_type: str, schema_version: str, pins: ContextPins) -> Kind:
        """The kind of a record, with the canonical bytes of its pins.

        Raises:
            ValueError: every record of that kind is refused.
        """
        run = {name: value for name in PIN_NAMES if (value := getattr(pins, name)) is not None}
        fields = {"event_type": event_type, "schema_version": schema_version, **run}
        envelope = Envelope.model_validate({"event_id": "any", "ts_utc": _ANY_TIME, "payload": {}, **fields})
        _, pins_bytes, raw_field = self._run_of(envelope)
        if raw_field is not None:
            raise ValueError(f"{raw_field}: a raw identifier")
        return envelope.event_type, envelope.schema_version, pins_bytes

    def keys_of(
        self, event_ids: Sequence[str], event_types: Sequence[str], payloads: Sequence[Mapping[str, Any]]
    ) -> list[str] | None:
        """The partition keys of valid records, given in columns; None where one of them has none."""
        values: Sequence[Any] = {"event_id": event_ids, "event_type": event_types, "payload": payloads}[self._path[0]]
        for name in self._path[1:]:
            values = [value.get(name) if isinstance(value, Mapping) else None for value in values]
        keys = list(map(_key, values))
        return None if None in keys else keys  # type: ignore[return-value]  # the test is the narrowing

    def _run_of(self, envelope: Envelope) -> tuple[ContextPins, bytes, str | None]:
        """The pins, their canonical bytes, and which text that many records share is a raw identifier: once, not per record."""
        fields = envelope.__dict__
        values = tuple([fields[name] for name in _SHARED])
        known_run = self._runs.get(values)
        if known_run is None:
            texts = zip(_SHARED, values, strict=True)
            raw = next((name for name, text in texts if isinstance(text, str) and holds_raw_identifier(text)), None)
            run = {name: text for name, text in zip(_SHARED, values, strict=True) if name in PIN_NAMES and text is not None}
            pins = envelope.pins() if raw is None else ContextPins.model_construct(**run)
            if len(self._runs) >= _RUNS_KEPT:
                self._runs.clear()
            known_run = self._runs[values] = (pins, canonical_bytes(pins.wire()), raw)
        return known_run

    def _key_of(self, fields: Mapping[str, Any]) -> str | None:
        value: Any = fields
        for name in self._path:
            if not isinstance(value, Mapping):
                return None
            value = value.get(name)
        return _key(value)


def _key(value: Any) -> str | None:
    if type(value) is int:
        return str(value)
    return value if isinstance(value, str) and 0 < len(value) <= MAX_KEY_LENGTH else None


def _invalid(index: int, error: ValidationError, candidate: Mapping[str, Any]) -> RecordRefusal:
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    first = problems[0]
    field = str(first["loc"][0]) if first["loc"] else "envelope"
    if first["loc"] == ("payload",) and isinstance(candidate.get("payload"), bytes):
        try:
            read_json(candidate["payload"])
        except NotIJson as reason:
            return RecordRefusal(index, RefusalReason.NOT_I_JSON, f"payload: {reason}")
        except NotJson:
            pass  # no object, in whatever words
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if field in _TIMES:
        text = "must be an RFC 3339 UTC time with 'Z' and at most 6 fractional digits, and no leap second"
        return RecordRefusal(index, RefusalReason.INVALID_TIME, f"{field}: {text}{others}")
    if field not in Envelope.model_fields and _FIELD_NAME.fullmatch(field) is None:
        field = "a field whose name is not shown"
    # pydantic's own messages name types and patterns; those of our validators could quote what they saw
    message = "is not valid" if first["type"] == "value_error" else first["msg"]
    return RecordRefusal(index, RefusalReason.INVALID_ENVELOPE, f"{field}: {message}{others}")


def _not_ijson(payload: Mapping[str, Any]) -> str:
    field = "payload"
    for name, value in payload.items():
        try:
            ijson_bytes({name: value})
        except (ValueError, TypeError):
            field = f"payload.{name}" if _FIELD_NAME.fullmatch(name) else "payload"
            break
    kinds = "NaN or an infinity, an integer beyond 2^53-1, a lone surrogate, or a type that JSON does not have"
    return f"{field}: not I-JSON ({kinds})"


def _nesting(index: int) -> RecordRefusal:
    return RecordRefusal(index, RefusalReason.NOT_I_JSON, "payload: nested too deeply")
