"""Records on the wire in columns: the same batch as record by record, whatever stands in the stream."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.log import wire_records as wire_module
from ofp_platform.log.admission import Admission
from ofp_platform.log.column_admission import PART_RECORDS
from ofp_platform.log.port import RecordBatch
from ofp_platform.log.wire_records import WirePage, batch_of, wire_records
from ofp_platform.vocabulary.columns import EventColumns
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.position import SEQUENCE_TOKENS
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.oracle.strategies import PINS

KEY = "payload.account_id"
AFTER = SEQUENCE_TOKENS.basis("shardId-000000000000", "999")
ARRIVED = parse_time("2024-06-01T12:00:00.123456Z")
_TIMES = [
    "2024-05-01T10:00:00Z",
    "2024-05-01T10:00:00.1Z",
    "2024-05-01T10:00:00.100000Z",
    "2024-05-01T10:00:00.000001Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "2024-05-01T10:00:00",
    "2024-05-01T10:00:00z",
    "2024-05-01T10:00:00+00:00",
    "2024-05-01T10:00:00-01:00Z",
    "2024-05-01T10:00:60Z",
    "2024-05-01",
    "2024-02-30T00:00:00Z",
    "NaTZ",
    "",
    7,
    None,
]


def page_of(data: list[bytes], arrived_at: int | None = ARRIVED) -> WirePage:
    return WirePage([str(n) for n in range(len(data))], data, [arrived_at] * len(data))


def outcome(batch: RecordBatch) -> dict[str, Any]:
    columns = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return {
        name: (column.dtype, column.tolist()) if isinstance(column, np.ndarray) else column for name, column in columns.items()
    }


def by_records(data: list[bytes]) -> dict[str, Any]:
    with mock.patch.object(wire_module, "_plain_part", return_value=None):
        return outcome(batch_of(page_of(data), Admission(KEY), AFTER))


def compact(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@st.composite
def envelopes(draw: st.DrawFn) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "event_id": draw(st.sampled_from(["e-1", "e-2", "tx:9", "4111111111111111", "", "a b", 'e"1', "é"])),
        "event_type": draw(st.sampled_from(["payment", "payment", "Upper", ""])),
        "schema_version": "v1",
        "ts_utc": draw(st.sampled_from(_TIMES[:4] + _TIMES)),
        **PINS,
        "payload": draw(
            st.sampled_from(
                [
                    {"account_id": "a-1"},
                    {"account_id": "a-1", "amount": 12, "z": None},
                    {"account_id": "a-1", "nested": [1.5, {"é": 2}], "b": 1e22},
                    {"account_id": "5500005555555559"},
                    {"account_id": 7, "big": 2**60},
                    {"other": 1},
                    [],
                    "text",
                    None,
                ]
            )
        ),
    }
    if draw(st.booleans()):
        fields["emitted_at_utc"] = draw(st.sampled_from(_TIMES))
    if draw(st.integers(0, 9)) == 0:
        fields[draw(st.sampled_from(["seed", "platform_run_id", "unknown"]))] = draw(st.sampled_from([42, "p%b-1", 4.0, None]))
    return fields


@st.composite
def wire(draw: st.DrawFn) -> bytes:
    record: Any = {"envelope": draw(envelopes())}
    if draw(st.booleans()):
        record["admitted_at_utc"] = draw(st.sampled_from(_TIMES))
    text = compact(record)
    match draw(st.integers(0, 11)):
        case 0:
            return text.replace(b":", b": ")
        case 1:
            return text.replace(b'"envelope":{', b'"envelope":{"event_id":"twice",', 1)
        case 2:
            return text.replace(b'{"account_id"', b'{"account_id":"a-0","account_id"', 1)
        case 3:
            return draw(
                st.sampled_from([b"", b"{", b"[]", b"\xf3\x89\x9a\xc2", b"\xff", b'{"envelope":{}}', text + b" ", text[:-1]])
            )
        case 4:
            return text.replace(b'"event_id":"e', b'"event_id":"\\u0065')
        case _:
            return text


@given(st.lists(wire(), max_size=8))
def test_a_page_is_what_its_records_are(data: list[bytes]) -> None:
    assert outcome(batch_of(page_of(data), Admission(KEY), AFTER)) == by_records(data)


@given(wire())
def test_a_record_alone_is_what_it_is(data: bytes) -> None:
    assert outcome(batch_of(page_of([data]), Admission(KEY), AFTER)) == by_records([data])


@pytest.mark.parametrize("with_clock", [True, False])
def test_what_an_append_sends_is_read_in_columns(columns: EventColumns, with_clock: bool) -> None:
    admission = Admission(KEY)
    batch = admission.admit_batch(list(columns.records()), (lambda _: 1_700_000_000_000_001) if with_clock else None)
    data = wire_records(batch)
    part = page_of(data)
    plain = wire_module._plain_part(part, admission, 0)
    assert plain is not None
    assert len(plain.records) == len(data) == 198
    assert outcome(batch_of(part, admission, AFTER)) == by_records(data)


def test_one_odd_record_sends_its_part_alone_to_the_closer_look(event: Callable[..., Envelope]) -> None:
    admission = Admission(KEY)
    data = wire_records(admission.admit_batch([event(n) for n in range(3 * PART_RECORDS)], lambda _: 5))
    data[PART_RECORDS + 7] = b"not JSON"
    with mock.patch.object(wire_module, "parse_record", wraps=wire_module.parse_record) as looks:
        batch = batch_of(page_of(data), admission, AFTER)
    assert looks.call_count == PART_RECORDS
    assert outcome(batch) == by_records(data)
    assert [record.offset for record in batch.unreadable] == [str(PART_RECORDS + 7)]


def test_what_nobody_says_the_admission_time_of_is_unreadable(event: Callable[..., Envelope]) -> None:
    admission = Admission(KEY)
    timed = wire_records(admission.admit_batch([event(1)], lambda _: 5))
    data = [*timed, *wire_records(admission.admit_batch([event(2)], None))]
    batch = batch_of(page_of(data, None), admission, AFTER)
    assert (batch.event_ids, batch.admitted_at.tolist()) == (["txn-000001"], [5])
    assert [(record.offset, record.reason.value) for record in batch.unreadable] == [("1", "INVALID_TIME")]


def test_a_sign_of_percent_in_a_pin_is_text(event: Callable[..., Envelope]) -> None:
    batch = Admission(KEY).admit_batch([event(1)], None)
    kind = batch.records.kinds[0]
    batch.records.kinds[0] = (kind[0], kind[1], kind[2].replace(b"baseline", b"100%b"))
    (data,) = wire_records(batch)
    assert json.loads(data)["envelope"]["scenario_id"] == "100%b"
