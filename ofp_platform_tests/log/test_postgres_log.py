"""What only the log in PostgreSQL does: blocks, dense offsets, retention, an outage."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psycopg
import pytest

from ofp_platform.log import postgres
from ofp_platform.log.block import encode
from ofp_platform.log.port import (
    LogUnavailable,
    PartitionNotFound,
    PartitionRequest,
    PositionTrimmed,
    PositionUnknown,
    StreamNotFound,
)
from ofp_platform.log.postgres import PostgresLog, clock_behind_us
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.columns import EventColumns
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, Position, make_basis
from ofp_platform_tests.oracle.failover import end_sessions

Event = Callable[..., Envelope]


def clock(_: Envelope) -> int:
    return 1_700_000_000_000_000


def at(log: PostgresLog, offset: int, partition_id: str = "0000") -> Basis:
    part = PartitionBasis(partition_id=partition_id, offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=offset)
    return make_basis(log.stream_name, {partition_id: part})


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=4) as pool:
        yield pool


@pytest.fixture
def log(pool: Pool) -> PostgresLog:
    return PostgresLog.create(pool, "payments", 1, "payload.account_id")


def test_create_is_idempotent_and_open_finds_it(pool: Pool) -> None:
    created = PostgresLog.create(pool, "s", 12, "payload.card_id")
    again = PostgresLog.create(pool, "s", 12, "payload.card_id")
    opened = PostgresLog.open(pool, "s")
    assert created.partitions() == again.partitions() == opened.partitions()
    assert [info.partition_id for info in opened.partitions()][-1] == "0011"
    assert opened.partition_key == "payload.card_id"


@pytest.mark.parametrize(("partitions", "key"), [(3, "payload.card_id"), (2, "payload.account_id")])
def test_the_partitioning_of_a_stream_never_changes(pool: Pool, partitions: int, key: str) -> None:
    PostgresLog.create(pool, "s", 2, "payload.card_id")
    with pytest.raises(ValueError, match="never changes"):
        PostgresLog.create(pool, "s", partitions, key)
    assert len(PostgresLog.open(pool, "s").ends().partitions) == 2


@pytest.mark.parametrize(("name", "partitions"), [("with space", 1), ("", 1), ("s", 0), ("s", 10_001)])
def test_what_is_no_stream(pool: Pool, name: str, partitions: int) -> None:
    with pytest.raises(ValueError):
        PostgresLog.create(pool, name, partitions, "event_id")


def test_an_unknown_stream_and_a_database_without_a_log(pool: Pool, empty_dsn: str) -> None:
    with pytest.raises(StreamNotFound, match="`ofp projector run` creates it"):
        PostgresLog.open(pool, "nothing")
    with open_pool(empty_dsn) as empty, pytest.raises(psycopg.errors.UndefinedTable):
        PostgresLog.open(empty, "nothing")


def test_the_partition_is_the_crc_of_the_key(pool: Pool, event: Event) -> None:
    log = PostgresLog.create(pool, "s", 7, "payload.account_id")
    keys = ["acc-1", "Zoë", "日本"]
    placed = log.append([event(n, {"account_id": key}) for n, key in enumerate(keys)], clock).outcomes
    for key, position in zip(keys, placed, strict=True):
        assert isinstance(position, Position)
        assert position.partition_id == f"{zlib.crc32(key.encode('utf-8')) % 7:04d}"


def test_streams_of_one_database_do_not_see_each_other(pool: Pool, log: PostgresLog, event: Event) -> None:
    other = PostgresLog.create(pool, "other", 1, "payload.account_id")
    log.append([event(1)], clock)
    assert other.ends() == other.retention_floor()
    assert not other.wait(other.ends(), 0)


def test_a_block_holds_at_most_2000_records_and_says_what_it_holds(pool: Pool, log: PostgresLog, event: Event) -> None:
    times = iter(range(10_000, 0, -2))
    log.append([event(n) for n in range(4500)], lambda _: next(times))
    with pool.connection() as connection:
        rows = connection.execute(
            "SELECT first_offset, record_count, first_admitted, last_admitted FROM ofp.log_block ORDER BY first_offset"
        ).fetchall()
    assert rows == [(0, 2000, 6002, 10_000), (2000, 2000, 2002, 6000), (4000, 500, 1002, 2000)]


def test_columns_make_the_blocks_that_their_records_make(pool: Pool, columns: EventColumns) -> None:
    logs = [PostgresLog.create(pool, name, 3, "payload.account_id") for name in ("records", "columns")]
    times = np.arange(len(columns), dtype=np.int64) + 10**15
    at = dict(zip(columns.event_ids, times.tolist(), strict=True))
    placed = [
        logs[0].append(list(columns.records()), lambda envelope: at[envelope.event_id]).placed,
        logs[1].append_columns(columns, times).placed,
    ]
    assert placed[0] == placed[1]
    with pool.connection() as connection:
        query = "SELECT to_jsonb(log_block) - 'stream_name' FROM ofp.log_block WHERE stream_name = %s ORDER BY partition_id"
        stored = [connection.execute(query, (log.stream_name,)).fetchall() for log in logs]
    assert len(stored[0]) == 3
    assert stored[0] == stored[1]


def test_columns_that_fail_leave_no_trace(pool: Pool, columns: EventColumns) -> None:
    log = PostgresLog.create(pool, "s", 3, "payload.account_id")
    with pool.connection() as connection:
        connection.execute("ALTER TABLE ofp.log_block ADD CHECK (partition_id <> '0002')")
    with pytest.raises(psycopg.errors.CheckViolation):
        log.append_columns(columns, np.zeros(len(columns), np.int64))
    assert log.ends() == log.retention_floor()
    with pool.connection() as connection:
        assert connection.execute("SELECT count(*) FROM ofp.log_block").fetchone() == (0,)


def test_an_append_that_fails_leaves_no_trace(pool: Pool, event: Event) -> None:
    log = PostgresLog.create(pool, "s", 4, "payload.account_id")
    with pool.connection() as connection:
        connection.execute("ALTER TABLE ofp.log_block ADD CHECK (partition_id <> '0003')")
    with pytest.raises(psycopg.errors.CheckViolation):
        log.append([event(n) for n in range(50)], clock)
    assert log.ends() == log.retention_floor()
    with pool.connection() as connection:
        assert connection.execute("SELECT count(*) FROM ofp.log_block").fetchone() == (0,)


def test_many_appenders_over_many_partitions_do_not_deadlock(pool: Pool, event: Event) -> None:
    log = PostgresLog.create(pool, "s", 6, "payload.account_id")
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for step in range(20):
                events = [event(number * 1000 + step * 30 + n) for n in range(30)]
                log.append(events if number % 2 else events[::-1], clock)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sum(log.ordinal_lag(make_basis("s", {})).values()) == 4 * 20 * 30


def test_retention_moves_the_floor_and_keeps_what_is_behind_it(pool: Pool, log: PostgresLog, event: Event) -> None:
    for start in (0, 10, 20):
        log.append([event(n) for n in range(start, start + 10)], clock)
    log.truncate_before(at(log, 14))
    assert log.retention_floor() == at(log, 14)
    with pool.connection() as connection:
        assert connection.execute("SELECT min(first_offset) FROM ofp.log_block").fetchone() == (10,)
    for gone in (0, 9, 13):
        with pytest.raises(PositionTrimmed, match="from offset 14"):
            log.read("0000", at(log, gone).partitions[0], 100)
    for basis in (None, at(log, 14).partitions[0]):
        assert log.read("0000", basis, 100).offsets == list(range(14, 30))
    log.truncate_before(at(log, 3))  # never down again
    assert log.retention_floor() == at(log, 14)


def test_truncated_to_the_head_it_goes_on(log: PostgresLog, event: Event) -> None:
    log.append([event(n) for n in range(5)], clock)
    log.truncate_before(log.ends())
    assert len(log.read("0000", None, 10)) == 0
    assert log.read("0000", None, 10).next == log.ends().partitions[0]
    log.append([event(5)], clock)
    assert log.read("0000", None, 10).offsets == [5]


@pytest.mark.parametrize(("partition_id", "offset"), [("0000", 2), ("0009", 0)])
def test_retention_past_the_head_is_refused(log: PostgresLog, event: Event, partition_id: str, offset: int) -> None:
    log.append([event(1)], clock)
    with pytest.raises(PositionUnknown):
        log.truncate_before(at(log, offset, partition_id))
    assert log.retention_floor() == at(log, 0)


def test_a_block_of_a_newer_version_is_refused(pool: Pool, log: PostgresLog, event: Event) -> None:
    log.append([event(1)], clock)
    with pool.connection() as connection:
        connection.execute("UPDATE ofp.log_block SET codec = 99")
    with pytest.raises(ValueError, match="codec 99"):
        log.read("0000", None, 10)


def test_an_outage_is_retryable_and_over_by_itself(dsn: str, event: Event) -> None:
    with open_pool(dsn, max_size=2) as pool:
        log = PostgresLog.create(pool, "s", 1, "payload.account_id")
        database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        server = psycopg.conninfo.make_conninfo(dsn, dbname="postgres", user="postgres")
        with psycopg.connect(server, autocommit=True) as operator:
            operator.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
            end_sessions(operator, str(database))
            pool.timeout = 0.3
            for call in (
                lambda: log.append([event(1)], clock),
                lambda: log.append([event(1)]),
                lambda: log.read("0000", None, 1),
                log.ends,
                lambda: log.wait(at(log, 0), 1),
            ):
                with pytest.raises(LogUnavailable, match="does not answer"):
                    call()
            operator.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
        pool.timeout = 30
        assert log.append([event(1)], clock).appended == 1


def test_who_waits_looks_without_a_notice_too(
    pool: Pool, log: PostgresLog, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    PostgresLog.create(pool, "other", 1, "payload.account_id").append([event(1)], clock)
    ends, bounds, looked = log.ends(), log._bounds, threading.Event()

    def watched(column: str, connection: psycopg.Connection | None = None) -> Basis:
        basis = bounds(column, connection)
        looked.set()
        return basis

    monkeypatch.setattr(log, "_bounds", watched)
    answers: list[bool] = []
    waiter = threading.Thread(target=lambda: answers.append(log.wait(ends, 60)))
    waiter.start()
    assert looked.wait(30)
    with pool.connection() as connection, connection.transaction():  # an append, all but the notice
        connection.execute(
            "INSERT INTO ofp.log_block SELECT (jsonb_populate_record(b, jsonb_build_object('stream_name', 'payments'))).*"
            " FROM ofp.log_block AS b WHERE stream_name = 'other'"
        )
        connection.execute("UPDATE ofp.log_head SET next_offset = 1 WHERE stream_name = 'payments'")
    waiter.join(30)
    assert answers == [True]


def test_notices_of_other_streams_are_no_reason_to_look(
    pool: Pool, log: PostgresLog, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, looks, bounds = PostgresLog.create(pool, "others", 1, "payload.account_id"), [], log._bounds

    def counted(column: str, connection: psycopg.Connection | None = None) -> Basis:
        looks.append(column)
        other.append([event(len(looks))], clock)  # heard by who waits, who listens by now
        return bounds(column, connection)

    monkeypatch.setattr(log, "_bounds", counted)
    assert not log.wait(at(log, 0), 0.2)
    assert len(looks) <= 3, looks  # at the beginning, at the end, and where the time was not quite over


def test_waiting_leaves_no_listener_behind(dsn: str) -> None:
    with open_pool(dsn, max_size=1) as pool:
        log = PostgresLog.create(pool, "s", 1, "payload.account_id")
        assert not log.wait(log.ends(), 0)
        with pool.connection() as connection:
            assert connection.execute("SELECT pg_listening_channels()").fetchall() == []


def test_appends_of_many_threads_share_commits_and_are_dense(pool: Pool, event: Event) -> None:
    log = PostgresLog.create(pool, "s", 3, "payload.account_id")
    count, threads = 20, 12
    with ThreadPoolExecutor(threads) as executor:
        runs = [
            executor.submit(lambda run: [log.append([event(run * count + n)], clock).placed[0] for n in range(count)], number)
            for number in range(threads)
        ]
        placed = [place for run in runs for place in run.result(60)]
    ends = {name: int(part.offset) for name, part in log.ends().by_partition().items()}
    assert sorted(placed) == [(name, offset) for name in sorted(ends) for offset in range(ends[name])]
    for number, (name, offset) in enumerate(placed):
        batch = log.read(name, at(log, offset, name).partitions[0], 1)
        assert batch.event_ids == [event(number).event_id]


def test_a_large_append_takes_several_statements_of_one_transaction(
    pool: Pool, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ofp_platform.log.postgres._STATEMENT_BYTES", 1)
    log = PostgresLog.create(pool, "s", 3, "payload.account_id")
    receipts = [log.append([event(n) for n in range(first, first + 2100)], clock) for first in (0, 2100)]
    assert {place for receipt in receipts for place in receipt.placed} == {
        (name, offset) for name, part in log.ends().by_partition().items() for offset in range(int(part.offset))
    }
    with pool.connection() as connection:
        connection.execute("ALTER TABLE ofp.log_block ADD CHECK (partition_id <> '0002') NOT VALID")
    ends = log.ends()
    with pytest.raises(psycopg.errors.CheckViolation):
        log.append([event(n) for n in range(50)], clock)
    assert log.ends() == ends


def test_a_partition_that_is_gone_takes_nothing_with_it(pool: Pool, event: Event) -> None:
    log = PostgresLog.create(pool, "s", 3, "payload.account_id")
    with pool.connection() as connection:
        connection.execute("DELETE FROM ofp.log_head WHERE partition_id = '0001'")
    with pytest.raises(StreamNotFound, match="nothing was appended"):
        log.append([event(n) for n in range(50)], clock)
    assert {part.offset for part in log.ends().partitions} == {0}
    with pool.connection() as connection:
        assert connection.execute("SELECT count(*) FROM ofp.log_block").fetchone() == (0,)


def test_many_partitions_are_read_by_one_statement_as_each_is_by_itself(pool: Pool, event: Event) -> None:
    log = PostgresLog.create(pool, "many", 7, "payload.account_id")
    log.append([event(n) for n in range(300)], clock)
    log.truncate_before(at(log, 3, "0002"))
    starts = [PartitionRequest(log.position_kind.basis(f"000{n}", min(n, 4) + (n == 2)), 5 + 3 * n) for n in (6, 0, 2, 5)]
    batches = log.read_many(starts)
    assert [batch.partition_id for batch in batches] == ["0006", "0000", "0002", "0005"]
    for request, batch in zip(starts, batches, strict=True):
        alone = log.read(request.basis.partition_id, request.basis, request.max_records)
        assert (batch.offsets, batch.event_ids, batch.payloads, batch.next) == (
            alone.offsets,
            alone.event_ids,
            alone.payloads,
            alone.next,
        )
        assert len(batch) == request.max_records


@pytest.mark.parametrize(
    ("partition_id", "offset", "error"),
    [("0001", 1, PositionTrimmed), ("0001", 10_000, PositionUnknown), ("0009", 0, PartitionNotFound)],
)
def test_one_partition_that_cannot_be_read_fails_the_reading_of_many(
    pool: Pool, event: Event, partition_id: str, offset: int, error: type[Exception]
) -> None:
    log = PostgresLog.create(pool, "many", 3, "payload.account_id")
    log.append([event(n) for n in range(100)], clock)
    log.truncate_before(at(log, 3, "0001"))
    wrong = PartitionRequest(log.position_kind.basis(partition_id, offset), 5)
    with pytest.raises(error):
        log.read_many([PartitionRequest(log.position_kind.basis("0000", 0), 5), wrong])


def _stepped_back(text: str) -> str:
    return text.replace("clock_timestamp()", "(clock_timestamp() - interval '1 hour')")


def _times(log: PostgresLog) -> dict[str, list[int]]:
    return {info.partition_id: log.read(info.partition_id, None, 1_000).admitted_at.tolist() for info in log.partitions()}


def test_admission_times_do_not_run_backwards_with_a_clock_that_steps_back(
    pool: Pool, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = PostgresLog.create(pool, "payments", 4, "payload.account_id")
    log.append([event(number) for number in range(20)])
    before = _times(log)
    latest = max(time for times in before.values() for time in times)
    assert clock_behind_us(pool, "payments") == 0
    for name in ("_BROKER_TIME", "_CLOCK_BEHIND"):
        monkeypatch.setattr(postgres, name, _stepped_back(getattr(postgres, name)))
    assert 3_500_000_000 < clock_behind_us(pool, "payments") <= 3_600_000_000
    log.append([event(number) for number in range(20, 60)])
    after = _times(log)
    for name, times in after.items():
        assert times[: len(before[name])] == before[name]
        assert set(times[len(before[name]) :]) <= {latest}
    other = PostgresLog.open(pool, "payments")
    assert _times(other) == after
    monkeypatch.undo()
    assert clock_behind_us(pool, "payments") == 0
    log.append([event(100)])
    assert max(time for times in _times(log).values() for time in times) > latest


def test_a_writer_that_looked_at_the_clock_too_early_admits_no_earlier(
    pool: Pool, event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = PostgresLog.create(pool, "payments", 1, "payload.account_id")
    times = iter([2_000_000_000_000_000, 1_000_000_000_000_000, 1_500_000_000_000_000])
    monkeypatch.setattr(PostgresLog, "_broker_time", lambda _self: next(times))
    for number in range(3):
        log.append([event(number)])
    assert set(_times(log)["0000"]) == {2_000_000_000_000_000}
    with pool.connection() as connection:
        rows = connection.execute("SELECT DISTINCT first_admitted, last_admitted FROM ofp.log_block").fetchall()
    assert rows == [(2_000_000_000_000_000, 2_000_000_000_000_000)]


def test_several_blocks_of_one_statement_are_in_order(pool: Pool, event: Event) -> None:
    log = PostgresLog.create(pool, "payments", 1, "payload.account_id")
    blocks = []
    for number, time in enumerate((3_000_000, 1_000_000, 2_000_000, 4_000_000)):
        records = log._admission.admit_batch([event(number)], None).records
        blocks.append(("0000", encode(records.take([0]), [time], is_declared=False)))
    log._write(blocks)
    assert _times(log)["0000"] == [3_000_000, 3_000_000, 3_000_000, 4_000_000]


def test_declared_times_are_those_of_whoever_declares_them(pool: Pool, event: Event) -> None:
    log = PostgresLog.create(pool, "payments", 1, "payload.account_id")
    declared = iter([4_000_000_000_000_000, 1_000_000])
    log.append([event(0)], lambda _: next(declared))
    log.append([event(1)])
    log.append([event(2)], lambda _: next(declared))
    far, now, early = _times(log)["0000"]
    assert (far, early) == (4_000_000_000_000_000, 1_000_000)
    assert early < now < far  # history that was loaded does not move the broker's clock
