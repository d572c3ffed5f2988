"""Admission of columns: exactly the records that `Admission.admit` takes, validated many at once where they are plain.

Columns are looked at in parts. A part is plain when checks over whole columns show that every record of it is admitted,
and that its payloads are their own canonical bytes; nothing else is ever concluded from them. A part that is not plain
goes through `Admission.admit` record by record, which has the last word, and words every refusal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from ofp_platform.log.admission import MAX_PAYLOAD_BYTES, Admission
from ofp_platform.log.admitted import AdmittedBatch, AdmittedColumns, Kind
from ofp_platform.log.port import RecordRefusal
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.columns import NOT_EMITTED, EventColumns, Int64, are_moments, moments_of, time_texts
from ofp_platform.vocabulary.envelope import Envelope, hash_of_parts, ijson_bytes
from ofp_platform.vocabulary.identity import PIN_NAMES, ContextPins
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier, json_is_suspect, raw_identifier_in, text_is_suspect

PART_RECORDS = 1_000
_REQUIRED = {name for name, field in Envelope.model_fields.items() if field.is_required()}
_PLAIN = set(Envelope.model_fields) - {"amends"}
_columns_of = itemgetter("event_id", "event_type", "schema_version", "ts_utc", "payload")
_EVENT_ID = re.compile(Envelope.model_json_schema()["properties"]["event_id"]["pattern"])
# a number with a fraction or an exponent; canonical bytes have no blanks, so that is all that can stand in front of it
_FRACTION = re.compile(rb"[:,\[]-?[0-9]+[.eE]")


def admit_columns(admission: Admission, columns: EventColumns, admitted_at: Int64) -> AdmittedBatch:
    """Outcome of each record; `admitted_at` is int64[n], microseconds.

    Raises:
        ValueError: the times are not one for each record, or lie outside the years 1 to 9999.
    """
    if admitted_at.shape != (len(columns),) or admitted_at.dtype.kind != "i":
        raise ValueError(f"admitted_at is {admitted_at.dtype} of shape {admitted_at.shape}, not int64 of ({len(columns)},)")
    if not are_moments(admitted_at).all():
        raise ValueError("admitted_at holds a moment outside the years 1 to 9999")
    records = AdmittedColumns()
    refusals: list[RecordRefusal] = []
    for start in range(0, len(columns), PART_RECORDS):
        part = columns.part(start, start + PART_RECORDS)
        plain = admit_plain(admission, part, start)
        if plain is not None:
            records.extend(plain)
            continue
        for index, record in enumerate(part.records(), start):
            outcome = admission.admit(index, record)
            if isinstance(outcome, RecordRefusal):
                refusals.append(outcome)
            else:
                records.add(index, outcome)
    times = admitted_at.tolist()
    return AdmittedBatch(len(columns), records, refusals, [times[place] for place in records.places])


def plain_columns(records: Sequence[Any]) -> EventColumns | None:
    """Envelopes in columns, nothing of them checked but what gets lost by it; None where one needs a closer look: they do not
    all have the same members, or one amends another event, or has its times in another form than the canonical one.
    """
    names = set(records[0]) if type(records[0]) is dict else set()
    if not _REQUIRED <= names <= _PLAIN or not all(type(record) is dict and record.keys() == names for record in records):
        return None
    pin_names = [name for name in PIN_NAMES if name in names]
    event_ids, event_types, versions, ts, payloads = zip(*map(_columns_of, records), strict=True)
    emitted_texts = [record["emitted_at_utc"] for record in records] if "emitted_at_utc" in names else []
    seeds = {type(record["seed"]) for record in records} if "seed" in names else {int}
    if seeds != {int} or not all(type(text) is str for text in (*ts, *emitted_texts)):  # True is 1, and as a seed it is none
        return None
    pins: dict[tuple[Any, ...], int] = {}
    try:
        runs_of = zip(*([record[name] for record in records] for name in pin_names), strict=True)
        pins_index = [pins.setdefault(values, len(pins)) for values in runs_of]
        moments, emitted = moments_of(ts), moments_of(emitted_texts)
        if time_texts(moments) != list(ts) or (emitted_texts and time_texts(emitted) != emitted_texts):
            return None
        runs = [ContextPins.model_validate(dict(zip(pin_names, values, strict=True))) for values in pins]
    except (TypeError, ValueError):  # of pydantic, too; a TypeError is a value that cannot be hashed
        return None
    return EventColumns(
        list(event_ids),
        list(event_types),
        list(versions),
        moments,
        emitted if emitted_texts else np.full(len(records), NOT_EMITTED, np.int64),
        runs,
        np.array(pins_index, np.int32),
        list(payloads),
    )


def admit_plain(admission: Admission, part: EventColumns, start: int) -> AdmittedColumns | None:
    """All records of a part, which begins at record `start`; None where one needs the closer look of `Admission.admit`."""
    emitted = part.emitted_at != NOT_EMITTED
    if not are_moments(part.ts).all() or not are_moments(part.emitted_at[emitted]).all() or not _ids_are_valid(part.event_ids):
        return None
    kinds = _kinds(admission, part)
    canonical = _canonical(part.payloads)
    if kinds is None or canonical is None:
        return None
    payloads, values = canonical
    keys = admission.keys_of(part.event_ids, part.event_types, values)
    if keys is None or max(map(len, payloads)) > MAX_PAYLOAD_BYTES:
        return None
    if json_is_suspect(b"x".join(payloads)) and any(raw_identifier_in(value) is not None for value in values):
        return None
    texts = time_texts(part.ts)
    return AdmittedColumns(
        places=list(range(start, start + len(part))),
        event_ids=list(part.event_ids),
        kinds=kinds,
        ts=part.ts.tolist(),
        emitted_at=[moment if moment != NOT_EMITTED else None for moment in part.emitted_at.tolist()],
        payloads=payloads,
        amends=[None] * len(part),  # columns have no amendments: a producer sends those as envelopes
        payload_hashes=[hash_of_parts(k[0], k[1], t, k[2], p, None) for k, t, p in zip(kinds, texts, payloads, strict=True)],
        keys=keys,
    )


def _ids_are_valid(event_ids: Sequence[str]) -> bool:
    return (
        set(map(type, event_ids)) == {str}
        and all(map(_EVENT_ID.fullmatch, event_ids))
        and not (text_is_suspect("x".join(event_ids)) and any(map(holds_raw_identifier, event_ids)))
    )


def _kinds(admission: Admission, part: EventColumns) -> list[Kind] | None:
    """The kind of each record: an envelope of every kind that occurs is validated as any other is. None: one is refused."""
    try:
        known: dict[tuple[str, str, int], Kind] = {}
        kinds: list[Kind] = []
        for name in zip(part.event_types, part.schema_versions, part.pins_index.tolist(), strict=True):
            kind = known.get(name)
            if kind is None:
                kind = known[name] = admission.kind_of(name[0], name[1], part.pins[name[2]])
            kinds.append(kind)
    except (TypeError, ValueError):  # pydantic's error is a ValueError; a TypeError is a value that cannot be hashed
        return None
    return kinds


def _canonical(payloads: Sequence[bytes | Mapping[str, Any]]) -> tuple[list[bytes], list[dict[str, Any]]] | None:
    """The canonical bytes of each payload, and its object. None: not all are objects, or bytes are not canonical."""
    try:
        if set(map(type, payloads)) == {bytes}:
            texts: list[bytes] = list(payloads)  # type: ignore[arg-type]  # a payload that is bytes, by the line before
            values = list(map(orjson.loads, texts))
            if set(map(type, values)) == {dict} and _is_encoding(texts, values):
                return texts, values
            return None
        values = [payload for payload in payloads if type(payload) is dict]
        return ([ijson_bytes(value) for value in values], values) if len(values) == len(payloads) else None
    except (TypeError, ValueError, RecursionError):
        return None


def _is_encoding(texts: list[bytes], values: list[dict[str, Any]]) -> bool:
    """Whether each text is the RFC 8785 encoding of its value: where all are flat, fast, and else one by one."""
    joined = b",".join(texts)
    flat = joined.count(b"{") == len(texts) and b"[" not in joined
    ascii_names = joined.isascii() or all(name.isascii() for value in values for name in value)
    if flat and ascii_names and _FRACTION.search(joined) is None:
        return list(map(canonical_bytes, values)) == texts
    return list(map(ijson_bytes, values)) == texts
