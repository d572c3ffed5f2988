"""What every log does. Runs on PostgreSQL, Kinesis (moto), a Kinesis with sparse numbers and closing shards, and Kafka."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ofp_platform.log.port import (
    EventLog,
    PartitionNotFound,
    PositionUnknown,
    RecordBatch,
    RecordRefusal,
    RefusalReason,
    readable_partitions,
)
from ofp_platform.vocabulary.columns import EventColumns
from ofp_platform.vocabulary.envelope import Envelope, amends_bytes, ijson_bytes, payload_hash
from ofp_platform.vocabulary.position import Basis, OffsetKind, Position, make_basis, order
from ofp_platform.vocabulary.times import parse_time

Open = Callable[..., EventLog]
Event = Callable[..., Envelope]
DELAY = 1_500_001
AMENDS = {"event_class": "card", "event_id": "txn-0", "ts_utc": "2024-05-01T10:00:00Z", "kind": "void"}


def clock(envelope: Envelope) -> int:
    return parse_time(envelope.ts_utc) + DELAY


def start_of(log: EventLog) -> Basis:
    """A basis that knows nothing."""
    parts = {info.partition_id: log.position_kind.start(info.partition_id) for info in log.partitions()}
    return make_basis(log.stream_name, parts)


def read_all(log: EventLog, basis: Basis | None = None, page: int = 1000) -> tuple[list[RecordBatch], Basis]:
    """Everything behind a basis, and the basis after it."""
    known = {} if basis is None else basis.by_partition()
    batches = []
    for info in log.partitions():
        at = known.get(info.partition_id)
        while True:
            batch = log.read(info.partition_id, at, page)
            assert len(batch) <= page
            if at is not None and batch.next == at:
                assert len(batch) == 0
                break
            at = batch.next
            batches.append(batch)
        known[info.partition_id] = at
    return batches, make_basis(log.stream_name, known)


def ids(batches: list[RecordBatch]) -> list[str]:
    return [name for batch in batches for name in batch.event_ids]


def test_what_is_read_is_what_was_appended(open_log: Open, event: Event) -> None:
    log = open_log()
    events = [event(n) for n in range(200)]
    events += [
        event(200, seed=None, run_id="run-2", platform_run_id="p/1", emitted_at_utc="2024-05-01T11:00:00.000001Z"),
        event(201, {"account_id": "Zoë", "nested": {"list": [1.5, None, True, "é"], "b": 1e21}}, ts_utc="1969-12-31T23:59:59Z"),
        event(202, {"account_id": 7}, event_type="fraud_report", ts_utc="2024-05-01T10:00:00.120000Z"),
        event(203, amends=AMENDS, emitted_at_utc="2024-05-01T11:00:00Z"),
        event(204, amends={**AMENDS, "kind": "replace"}),
    ]
    receipt = log.append(events, clock)
    assert receipt.appended == 205
    assert receipt.refusals == []
    by_id = {e.event_id: (e, place) for e, place in zip(events, receipt.outcomes, strict=True)}
    batches, after = read_all(log)
    assert sorted(ids(batches)) == sorted(by_id)
    for batch in batches:
        assert {len(column) for column in (batch.event_ids, batch.payloads, batch.ts, batch.admitted_at)} == {len(batch)}
        assert batch.ts.dtype == batch.admitted_at.dtype == np.int64
        assert batch.pins_index.dtype == np.int32
        for index in range(len(batch)):
            sent, place = by_id[batch.event_ids[index]]
            assert batch.envelope(index) == sent
            assert place == Position(
                stream_name=log.stream_name,
                partition_id=batch.partition_id,
                offset=batch.offsets[index],
                incarnation=log.history.current,
            )
            assert batch.ts[index] == parse_time(sent.ts_utc)
            assert batch.admitted_at[index] == clock(sent)
            assert batch.event_types[index] == sent.event_type
            assert batch.pins[batch.pins_index[index]] == sent.pins()
            assert batch.payloads[index] == ijson_bytes(sent.payload)
            assert batch.amends[index] == amends_bytes(sent.amends)
            assert batch.payload_hashes[index] == payload_hash(sent)
            assert after.contains(place)
    assert after == log.ends()


def test_an_envelope_as_a_dictionary_is_the_same_record(open_log: Open, event: Event) -> None:
    log = open_log(1)
    sent = event(1, emitted_at_utc="2024-05-01T10:00:02Z")
    assert log.append([sent.model_dump(exclude_none=True), sent], clock).appended == 2
    (batch,), _ = read_all(log)
    assert batch.envelope(0) == batch.envelope(1) == sent
    assert batch.payload_hashes[0] == batch.payload_hashes[1]


def test_columns_are_appended_as_their_records_are(open_log: Open, columns: EventColumns) -> None:
    log = open_log()
    times = np.arange(len(columns), dtype=np.int64) + 10**15
    at = dict(zip(columns.event_ids, times.tolist(), strict=True))
    expected = log.append(list(columns.records()), lambda envelope: at[envelope.event_id])
    first, basis = read_all(log)
    receipt = log.append_columns(columns, times)
    second, _ = read_all(log, basis)
    assert receipt.refusals == expected.refusals
    assert [refusal.index for refusal in receipt.refusals] == [22, 23, 24, 201, 202]
    assert receipt.appended == 198
    assert [item.partition_id for item in receipt.outcomes if isinstance(item, Position)] == [
        item.partition_id for item in expected.outcomes if isinstance(item, Position)
    ]
    stored = {
        (batch.partition_id, offset): name
        for batch in second
        for offset, name in zip(batch.offsets, batch.event_ids, strict=True)
    }
    for name, item in zip(columns.event_ids, receipt.outcomes, strict=True):
        if isinstance(item, Position):
            assert stored[item.partition_id, item.offset] == name

    def contents(batches: list[RecordBatch]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = defaultdict(list)
        for b in batches:
            pins = [b.pins[index] for index in b.pins_index.tolist()]
            kinds = zip(b.event_ids, b.event_types, b.schema_versions, pins, strict=True)
            moments = zip(b.ts.tolist(), b.emitted_at, b.admitted_at.tolist(), strict=True)
            found[b.partition_id] += zip(kinds, moments, b.payloads, b.payload_hashes, strict=True)
        return found

    assert contents(second) == contents(first)


def test_columns_with_wrong_admission_times_append_nothing(open_log: Open, columns: EventColumns) -> None:
    log = open_log()
    for times in (np.zeros(len(columns) - 1, np.int64), np.full(len(columns), 2**62, np.int64)):
        with pytest.raises(ValueError, match="admitted_at"):
            log.append_columns(columns, times)
    assert log.append_columns(columns.part(0, 0), np.zeros(0, np.int64)).outcomes == []
    assert log.ends() == start_of(log)


def test_order_within_a_partition_is_the_order_of_the_appends(open_log: Open, event: Event) -> None:
    log = open_log(2)
    for start in range(0, 90, 30):
        log.append([event(n) for n in range(start, start + 30)], clock)
    for batch in read_all(log)[0]:
        assert [order(offset) for offset in batch.offsets] == sorted({order(offset) for offset in batch.offsets})
        assert batch.event_ids == sorted(batch.event_ids)


def test_a_key_has_one_partition_for_good(open_log: Open, event: Event) -> None:
    first, second = open_log(), open_log()
    places = defaultdict(set)
    for log in (first, second):
        for n, outcome in enumerate(log.append([event(n) for n in range(100)], clock).outcomes):
            assert isinstance(outcome, Position)
            places[n % 50].add(outcome.partition_id)
    assert {len(partitions) for partitions in places.values()} == {1}
    assert len(set.union(*places.values())) == 4


@pytest.mark.parametrize("page", [1, 7, 10_000])
def test_any_page_size_reads_the_same(open_log: Open, event: Event, page: int) -> None:
    log = open_log(2)
    log.append([event(n) for n in range(25)], clock)
    log.append([event(n) for n in range(25, 40)], clock)
    paged: dict[str, list[Any]] = defaultdict(list)
    for batch in read_all(log, page=page)[0]:
        paged[batch.partition_id] += zip(batch.offsets, batch.event_ids, batch.admitted_at.tolist(), strict=True)
    for info in log.partitions():
        whole = log.read(info.partition_id, None, 1000)
        assert paged[info.partition_id] == list(zip(whole.offsets, whole.event_ids, whole.admitted_at.tolist(), strict=True))


def test_a_big_batch(open_log: Open, event: Event) -> None:
    log = open_log(1)
    events = [event(n) for n in range(4100)]
    assert log.append(events, clock).appended == 4100
    batches, _ = read_all(log, page=1999)
    assert ids(batches) == [e.event_id for e in events]


def test_nothing_is_appended_by_an_empty_batch(open_log: Open) -> None:
    log = open_log()
    before = log.ends()
    assert log.append([], clock).outcomes == []
    assert log.ends() == before == start_of(log)


def test_the_head_is_an_empty_batch(open_log: Open, event: Event) -> None:
    log = open_log(1)
    (info,) = log.partitions()
    empty = log.read(info.partition_id, None, 10)
    assert len(empty) == 0
    assert empty.next == start_of(log).partitions[0]
    log.append([event(1)], clock)
    batch = log.read(info.partition_id, empty.next, 10)
    assert batch.event_ids == ["txn-000001"]
    again = log.read(info.partition_id, batch.next, 10)
    assert (len(again), again.next) == (0, batch.next)


def test_reading_goes_on_from_any_basis_in_another_process(open_log: Open, event: Event) -> None:
    log = open_log(1)
    log.append([event(n) for n in range(10)], clock)
    (info,) = log.partitions()
    at = log.read(info.partition_id, None, 4).next
    assert open_log(1).read(info.partition_id, at, 100).event_ids == [f"txn-{n:06d}" for n in range(4, 10)]


REFUSED: list[tuple[dict[str, Any], RefusalReason, str]] = [
    ({"event_id": 5}, RefusalReason.INVALID_ENVELOPE, "event_id"),
    ({"event_type": "Upper"}, RefusalReason.INVALID_ENVELOPE, "event_type"),
    ({"colour": "red"}, RefusalReason.INVALID_ENVELOPE, "colour"),
    ({"run_id": None}, RefusalReason.INVALID_ENVELOPE, "run_id"),
    ({"manifest_fingerprint": "a b"}, RefusalReason.INVALID_ENVELOPE, "manifest_fingerprint"),
    ({"payload": [1]}, RefusalReason.INVALID_ENVELOPE, "payload"),
    ({"ts_utc": "2024-05-01T10:00:00"}, RefusalReason.INVALID_TIME, "ts_utc"),
    ({"ts_utc": "2024-05-01T10:00:00.123456789Z"}, RefusalReason.INVALID_TIME, "ts_utc"),
    ({"ts_utc": "2024-06-30T23:59:60Z"}, RefusalReason.INVALID_TIME, "ts_utc"),
    ({"emitted_at_utc": 17}, RefusalReason.INVALID_TIME, "emitted_at_utc"),
    ({"payload": {"account_id": "a", "x": float("nan")}}, RefusalReason.NOT_I_JSON, "payload.x"),
    ({"payload": {"account_id": "a", "x": [2**53]}}, RefusalReason.NOT_I_JSON, "payload.x"),
    ({"payload": {"account_id": "\ud800"}}, RefusalReason.NOT_I_JSON, "payload.account_id"),
    ({"payload": {"account_id": "4111111111111111"}}, RefusalReason.RAW_IDENTIFIER, "payload.account_id"),
    ({"payload": {"account_id": "a", "b": [{"c": "4111 1111-1111 1111"}]}}, RefusalReason.RAW_IDENTIFIER, "payload.b[0].c"),
    ({"event_id": "4111111111111111"}, RefusalReason.RAW_IDENTIFIER, "event_id"),
    ({"payload": {"account_id": "a", "x": "é" * 500_000}}, RefusalReason.RECORD_TOO_LARGE, "payload"),
    ({"payload": {"amount_minor": 5}}, RefusalReason.MISSING_PARTITION_KEY, "payload.account_id"),
    ({"payload": {"account_id": ""}}, RefusalReason.MISSING_PARTITION_KEY, "payload.account_id"),
    ({"payload": {"account_id": 1.5}}, RefusalReason.MISSING_PARTITION_KEY, "payload.account_id"),
    ({"payload": {"account_id": "x" * 257}}, RefusalReason.MISSING_PARTITION_KEY, "payload.account_id"),
]


def test_each_record_is_appended_or_refused_with_a_reason(open_log: Open, event: Event) -> None:
    log = open_log()
    good = event(1).model_dump(exclude_none=True)
    batch: list[Any] = []
    for n, (change, _, _) in enumerate(REFUSED):
        batch += [{**good, **change}, event(n)]
    receipt = log.append([*batch, "not an object", {}], clock)
    outcomes = receipt.outcomes
    assert len(outcomes) == 2 * len(REFUSED) + 2
    for n, (_, reason, field) in enumerate(REFUSED):
        refusal = outcomes[2 * n]
        assert isinstance(refusal, RecordRefusal), REFUSED[n]
        assert (refusal.index, refusal.reason) == (2 * n, reason), REFUSED[n]
        assert refusal.message.startswith(f"{field}: "), refusal
        assert isinstance(outcomes[2 * n + 1], Position)
    assert [o.reason for o in outcomes[-2:] if isinstance(o, RecordRefusal)] == [RefusalReason.INVALID_ENVELOPE] * 2
    assert receipt.appended == len(REFUSED)
    assert sorted(ids(read_all(log)[0])) == [f"txn-{n:06d}" for n in range(len(REFUSED))]


def test_a_batch_of_refusals_appends_nothing(open_log: Open) -> None:
    log = open_log()
    assert log.append([{}, {}], clock).appended == 0
    assert log.ends() == start_of(log)


def test_without_a_clock_the_broker_says_when(open_log: Open, event: Event) -> None:
    log = open_log(1)
    log.append([event(1), event(2)])
    first, second = (read_all(log)[0][0] for _ in range(2))
    assert first.admitted_at.tolist() == second.admitted_at.tolist()
    assert parse_time("2024-06-01T00:00:00Z") <= first.admitted_at[0] <= first.admitted_at[1]


def test_ends_and_lag(open_log: Open, event: Event) -> None:
    log = open_log()
    start = start_of(log)
    assert log.retention_floor() == start
    log.append([event(n) for n in range(60)], clock)
    lag = log.ordinal_lag(start)
    assert sorted(lag) == [info.partition_id for info in log.partitions()]
    assert sum(lag.values()) == 60
    ends = log.ends()
    assert sum(log.ordinal_lag(ends).values()) == 0
    log.append([event(60)], clock)
    assert sum(log.ordinal_lag(ends).values()) == 1
    assert sum(log.ordinal_lag(make_basis(log.stream_name, {})).values()) == 61
    assert ids(read_all(log, ends)[0]) == ["txn-000060"]


def test_wait_returns_when_something_comes(open_log: Open, event: Event) -> None:
    log, other = open_log(), open_log()
    log.append([event(1)], clock)
    ends = log.ends()
    assert log.wait(start_of(log), 0)
    assert not log.wait(ends, 0)
    assert not log.wait(ends, 0.05)
    answers: list[bool] = []
    waiter = threading.Thread(target=lambda: answers.append(log.wait(ends, 60)))
    waiter.start()
    other.append([event(2)], clock)
    waiter.join(30)
    assert answers == [True]


# moto's PutRecords is not safe for concurrency (it says so), so it cannot be held to this
@pytest.mark.parametrize("open_log", ["postgres", "fake", "kafka", "kafka_mock"], indirect=True)
def test_two_appenders_and_a_reader_lose_nothing(open_log: Open, event: Event) -> None:
    logs = [open_log(3), open_log(3)]
    per_appender = 40
    errors: list[BaseException] = []
    acknowledged: list[Position | RecordRefusal] = []

    def run(number: int) -> None:
        try:
            for start in range(per_appender):
                first = (number * per_appender + start) * 7
                acknowledged.extend(logs[number].append([event(first + n) for n in range(7)], clock).outcomes)
        except BaseException as error:
            errors.append(error)

    reader = open_log(3)
    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    seen, basis = read_all(reader)
    while any(thread.is_alive() for thread in threads):
        more, basis = read_all(reader, basis, page=50)
        seen += more
    more, basis = read_all(reader, basis)
    seen += more
    for thread in threads:
        thread.join()
    assert errors == []
    total = 2 * per_appender * 7
    assert sorted(ids(seen)) == [f"txn-{n:06d}" for n in range(total)]
    offsets: dict[str, list[int | str]] = defaultdict(list)
    for batch in seen:
        offsets[batch.partition_id] += batch.offsets
    for numbers in offsets.values():
        if reader.position_kind.offset_kind.is_integer:
            assert numbers == list(range(len(numbers)))
        assert [order(offset) for offset in numbers] == sorted({order(offset) for offset in numbers})
    assert {(p.partition_id, p.offset) for p in acknowledged if isinstance(p, Position)} == {
        (name, offset) for name, numbers in offsets.items() for offset in numbers
    }


def test_what_read_does_not_accept(open_log: Open, event: Event) -> None:
    log = open_log(2)
    log.append([event(1)], clock)
    start = start_of(log).partitions
    with pytest.raises(ValueError, match="at least 1"):
        log.read(start[0].partition_id, None, 0)
    with pytest.raises(ValueError, match="is of partition"):
        log.read(start[0].partition_id, start[1], 10)
    other_kind = next(kind for kind in OffsetKind if kind is not log.position_kind.offset_kind)
    with pytest.raises(ValueError, match="offset kind"):
        log.read(start[0].partition_id, start[0].model_copy(update={"offset_kind": other_kind}), 10)
    with pytest.raises(PartitionNotFound, match="no-such"):
        log.read("no-such-partition", None, 10)


@pytest.mark.parametrize("open_log", ["postgres", "fake", "kafka", "kafka_mock"], indirect=True)  # moto takes any number
def test_a_position_of_another_log_is_refused(open_log: Open, event: Event) -> None:
    log = open_log(1)
    log.append([event(1)], clock)
    start = start_of(log).partitions[0]
    beyond = 10**12 if log.position_kind.offset_kind.is_integer else "9" * 56
    with pytest.raises(PositionUnknown):
        log.read(start.partition_id, start.model_copy(update={"offset": beyond}), 10)


def test_every_partition_of_a_fresh_stream_is_readable_at_once(open_log: Open) -> None:
    log = open_log()
    infos = log.partitions()
    assert [info.partition_id for info in infos] == sorted(info.partition_id for info in infos)
    assert readable_partitions(infos, start_of(log)) == [info.partition_id for info in infos]
    assert not any(info.closed or info.parents for info in infos)
