"""What only Kinesis does: splits, merges, expiry, throttling, trimming, records of other producers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

from ofp_platform.log.kinesis import KinesisLog, kinesis_client
from ofp_platform.log.port import (
    LogUnavailable,
    PartitionInfo,
    PositionTrimmed,
    PositionUnknown,
    RecordRefusal,
    RefusalReason,
    StreamNotFound,
    readable_partitions,
)
from ofp_platform.vocabulary.columns import EventColumns
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.position import PartitionBasis, Position, make_basis
from ofp_platform.vocabulary.times import parse_time

Event = Callable[..., Envelope]
KEY = "payload.account_id"
FIRST = "shardId-000000000000"


def clock(_: Envelope) -> int:
    return 1_700_000_000_000_000


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def log(fake_kinesis: Any, pauses: list[float]) -> KinesisLog:
    log = KinesisLog.create(fake_kinesis, "payments", 1, KEY, sleep=pauses.append, jitter=lambda: 1.0)
    pauses.clear()
    return log


def drain(log: KinesisLog) -> list[tuple[str, str]]:
    """Reads as a projector does: what is readable, until nothing moves. (shard, event id) in the order of reading."""
    known: dict[str, PartitionBasis] = {}
    seen: list[tuple[str, str]] = []
    moved = True
    while moved:
        moved = False
        for shard_id in readable_partitions(log.partitions(), make_basis(log.stream_name, known)):
            batch = log.read(shard_id, known.get(shard_id), 10)
            moved |= known.get(shard_id) != batch.next
            known[shard_id] = batch.next
            seen += [(shard_id, name) for name in batch.event_ids]
    return seen


def test_create_waits_until_the_stream_is_active(fake_kinesis: Any, pauses: list[float]) -> None:
    KinesisLog.create(fake_kinesis, "payments", 2, KEY, sleep=pauses.append)
    assert len(pauses) == 1
    again = KinesisLog.create(fake_kinesis, "payments", 5, KEY, sleep=pauses.append)
    assert len(again.partitions()) == 2


def test_a_stream_that_never_becomes_active(fake_kinesis: Any) -> None:
    fake_kinesis.statuses.clear()
    fake_kinesis.statuses.append("CREATING")
    with pytest.raises(LogUnavailable, match="does not become active"):
        KinesisLog.create(fake_kinesis, "payments", 2, KEY, sleep=lambda _: None)


def test_a_number_of_shards_that_is_refused(fake_kinesis: Any) -> None:
    fake_kinesis.errors.append(("create_stream", fake_kinesis.error("InvalidArgumentException")))
    with pytest.raises(ValueError, match="with 0 shards"):
        KinesisLog.create(fake_kinesis, "payments", 0, KEY)


def test_an_unknown_stream(fake_kinesis: Any) -> None:
    with pytest.raises(StreamNotFound, match="payments"):
        KinesisLog(fake_kinesis, "payments", KEY).partitions()


def test_the_data_of_a_record_is_canonical_json(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(3)], clock)
    log.append([event(4)])
    with_clock, without = (record["Data"] for record in fake_kinesis.shards[FIRST].records)
    expected = {"admitted_at_utc": "2023-11-14T22:13:20Z", "envelope": event(3).model_dump(exclude_none=True)}
    assert with_clock.decode() == json.dumps(expected, sort_keys=True, separators=(",", ":"))
    assert list(json.loads(without)) == ["envelope"]
    assert log.read(FIRST, None, 10).admitted_at.tolist() == [clock(event(3)), parse_time("2024-06-01T00:00:00Z")]


def test_columns_are_sent_as_their_records_are(fake_kinesis: Any, log: KinesisLog, columns: EventColumns) -> None:
    log.append(list(columns.records()), clock)
    by_records = [(record["PartitionKey"], record["Data"]) for record in fake_kinesis.shards[FIRST].records]
    log.append_columns(columns, np.full(len(columns), 1_700_000_000_000_000))
    sent = [(record["PartitionKey"], record["Data"]) for record in fake_kinesis.shards[FIRST].records]
    assert len(by_records) == 198
    assert sent == by_records * 2


def test_closing_closes_the_client(fake_kinesis: Any, log: KinesisLog) -> None:
    assert not fake_kinesis.closed
    log.close()
    assert fake_kinesis.closed


def test_a_partial_failure_is_sent_again_without_what_was_taken(
    fake_kinesis: Any, log: KinesisLog, event: Event, pauses: list[float]
) -> None:
    fake_kinesis.refused_entries.extend([{1, 3}, {0}])
    receipt = log.append([event(n) for n in range(5)], clock)
    assert receipt.appended == 5
    sizes = [len(arguments["Records"]) for operation, arguments in fake_kinesis.calls if operation == "put_records"]
    assert sizes == [5, 2, 1]
    assert pauses == [0.05, 0.1]
    batch = log.read(FIRST, None, 10)
    assert batch.event_ids == [f"txn-{n:06d}" for n in (0, 2, 4, 3, 1)]
    by_offset = dict(zip(batch.offsets, batch.event_ids, strict=True))
    places = [place for place in receipt.outcomes if isinstance(place, Position)]
    assert [by_offset[place.offset] for place in places] == [f"txn-{n:06d}" for n in range(5)]


def test_what_is_never_taken_is_refused_after_bounded_attempts(fake_kinesis: Any, event: Event, pauses: list[float]) -> None:
    log = KinesisLog.create(fake_kinesis, "s", 1, KEY, attempts=4, sleep=pauses.append, jitter=lambda: 0.5)
    pauses.clear()
    fake_kinesis.refused_entries.extend([{0, 2}, {0}, {0}, {0}])
    outcomes = log.append([event(0), {}, event(1), event(2)], clock).outcomes
    assert isinstance(outcomes[0], RecordRefusal)
    assert (outcomes[0].index, outcomes[0].reason) == (0, RefusalReason.LOG_UNAVAILABLE)
    assert outcomes[0].message.endswith(": ProvisionedThroughputExceededException")
    assert isinstance(outcomes[1], RecordRefusal)
    assert outcomes[1].reason is RefusalReason.INVALID_ENVELOPE
    assert [type(outcome) for outcome in outcomes[2:]] == [Position, Position]
    assert pauses == [0.025, 0.05, 0.1]
    assert sorted(log.read(FIRST, None, 10).event_ids) == ["txn-000001", "txn-000002"]


@pytest.mark.parametrize("transient", [True, False])
def test_a_request_that_fails_as_a_whole(fake_kinesis: Any, log: KinesisLog, event: Event, transient: bool) -> None:
    error: Exception = EndpointConnectionError(endpoint_url="http://nowhere")
    if not transient:
        error = fake_kinesis.error("AccessDeniedException")
    fake_kinesis.errors.append(("put_records", error))
    (outcome,) = log.append([event(1)], clock).outcomes
    if transient:
        assert isinstance(outcome, Position)
    else:
        assert isinstance(outcome, RecordRefusal)
        assert outcome.message == "Kinesis did not take the record: AccessDeniedException"


def test_requests_stay_within_the_limits_of_kinesis(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    large = "x" * 999_000
    events = [event(n, {"account_id": "a", "large": large}) for n in range(9)] + [event(n) for n in range(9, 1209)]
    assert log.append(events, clock).appended == 1209  # the fake asserts 500 records and 5 MiB a request
    seen: list[str] = drain_ids(log)
    assert seen == [f"txn-{n:06d}" for n in range(1209)]


def drain_ids(log: KinesisLog) -> list[str]:
    return [name for _, name in drain(log)]


def test_a_split_shard_closes_and_its_children_come_after_it(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(n) for n in range(30)], clock)
    left, right = fake_kinesis.split(FIRST)
    log.append([event(n) for n in range(30, 60)], clock)
    assert log.partitions() == [
        PartitionInfo(FIRST, (), True),
        PartitionInfo(left, (FIRST,), False),
        PartitionInfo(right, (FIRST,), False),
    ]
    assert readable_partitions(log.partitions(), make_basis("payments", {})) == [FIRST]
    seen = drain(log)
    assert [shard_id for shard_id, _ in seen[:30]] == [FIRST] * 30
    per_key: dict[int, list[str]] = {}
    for _, name in seen:
        per_key.setdefault(int(name[4:]) % 50, []).append(name)
    assert sum(map(len, per_key.values())) == 60
    assert all(names == sorted(names) for names in per_key.values())


def test_the_last_page_of_a_closed_shard_says_so(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(n) for n in range(3)], clock)
    half = log.read(FIRST, None, 2)
    fake_kinesis.split(FIRST)
    assert not half.next.closed
    last = log.read(FIRST, half.next, 10)
    assert last.event_ids == ["txn-000002"]
    assert last.next.closed
    assert last.next.offset == last.offsets[-1]
    calls = len(fake_kinesis.calls)
    ended = log.read(FIRST, last.next, 10)
    assert (len(ended), ended.next) == (0, last.next)
    assert len(fake_kinesis.calls) == calls
    assert log.ends().by_partition()[FIRST] == last.next
    assert log.ordinal_lag(make_basis("payments", {FIRST: last.next}))[FIRST] == 0


def test_a_shard_that_closes_after_its_last_record_was_read(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(1)], clock)
    batch = log.read(FIRST, None, 10)
    ends = make_basis("payments", {FIRST: batch.next})
    assert not log.wait(ends, 0)
    fake_kinesis.split(FIRST)
    assert log.wait(ends, 0)
    after = log.read(FIRST, batch.next, 10)
    assert (len(after), after.next) == (0, batch.next.model_copy(update={"closed": True}))


def test_merged_shards_are_both_parents_until_kinesis_forgets_them(fake_kinesis: Any, event: Event) -> None:
    log = KinesisLog.create(fake_kinesis, "payments", 2, KEY, sleep=lambda _: None)
    log.append([event(n) for n in range(20)], clock)
    merged = fake_kinesis.merge(*sorted(fake_kinesis.shards))
    log.append([event(n) for n in range(20, 40)], clock)
    assert log.partitions()[-1] == PartitionInfo(merged, tuple(sorted(fake_kinesis.shards)[:2]), False)
    seen = drain(log)
    assert len(seen) == 40
    assert {shard_id for shard_id, _ in seen[:20]}.isdisjoint({merged})
    del fake_kinesis.shards[FIRST]
    assert log.partitions()[-1].parents == (sorted(fake_kinesis.shards)[0],)


def test_expired_iterators_are_renewed(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(n) for n in range(6)], clock)
    first = log.read(FIRST, None, 3)
    fake_kinesis.expire_iterators()
    assert log.read(FIRST, first.next, 3).event_ids == ["txn-000003", "txn-000004", "txn-000005"]
    kinds = [a["ShardIteratorType"] for operation, a in fake_kinesis.calls if operation == "get_shard_iterator"]
    assert kinds == ["TRIM_HORIZON", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"]


def test_iterators_that_keep_expiring_end(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(1)], clock)
    expired = fake_kinesis.error("ExpiredIteratorException")
    fake_kinesis.errors.extend([("get_records", expired)] * 8)
    with pytest.raises(LogUnavailable, match="keep expiring"):
        log.read(FIRST, None, 3)


def test_one_iterator_serves_a_sequence_of_reads(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(n) for n in range(10)], clock)
    assert len(drain_ids(log)) == 10
    assert [operation for operation, _ in fake_kinesis.calls].count("get_shard_iterator") == 1


def test_empty_pages_on_the_way_are_not_the_head(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(1)], clock)
    fake_kinesis.empty_pages = 5
    assert log.read(FIRST, None, 10).event_ids == ["txn-000001"]


class Time:
    """A clock that moves when somebody sleeps, and a little with each request."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def test_empty_pages_without_end_are_no_head_and_are_paced(
    fake_kinesis: Any, log: KinesisLog, event: Event, pauses: list[float]
) -> None:
    log.append([event(1)], clock)
    fake_kinesis.empty_pages = 120
    before = len(fake_kinesis.calls)
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="50 empty pages"):
            log.read(FIRST, None, 10)
    assert len(pauses) == 98
    assert min(pauses) == 0.2
    # the third call goes on where the second ended: no page is asked for twice
    assert log.read(FIRST, None, 10).event_ids == ["txn-000001"]
    operations = [operation for operation, _ in fake_kinesis.calls[before:]]
    assert (operations.count("get_records"), operations.count("get_shard_iterator")) == (121, 1)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 3.0])
def test_wait_keeps_its_time_whatever_kinesis_answers(fake_kinesis: Any, event: Event, seconds: float) -> None:
    now = Time()
    log = KinesisLog.create(fake_kinesis, "payments", 2, KEY, sleep=now.sleep, monotonic=now, jitter=lambda: 1.0)
    log.append([event(n) for n in range(10)], clock)
    for trouble in ("empty", "throttled"):
        if trouble == "empty":
            fake_kinesis.empty_pages = 1_000_000
        else:
            throttled: ClientError = fake_kinesis.error("ProvisionedThroughputExceededException")
            fake_kinesis.errors.extend([("list_shards", throttled)] * 1_000)
        began, asked = now.now, len(fake_kinesis.calls)
        assert not log.wait(make_basis("payments", {}), seconds)
        assert now.now - began < seconds + 0.1
        assert len(fake_kinesis.calls) - asked < 10 + 10 * seconds


def test_a_list_of_shards_without_end_is_no_list(fake_kinesis: Any, log: KinesisLog) -> None:
    page = fake_kinesis.list_shards(StreamName="payments")
    calls: list[Any] = []

    def endless(**arguments: Any) -> dict[str, Any]:
        calls.append(arguments)
        return {**page, "NextToken": f"more-{len(calls)}"}

    fake_kinesis.list_shards = endless
    with pytest.raises(LogUnavailable, match="without end"):
        log.partitions()
    assert len(calls) == 100


def test_the_head_of_a_shard_that_never_rests_is_that_of_a_moment(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(0)], clock)
    get_records, written = fake_kinesis.get_records, [0]

    def busy(**arguments: Any) -> Any:
        response = get_records(**arguments)
        written[0] += 1
        log.append([event(written[0])], clock)
        return response

    fake_kinesis.get_records = busy
    log.ends()
    assert written == [1]


def test_throttled_reads_are_repeated_within_bounds(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(1)], clock)
    throttled: ClientError = fake_kinesis.error("ProvisionedThroughputExceededException")
    fake_kinesis.errors.extend([("get_records", throttled)] * 3 + [("get_records", fake_kinesis.error("Odd", 503))])
    assert len(log.read(FIRST, None, 10)) == 1
    fake_kinesis.errors.extend([("list_shards", throttled)] * 8)
    with pytest.raises(LogUnavailable, match=r"ProvisionedThroughputExceededException, 8 times"):
        log.partitions()
    fake_kinesis.errors.append(("list_shards", fake_kinesis.error("AccessDeniedException")))
    with pytest.raises(LogUnavailable, match="AccessDeniedException"):
        log.partitions()


def test_a_trimmed_position_is_refused_and_no_gap_is_skipped(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(n) for n in range(6)], clock)
    batch = log.read(FIRST, None, 2)
    fake_kinesis.trim(FIRST, 4)
    elsewhere = KinesisLog(fake_kinesis, "payments", KEY)
    with pytest.raises(PositionTrimmed, match=str(batch.next.offset)):
        elsewhere.read(FIRST, batch.next, 10)
    assert elsewhere.read(FIRST, None, 10).event_ids == ["txn-000004", "txn-000005"]
    fake_kinesis.trim(FIRST, 2)
    with pytest.raises(PositionTrimmed, match="cannot be told"):
        elsewhere.read(FIRST, batch.next, 10)


@pytest.mark.parametrize("gone", [True, False])
def test_a_stream_made_again_that_counts_anew_is_another(fake_kinesis: Any, log: KinesisLog, event: Event, gone: bool) -> None:
    """As a stand-in of Kinesis that keeps its records in memory does; Kinesis itself gives a number once."""
    assert log.append([event(n) for n in range(3)], clock).appended == 3
    basis = log.read(FIRST, None, 10).next
    assert len(log.read(FIRST, basis, 10)) == 0  # the head is seen
    shards = fake_kinesis.shards
    if gone:
        fake_kinesis.shards = {}
        with pytest.raises(StreamNotFound):
            log.partitions()
    else:
        fake_kinesis.errors.extend([("get_records", ConnectionClosedError(endpoint_url="any"))] * 8)
        with pytest.raises(LogUnavailable):
            log.read(FIRST, basis, 10)
    fake_kinesis.shards = shards
    fake_kinesis.pass_time(hours=1)
    for record in shards[FIRST].records:
        record["ApproximateArrivalTimestamp"] = fake_kinesis.now
    with pytest.raises(PositionUnknown, match="another stream of that name"):
        log.read(FIRST, basis, 10)


def test_records_of_others_are_unreadable_never_a_gap(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    good = event(1).model_dump(exclude_none=True)
    card = {**good, "payload": {"account_id": "4111111111111111"}}
    for data in (
        b"\xff not json",
        b"[]",
        json.dumps(good).encode(),
        json.dumps({"envelope": good, "admitted_at_utc": "yesterday"}).encode(),
        json.dumps({"envelope": {}}).encode(),
        json.dumps({"envelope": card}).encode(),
        json.dumps({"envelope": good, "other": 1}).encode(),
        *(
            json.dumps({"envelope": good}).replace(begin, "{" + member + ", " + begin[1:], 1).encode()
            for begin, member in (
                ('{"envelope"', '"envelope": {}'),
                ('{"event_id"', '"event_id": "first"'),
                ('{"account_id"', '"\\u0061ccount_id": "first"'),
                ('{"account_id"', '"x": [{"y": 1, "y": 1}]'),
                ('{"account_id"', '"x": NaN'),
                ('{"account_id"', '"x": "\\ud800"'),
                ('{"account_id"', '"x": 18446744073709551616'),
                ('{"account_id"', '"x": "PAN=4111111111111111"'),
            )
        ),
    ):
        fake_kinesis.put("a", data)
    batch = log.read(FIRST, None, 100)
    assert len(batch) == 0
    assert [record.reason for record in batch.unreadable] == [
        RefusalReason.INVALID_ENVELOPE,
        RefusalReason.INVALID_ENVELOPE,
        RefusalReason.INVALID_ENVELOPE,
        RefusalReason.INVALID_TIME,
        RefusalReason.INVALID_ENVELOPE,
        RefusalReason.RAW_IDENTIFIER,
        RefusalReason.INVALID_ENVELOPE,
        *[RefusalReason.NOT_I_JSON] * 7,
        RefusalReason.RAW_IDENTIFIER,
    ]
    assert "4111" not in str(batch.unreadable)
    assert batch.next.offset == batch.unreadable[-1].offset
    log.append([event(2)], clock)
    fake_kinesis.put("a", b"")
    mixed = log.read(FIRST, batch.next, 100)
    assert mixed.event_ids == ["txn-000002"]
    assert mixed.next.offset == mixed.unreadable[0].offset


def test_the_shards_are_listed_over_pages(fake_kinesis: Any) -> None:
    log = KinesisLog.create(fake_kinesis, "payments", 8, KEY, sleep=lambda _: None)
    assert len(log.partitions()) == 8


def test_lag_sees_one_page_and_ends_goes_on_from_where_it_was(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    log.append([event(n) for n in range(10)], clock)
    assert log.ordinal_lag(make_basis("payments", {})) == {FIRST: 10}
    ends = log.ends()
    before = len(fake_kinesis.calls)
    assert log.ends() == ends
    assert [operation for operation, _ in fake_kinesis.calls[before:]] == ["list_shards", "get_records"]


def test_wait_polls_with_the_clock_it_was_given(fake_kinesis: Any) -> None:
    now = [0.0]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    log = KinesisLog.create(fake_kinesis, "payments", 1, KEY, poll_seconds=1.0, sleep=sleep, monotonic=lambda: now[0])
    pauses.clear()
    assert not log.wait(log.ends(), 2.5)
    assert pauses == [1.0, 1.0, 0.5]


@pytest.mark.usefixtures("moto_server")
@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nServ", b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{"Re', b""])
def test_an_answer_that_is_cut_short_or_does_not_come_is_no_answer(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofp_platform.log.kinesis.ANSWER_SECONDS", 0.3)
    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)
                if not answer:
                    asked.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        client = kinesis_client(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(ConnectionClosedError if answer else ReadTimeoutError):
            client.list_shards(StreamName="s")
        asked.set()
        thread.join()
        client.close()


def test_a_record_that_the_producer_library_packed_is_named_and_stops_nothing(
    fake_kinesis: Any, log: KinesisLog, event: Event
) -> None:
    log.append([event(1)], clock)
    packed = b"\xf3\x89\x9a\xc2" + b'{"envelope": {}}' + bytes(16)
    fake_kinesis.put("acc-1", packed)
    log.append([event(2)], clock)
    batch = log.read(FIRST, None, 10)
    assert batch.event_ids == ["txn-000001", "txn-000002"]
    (unreadable,) = batch.unreadable
    assert (unreadable.reason, unreadable.offset) == (
        RefusalReason.AGGREGATED_RECORD,
        fake_kinesis.shards[FIRST].records[1]["SequenceNumber"],
    )
    assert "switch its aggregation off" in unreadable.message


def test_how_much_of_the_retention_is_used(fake_kinesis: Any, log: KinesisLog, event: Event) -> None:
    start = make_basis("payments", {FIRST: log.position_kind.start(FIRST)})
    assert log.retention_used(start) == {FIRST: 0.0}
    log.append([event(1)], clock)
    fake_kinesis.pass_time(hours=12)
    log.append([event(2)], clock)
    assert log.retention_used(start) == {FIRST: 0.5}
    assert log.retention_used(log.ends()) == {FIRST: 0.0}
    fake_kinesis.pass_time(hours=13)
    assert log.retention_used(start) == {FIRST: 1.0}


def test_the_retention_is_raised_and_never_lowered(fake_kinesis: Any, log: KinesisLog) -> None:
    log.keep_for(168)
    log.keep_for(24)
    assert log.retention_hours() == fake_kinesis.retention_hours == 168
