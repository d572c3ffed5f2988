"""What a commit records: failures, anomalies, counters, the horizon; and what may not move the basis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from ofp_platform.online.projecting import projector as projector_module
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.online.projecting.projector_settings import ProjectorSettings
from ofp_platform.online.state.projection import ProjectionConflict, open_projection
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, Position, make_basis
from ofp_platform_tests.oracle.failover import end_sessions
from ofp_platform_tests.oracle.fold import micros, time_text
from ofp_platform_tests.oracle.small_plane import ADMITTED, RUN_CONFIG, SmallPlane, envelope, payment, small_registry
from ofp_platform_tests.oracle.strategies import LATENESS, LIMIT, PINS, SECOND, SKEW, START

KEPT = small_registry().reach + LATENESS
GROUPS = [("every", "v1"), ("lists", "v1"), ("ratios", "v2"), ("switches", "v1"), ("texts", "v1"), ("whole", "v1")]
EVERY = ", ".join(" ".join(group) for group in GROUPS)


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn) as opened:
        yield opened


def rows(plane: SmallPlane, query: str) -> list[tuple[Any, ...]]:
    with plane.pool.connection() as connection:
        return connection.execute(f"{query} WHERE projection_id = %s ORDER BY 1, 2", (plane.projection_id,)).fetchall()


def counters(plane: SmallPlane) -> dict[str, tuple[int, ...]]:
    """Per partition: records, applied, duplicates, late, failed, ignored."""
    columns = "partition_id, partition_number, records, applied, duplicates, late, failed, ignored"
    return {row[0]: row[2:] for row in rows(plane, f"SELECT {columns} FROM ofp.projection_partition")}


def failures(plane: SmallPlane) -> list[tuple[Any, ...]]:
    """Partition, offset, event id, event type, reason."""
    return rows(plane, "SELECT partition_id, record_offset, event_id, event_type, reason FROM ofp.apply_failure")


def without(event: dict[str, Any], name: str) -> dict[str, Any]:
    return {**event, "payload": {key: value for key, value in event["payload"].items() if key != name}}


def test_what_cannot_be_applied_is_recorded_with_position_and_reason_and_the_basis_passes_it(pool: Pool) -> None:
    plane = SmallPlane(pool, "failures", partitions=1)
    good = payment("good", 0)
    events = [
        (good, None),
        (without(payment("no-key", 0), "account_id"), "MISSING_KEY"),
        (payment("null-key", 0, merchant_id=None), "MISSING_KEY"),
        (payment("space", 0, account_id="a 1"), "INVALID_KEY"),
        (payment("number-key", 0, account_id=7), "WRONG_TYPE"),
        (without(payment("no-field", 0), "status"), "MISSING_FIELD"),
        (payment("float", 0, amount=1.5), "WRONG_TYPE"),
        (payment("text", 0, amount="7"), "WRONG_TYPE"),
        (payment("truth", 0, amount=True), "WRONG_TYPE"),
        (payment("long", 0, shop="é" * 32 + "x"), "TEXT_TOO_LONG"),
        (payment("future", 0) | {"ts_utc": time_text(ADMITTED + SKEW + 1)}, "FUTURE_EVENT"),
        (payment("in-2099", 0) | {"ts_utc": "2099-01-01T00:00:00Z"}, "FUTURE_EVENT"),
        (payment("foreign", 0) | {"run_id": "run-2"}, "INACTIVE_RUN"),
        (payment("seeded", 0) | {"seed": 1}, "WRONG_PINS"),
    ]
    ignored = [
        envelope("never_heard_of", "unknown", 0, {}),
        without(payment("unread-field", 1, unread="no integer"), "unread"),
        payment("unread-wrong", 2, unread="no integer"),
        payment("nearly-future", 0) | {"ts_utc": time_text(ADMITTED + SKEW)},
    ]
    plane.append([event for event, _ in events] + ignored)
    receipts = plane.drain()
    wanted = [
        ("0000", str(offset), event["event_id"], event["event_type"], reason)
        for offset, (event, reason) in enumerate(events)
        if reason
    ]
    assert sorted(failures(plane)) == sorted(wanted)
    # the nine that are at fault for some groups feed the others: the shop's need no account, the accounts' no merchant
    assert receipts[0].failures == {"FUTURE_EVENT": 2, "INACTIVE_RUN": 1, "WRONG_PINS": 1}
    assert receipts[0].group_failures == {
        "MISSING_KEY": 2,
        "INVALID_KEY": 1,
        "WRONG_TYPE": 4,
        "MISSING_FIELD": 1,
        "TEXT_TOO_LONG": 1,
    }
    assert counters(plane) == {"0000": (len(events) + len(ignored), 4 + 9, 0, 0, 4, 1)}
    assert rows(plane, "SELECT partition_id, partial FROM ofp.projection_partition") == [("0000", 9)]
    concerned = dict(rows(plane, "SELECT record_offset, groups FROM ofp.apply_failure"))
    assert concerned["9"] == "lists v1, texts v1"  # the others count the different ones, however long
    assert (concerned["1"], concerned["2"], concerned["10"]) == (EVERY, "shop v1", "")
    assert plane.row().basis == plane.log.ends()
    details = rows(plane, "SELECT record_offset, event_type, detail, ts FROM ofp.apply_failure")
    assert not any("a 1" in detail or "1.5" in detail for _, _, detail, _ in details)
    assert [ts for offset, _, _, ts in details if offset == "11"] == [micros("2099-01-01T00:00:00Z")]
    assert plane.row().watermark == ADMITTED + SKEW


def test_an_integer_out_of_range_never_enters_and_the_bounds_do(pool: Pool) -> None:
    plane = SmallPlane(pool, "range", partitions=1)
    plane.append([payment("e-1", 0, amount=LIMIT), payment("e-2", 0, amount=-LIMIT)])
    refusals = plane.log.append([payment("e-3", 0, amount=LIMIT + 1)], lambda _: ADMITTED).refusals
    assert [refusal.reason.value for refusal in refusals] == ["NOT_I_JSON"]
    assert [receipt.applied for receipt in plane.drain()] == [2]


def test_an_event_of_another_active_run_is_ignored_and_touches_nothing(pool: Pool) -> None:
    plane = SmallPlane(pool, "runs", partitions=1)
    other = ContextPins(**{**PINS, "run_id": "run-2"})
    with pool.connection() as connection:
        open_projection(connection, "runs", other, plane.registry, RUN_CONFIG, status="live")
    plane.append([payment("e-1", 0), payment("e-2", 5 * SECOND) | {"run_id": "run-2"}])
    (receipt,) = plane.drain()
    assert (receipt.applied, receipt.ignored, dict(receipt.failures)) == (1, 1, {})
    assert receipt.watermark == START
    assert failures(plane) == []


@pytest.mark.parametrize("batch", [1, 2, 100])
@pytest.mark.parametrize("restarting", [True, False])
def test_copies_and_anomalies_are_found_across_batches_partitions_and_restarts(pool: Pool, batch: int, restarting: bool) -> None:
    plane = SmallPlane(pool, "identities", partitions=2)
    refund = envelope("refund", "e-1", 0, {"account_id": "a-1", "amount": 1, "shop": "x"})
    report = envelope("report", "e-1", 0, {"account_id": "a-1", "merchant_id": "m-1"})
    positions = plane.append(
        [
            payment("e-1", 0),
            payment("e-1", 0),
            payment("e-1", 0, amount=8),
            report,
            payment("e-1", 1),
            refund,
            payment("e-1", 0, amount=8),
        ],
        [0, 0, 0, 0, 1, 1, 1],
    )
    projector = plane.projector()
    total: dict[str, int] = {"applied": 0, "duplicates": 0, "anomalies": 0}
    while receipt := projector.apply_available(max_records=batch):
        for name in total:
            total[name] += getattr(receipt, name)
        if restarting:
            projector = plane.projector()
    # a refund is of the class `payment`, a report is a class of its own; a copy of an anomaly is a copy
    assert total == {"applied": 5, "duplicates": 2, "anomalies": 3}
    found = rows(
        plane,
        "SELECT partition_id, record_offset, event_id, event_type, first_partition_id, first_record_offset FROM ofp.anomaly",
    )
    first = positions[0]
    assert {row[4:] for row in found} == {(first.partition_id, str(first.offset))}
    assert [row[:4] for row in found] == [
        ("0000", "2", "e-1", "payment"),
        ("0001", "0", "e-1", "payment"),
        ("0001", "1", "e-1", "refund"),
    ]
    totals = [sum(column) for column in zip(*counters(plane).values(), strict=True)]
    assert totals == [7, 5, 2, 0, 0, 0]
    plane.check([("account", "a-1"), ("merchant", "m-1")], [*GROUPS, ("shop", "v1")], START + 2 * SECOND, {"amount": 1})


def test_a_late_event_is_counted_and_changes_no_servable_value(pool: Pool) -> None:
    plane = SmallPlane(pool, "late", partitions=1, chunk_events=2)
    plane.append([payment("now", KEPT), payment("edge", 1)])
    plane.drain()
    horizon = START
    before = plane.check([("account", "a-1")], GROUPS, horizon + 13 * SECOND, {"amount": 1})
    plane.append([payment("late", 0), payment("later", -5 * SECOND)])
    (receipt,) = plane.drain()
    assert (receipt.applied, receipt.late, receipt.watermark, receipt.horizon) == (2, 2, START + KEPT, horizon)
    assert (receipt.chunks, receipt.touched_keys) == (0, 0)
    assert counters(plane)["0000"] == (4, 4, 0, 2, 0, 0)
    assert plane.check([("account", "a-1")], GROUPS, horizon + 13 * SECOND, {"amount": 1}) != before  # another basis
    plane.append([payment("in-time", 1)])
    (receipt,) = plane.drain()
    assert (receipt.applied, receipt.late) == (1, 0)
    plane.check([("account", "a-1")], GROUPS, horizon + 10 * SECOND + 1, {"amount": 1})


@pytest.mark.parametrize("group", sorted(small_registry().groups))
def test_a_window_may_begin_at_the_horizon_and_not_a_microsecond_before(pool: Pool, group: tuple[str, str]) -> None:
    plane = SmallPlane(pool, "boundary", partitions=1)
    plane.append([payment("e-1", 0), payment("e-2", 50 * SECOND)])
    plane.drain()
    plan = plane.registry.groups[group]
    horizon = START + 50 * SECOND - KEPT
    keys = [(plan.key_type, "a-1")]
    assert plane.check(keys, [group], horizon + plan.reach, {"amount": 1}) != Reason.AS_OF_BEFORE_HORIZON
    assert plane.check(keys, [group], horizon + plan.reach - 1, {"amount": 1}) == Reason.AS_OF_BEFORE_HORIZON


def test_an_as_of_at_the_beginning_of_time_is_refused_in_words(pool: Pool) -> None:
    plane = SmallPlane(pool, "ancient", partitions=1)
    plane.append([payment("e-1", 0)])
    plane.drain()
    with pytest.raises(ContractError) as caught:
        plane.reader.answer(plane.request([("account", "a-1")], GROUPS, micros("0001-01-01T00:00:00Z"), {"amount": 1}))
    assert caught.value.reason is Reason.AS_OF_BEFORE_HORIZON
    assert "2023-11-14T22:13:00Z" in caught.value.message


@pytest.mark.parametrize("first", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z"])
def test_the_watermark_never_goes_back_wherever_time_begins(pool: Pool, first: str) -> None:
    plane = SmallPlane(pool, "epochs", partitions=1)
    plane.append([payment("e-1", 0) | {"ts_utc": first}])
    plane.drain()
    plane.append([payment("e-2", 0) | {"ts_utc": "0001-01-01T00:00:00Z"}])
    plane.drain()
    assert plane.row().watermark == micros(first)
    plane.check([("account", "a-1")], [("ratios", "v2")], micros(first))
    if micros(first) == 0:
        assert plane.check([("account", "a-1")], [("ratios", "v2")], -KEPT) == Reason.AS_OF_BEFORE_HORIZON
    else:
        plane.check([("account", "a-1")], [("ratios", "v2")], micros("0001-01-01T00:00:00Z"))


def test_pruning_takes_what_no_answer_needs(pool: Pool) -> None:
    """Chunks and identities behind the horizon go; what is served stays the oracle's, also right at the horizon."""
    plane = SmallPlane(pool, "pruning", partitions=1, chunk_events=2, tail_bytes=0)
    projector = plane.projector()
    kept = []
    for second in range(0, 120, 2):
        plane.append([payment(f"e-{second}", second * SECOND), payment(f"f-{second}", second * SECOND + 1)])
        plane.drain(projector)
        watermark = plane.row().watermark
        assert watermark is not None
        for side in (-1, 0, 1):
            plane.check([("account", "a-1")], GROUPS, watermark - LATENESS + side, {"amount": 1})
        chunks = len(rows(plane, "SELECT first_ts, last_ts FROM ofp.chunk"))
        runs = len(rows(plane, "SELECT version, max_ts FROM ofp.identity_run"))
        kept.append((chunks, runs))
    assert max(kept) == max(kept[10:20])  # it does not grow with the log
    assert kept[-1][1] < 20
    row = plane.row()
    assert row.pruned_to is not None
    assert row.watermark is not None
    assert 0 <= row.watermark - KEPT - row.pruned_to <= KEPT // 8
    assert min(ts for ts, _ in rows(plane, "SELECT last_ts, first_ts FROM ofp.chunk")) > row.pruned_to
    # a copy of an event whose identity is gone cannot be told from a late event, and matters as little
    plane.append([payment("e-0", 0)])
    (receipt,) = plane.drain()
    assert (receipt.applied, receipt.duplicates, receipt.late, receipt.chunks) == (1, 0, 1, 0)
    plane.check([("account", "a-1")], GROUPS, row.watermark, {"amount": 1})


def part(partition_id: str, offset: int) -> PartitionBasis:
    return PartitionBasis(partition_id=partition_id, offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=offset)


def basis(plane: SmallPlane, **ends: int) -> Basis:
    return make_basis(plane.log.stream_name, {name[1:]: part(name[1:], end) for name, end in ends.items()})


def test_until_bounds_what_is_applied_partition_by_partition(pool: Pool) -> None:
    plane = SmallPlane(pool, "until", partitions=2)
    plane.append([payment(f"e-{number}", number) for number in range(10)], [0, 1])
    projector = plane.projector()
    receipt = projector.apply_available(max_records=100, until=basis(plane, p0000=3))
    assert receipt is not None
    assert receipt.basis_after == basis(plane, p0000=3)
    assert projector.apply_available(max_records=100, until=basis(plane, p0000=3)) is None
    assert projector.apply_available(max_records=100, until=basis(plane, p0000=1)) is None
    receipt = projector.apply_available(max_records=2, until=basis(plane, p0000=4, p0001=5))
    assert receipt is not None
    assert receipt.basis_after == basis(plane, p0000=4, p0001=1)
    receipt = projector.apply_available(max_records=100, until=basis(plane, p0000=99, p0001=99))
    assert receipt is not None
    assert receipt.basis_after == basis(plane, p0000=5, p0001=5) == plane.log.ends()
    assert projector.apply_available(max_records=100) is None


def test_records_that_do_not_continue_the_basis_are_refused(pool: Pool) -> None:
    plane = SmallPlane(pool, "gap", partitions=1)
    plane.append([payment(f"e-{number}", number) for number in range(4)])
    projector = plane.projector()
    assert projector.apply_available(max_records=1) is not None
    before = plane.row()
    for offset in (0, 2):
        with pytest.raises(ProjectionConflict, match="do not continue"):
            projector.apply([plane.log.read("0000", part("0000", offset), 2)])
    assert plane.row() == before
    assert [receipt.applied for receipt in plane.drain(projector)] == [3]


def test_a_partition_never_read_is_read_from_its_beginning(pool: Pool) -> None:
    plane = SmallPlane(pool, "beginning", partitions=2)
    plane.append([payment(f"e-{number}", number) for number in range(6)], [0, 0, 1])
    projector = plane.projector()
    projector.apply_available(max_records=1)
    assert "0001" not in projector.basis.by_partition()
    assert len(plane.drain(projector)) == 1
    assert projector.basis == plane.log.ends()


def test_a_projector_of_another_registry_is_refused(pool: Pool) -> None:
    plane = SmallPlane(pool, "registry", partitions=1)
    other = compile_pack(shipped_pack("handbook"))
    projector = Projector(pool, plane.log, other, plane.projection_id, ProjectorSettings(0, 0))
    with pytest.raises(ProjectionConflict, match="of registry"):
        projector.apply_available(max_records=1)


def test_a_store_that_goes_away_in_the_middle_of_a_batch_leaves_nothing_half_done(pool: Pool, dsn: str) -> None:
    """Every backend is terminated between the chunks and the commit; the same projector goes on afterwards."""
    plane = SmallPlane(pool, "outage", partitions=1)
    plane.append([payment(f"e-{number}", number) for number in range(5)])
    projector = plane.projector()
    projector.apply_available(max_records=2)
    before = plane.row()

    def terminate(name: str) -> None:
        if name == "projector.after_chunks":
            with psycopg.connect(dsn, autocommit=True) as connection:
                end_sessions(connection, connection.info.dbname)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projector_module, "crash_point", terminate)
        with pytest.raises(psycopg.OperationalError):
            projector.apply_available(max_records=2)
    assert plane.row() == before
    assert [receipt.applied for receipt in plane.drain(projector)] == [3]
    plane.check([("account", "a-1"), ("merchant", "m-1")], [*GROUPS, ("shop", "v1")], START + SECOND, {"amount": 1})


def test_positions_of_a_receipt_are_where_the_records_stand(pool: Pool) -> None:
    plane = SmallPlane(pool, "positions", partitions=2)
    positions = plane.append([payment("e-1", 0), payment("e-2", 0)], [1, 0])
    assert [(place.partition_id, place.offset) for place in positions] == [("0001", 0), ("0000", 0)]
    plane.drain()
    assert all(plane.row().basis.contains(place) for place in positions)
    assert not plane.row().basis.contains(Position(stream_name="positions", partition_id="0000", offset=1))


def test_projectors_that_race_apply_everything_once(pool: Pool) -> None:
    plane = SmallPlane(pool, "race", partitions=2, chunk_events=4, span_chunks=2)
    plane.append([payment(f"e-{number % 90}", number % 90 * 100_000) for number in range(120)], [0, 1, 1])
    start = threading.Barrier(3)

    def race() -> tuple[int, int]:
        projector = plane.projector()
        start.wait(30)
        applied = lost = 0
        while True:
            try:
                receipt = projector.apply_available(max_records=7)
            except ProjectionConflict:
                lost += 1
                continue
            if receipt is None:
                return applied, lost
            applied += receipt.records

    with ThreadPoolExecutor(3) as threads:
        results = [future.result(60) for future in [threads.submit(race) for _ in range(3)]]
    assert sum(applied for applied, _ in results) == 120
    assert plane.row().basis == plane.log.ends()
    assert [sum(column) for column in zip(*counters(plane).values(), strict=True)] == [120, 90, 30, 0, 0, 0]
    for tenths in range(0, 100, 9):
        plane.check([("account", "a-1"), ("merchant", "m-1")], [*GROUPS, ("shop", "v1")], START + tenths * 100_000, {"amount": 1})
