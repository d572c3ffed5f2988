"""Any order, duplication, partitioning, batching and number of restarts: what is served is the oracle's, to the byte."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from psycopg import Connection

from ofp_platform.kernel.query import LayoutArrays
from ofp_platform.online.projecting.chunk_merge import summarise_chunks
from ofp_platform.online.projecting.projector import ApplyReceipt
from ofp_platform.online.projecting.read_ahead import ReadRequest, read_batches
from ofp_platform.online.state.buckets import KEY_TYPE_CODES
from ofp_platform.online.state.chunk_codec import unpack
from ofp_platform.online.state.projection import ProjectionConflict
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.storage.schema import migrate
from ofp_platform.vocabulary.errors import Reason
from ofp_platform_tests.oracle.fold import Record, micros, time_text
from ofp_platform_tests.oracle.small_plane import ADMITTED, SmallPlane, answer_hash, apply, payment, small_registry
from ofp_platform_tests.oracle.stored_state import stored_events
from ofp_platform_tests.oracle.strategies import (
    ACCOUNTS,
    LATENESS,
    MERCHANTS,
    SECOND,
    SKEW,
    SPANS,
    START,
    World,
    envelopes,
    times,
    worlds,
)

KEYS = [*(("account", one) for one in (*ACCOUNTS, "a-never")), *(("merchant", one) for one in MERCHANTS)]
GROUPS = {ref: plan.key_type for ref, plan in small_registry().groups.items()}
STREAMS = (f"stream-{number}" for number in itertools.count())
IDS = st.integers(0, 60).map(lambda number: f"e-{number}")
MOMENTS = st.tuples(
    st.integers(0, 10_000),
    st.sampled_from((0, *SPANS, *(a + b for a in SPANS for b in SPANS))),
    st.sampled_from((-1, 0, 0, 1)),
)
"""Which known time, how far behind it (a delay, a window, both), and a microsecond to either side."""


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[tuple[str, str]], list[tuple[str, str]], dict[str, int] | None]:
    """Keys, groups that fit them, and the request context when a group needs one (sometimes also when none does)."""
    groups = draw(st.lists(st.sampled_from(sorted(GROUPS)), min_size=1, unique=True))
    types = {GROUPS[group] for group in groups}
    keys: list[tuple[str, str]] = []
    for key_type in sorted(types):
        of_type = [key for key in KEYS if key[0] == key_type]
        keys += draw(st.lists(st.sampled_from(of_type), min_size=1, unique=True))
    needed = ("every", "v1") in groups or draw(st.booleans())
    return draw(st.permutations(keys)), groups, {"amount": draw(st.integers(-5, 10**12))} if needed else None


def moved(envelope: dict[str, Any], by: int) -> dict[str, Any]:
    return {**envelope, "ts_utc": time_text(micros(envelope["ts_utc"]) + by)}


class OnlinePlane(RuleBasedStateMachine):
    """Two projectors of one projection, a log that anybody appends to, and questions at any moment."""

    plane: SmallPlane

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool
        self.shift = 0

    @initialize(
        partitions=st.integers(1, 3),
        chunk_events=st.sampled_from((1, 2, 3, 5, 256)),
        tail_bytes=st.sampled_from((0, 60, 120, 250, 640)),
        span_chunks=st.sampled_from((1, 2, 3, 32)),
        lateness=st.sampled_from((0, LATENESS)),
    )
    def start(self, partitions: int, chunk_events: int, tail_bytes: int, span_chunks: int, lateness: int) -> None:
        self.plane = SmallPlane(
            self.pool,
            next(STREAMS),
            partitions=partitions,
            chunk_events=chunk_events,
            tail_bytes=tail_bytes,
            span_chunks=span_chunks,
            allowed_lateness=lateness,
        )
        self.projectors = [self.plane.projector(), self.plane.projector()]

    @rule(
        events=st.lists(envelopes(IDS), min_size=1, max_size=12),
        places=st.lists(st.integers(0, 2), min_size=1, max_size=7),
        early=st.one_of(st.none(), st.none(), st.integers(0, 30)),
    )
    def append(self, events: list[dict[str, Any]], places: list[int], early: int | None) -> None:
        """New events; with `early`, admitted so soon that some of them are from the future by a microsecond or more."""
        admitted = ADMITTED if early is None else START + early * SECOND - SKEW
        self.plane.append([moved(event, self.shift) for event in events], places, admitted + self.shift)

    @precondition(lambda self: self.plane.records)
    @rule(
        picks=st.lists(st.integers(0, 1_000), min_size=1, max_size=6), places=st.lists(st.integers(0, 2), min_size=1, max_size=3)
    )
    def append_again(self, picks: list[int], places: list[int]) -> None:
        """A producer's retry: the same events, elsewhere."""
        known = self.plane.records
        again = [known[pick % len(known)] for pick in picks]
        self.plane.append([record.envelope for record in again], places, ADMITTED + self.shift)

    @rule(seed=st.integers(0, 2**32), count=st.integers(10, 40), seconds=st.sampled_from((1, 8, 30)))
    def append_burst(self, seed: int, count: int, seconds: int) -> None:
        """Many payments of one account and one merchant in disorder: keys with many chunks, and spans above them."""
        moments = np.random.default_rng(seed).integers(0, seconds * SECOND, count).tolist()
        self.plane.append(
            [payment(f"b-{seed}-{place}", self.shift + moment, amount=moment % 11 - 5) for place, moment in enumerate(moments)],
            [0, 1],
            ADMITTED + self.shift,
        )

    @rule(seconds=st.sampled_from((5, 20, 40)))
    def time_passes(self, seconds: int) -> None:
        """What is appended from now on is later; what was there falls behind the horizon."""
        self.shift = min(self.shift + seconds * SECOND, 200 * SECOND)

    @rule(which=st.integers(0, 1), max_records=st.integers(1, 40))
    def project(self, which: int, max_records: int) -> None:
        before = self.plane.row()
        receipt = apply(self.projectors[which], max_records)
        row = self.plane.row()
        if receipt is None:
            assert sum(self.plane.log.ordinal_lag(before.basis).values()) == 0
            assert row == before
        else:
            assert (receipt.basis_before, receipt.basis_after, receipt.version) == (before.basis, row.basis, before.version + 1)
            assert 0 < receipt.records <= max_records
            assert receipt.watermark == row.watermark

    @precondition(lambda self: sum(self.plane.log.ordinal_lag(self.plane.row().basis).values()))
    @rule(max_records=st.integers(1, 20))
    def compete(self, max_records: int) -> None:
        """Both read the same records; the second to commit loses, writes nothing, and goes on from there."""
        first, second = self.projectors
        first.forget()
        batches, _ = read_batches(self.plane.log, ReadRequest(first.basis, max_records))
        assert apply(second, max_records) is not None
        before = self.plane.row()
        with pytest.raises(ProjectionConflict):
            first.apply(batches)
        assert self.plane.row() == before
        assert first.basis == before.basis

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.projectors[which] = self.plane.projector()

    @rule(question=questions(), moment=MOMENTS)
    def ask(self, question: Any, moment: tuple[int, int, int]) -> None:
        self.plane.check(question[0], question[1], self.time(*moment), question[2])

    @precondition(lambda self: self.plane.row().watermark is not None)
    @rule(group=st.sampled_from(sorted(GROUPS)), side=st.sampled_from((-1, 0, 1)))
    def ask_at_the_horizon(self, group: tuple[str, str], side: int) -> None:
        """A window that begins exactly at the horizon is served, a microsecond earlier it is refused."""
        watermark = self.plane.row().watermark
        assert watermark is not None
        horizon = watermark - small_registry().reach - self.plane.allowed_lateness
        keys = [key for key in KEYS if key[0] == GROUPS[group]]
        as_of = horizon + small_registry().groups[group].reach + side
        found = self.plane.check(keys, [group], as_of, {"amount": 1})
        assert (found == Reason.AS_OF_BEFORE_HORIZON) == (side < 0)

    def time(self, place: int, behind: int, side: int) -> int:
        known = sorted({micros(record.envelope["ts_utc"]) for record in self.plane.records}) or [START]
        return known[place % len(known)] + behind + side

    def teardown(self) -> None:
        if not hasattr(self, "plane"):
            return
        self.plane.drain(self.projectors[0])
        watermark = self.plane.row().watermark or START
        for side in (0, SECOND):
            self.plane.check(KEYS, sorted(GROUPS), watermark + side, {"amount": 1})
        known = self.plane.known(self.plane.row().basis)
        with self.pool.connection() as connection:
            failed, ignored, records, partial = connection.execute(
                "SELECT coalesce(sum(failed), 0), coalesce(sum(ignored), 0), coalesce(sum(records), 0), coalesce(sum(partial), 0)"
                " FROM ofp.projection_partition WHERE projection_id = %s",
                (self.plane.projection_id,),
            ).fetchone() or (0, 0, 0, 0)
            check_chunks(connection, self.plane)
        foreign = sum(record.envelope["run_id"] != "run-1" for record in self.plane.records)
        assert failed == len(known.failures) + foreign
        assert partial == len(known.group_failures)
        assert ignored == known.unknown
        assert records == len(self.plane.records)


@pytest.mark.timeout(480)  # a failure is made small first, and that takes up to five minutes
def test_whatever_happens_what_is_served_is_the_oracle_s(dsn: str) -> None:
    with open_pool(dsn) as pool:
        run_state_machine_as_test(
            lambda: OnlinePlane(pool),
            settings=settings(
                max_examples=40,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )


def test_any_world_in_any_batches_is_the_oracle_s_after_every_commit(dsn: str) -> None:
    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(
        worlds(partitions=("0000", "0001")), st.lists(st.integers(1, 15), max_size=6), st.lists(times(45), min_size=1, max_size=2)
    )
    def check(world: World, sizes: list[int], moments: list[int]) -> None:
        plane = SmallPlane(pool, next(STREAMS), chunk_events=2, span_chunks=2, tail_bytes=120)
        plane.load(world.records)
        for moment in moments:
            plane.check(KEYS, sorted(GROUPS), moment, {"amount": 12345})
        upcoming = iter(sizes)
        while apply(plane.projector(), next(upcoming, 1_000)):
            for moment in moments:
                plane.check(KEYS, sorted(GROUPS), moment, {"amount": 12345})

    with open_pool(dsn) as pool:
        check()


def test_permutations_and_batchings_end_in_the_same_hashes_and_the_same_events(dsn: str, empty_dsn: str) -> None:
    """The stream's name is in the basis, hence in the hash: the two logs stand in two databases under one name."""

    @settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data(), worlds(partitions=("0000", "0001")), st.lists(times(45), min_size=1, max_size=3))
    def check(data: st.DataObject, world: World, moments: list[int]) -> None:
        stream = next(STREAMS)
        planes = []
        limits = data.draw(st.tuples(*[st.tuples(st.sampled_from((1, 2, 4, 256)), st.sampled_from((0, 60, 200, 640)))] * 2))
        for pool, (chunk_events, tail_bytes) in zip(pools, limits, strict=True):
            order: list[Record] = data.draw(st.permutations(world.records))
            plane = SmallPlane(pool, stream, chunk_events=chunk_events, span_chunks=2, tail_bytes=tail_bytes)
            plane.load(order)
            for size in data.draw(st.lists(st.integers(1, 20), max_size=4)):
                apply(plane.projector(), size)
            plane.drain()
            planes.append(plane)
        first, second = planes
        assert first.row().basis == second.row().basis
        assert first.row().watermark == second.row().watermark
        for moment in moments:
            request = first.request(KEYS, sorted(GROUPS), moment, {"amount": 1})
            assert answer_hash(first, request) == answer_hash(second, request)
        watermark = first.row().watermark
        horizon = 0 if watermark is None else watermark - small_registry().reach - LATENESS
        with pools[0].connection() as one, pools[1].connection() as other:
            assert check_chunks(one, first, horizon) == check_chunks(other, second, horizon)

    migrate(empty_dsn)
    with open_pool(dsn) as one_pool, open_pool(empty_dsn) as other_pool:
        pools = (one_pool, other_pool)
        check()


def check_chunks(
    connection: Connection[Any], plane: SmallPlane, horizon: int = 0
) -> dict[tuple[str, str], list[tuple[int, ...]]]:
    """Every chunk is what it says of itself; the events of each key in front of the horizon, without their chunks."""
    names = {code: name for name, code in KEY_TYPE_CODES.items()}
    whole: dict[tuple[int, str], list[Any]] = {}
    before: tuple[Any, ...] = ()
    rows: Iterator[Any] = iter(
        connection.execute(
            "SELECT key_type, key_id, first_ts, last_ts, summaries, block FROM ofp.chunk WHERE projection_id = %s"
            " ORDER BY key_type, key_id, first_ts",
            (plane.projection_id,),
        ).fetchall()
    )
    for code, key_id, first_ts, last_ts, summaries, block in rows:
        key_type = names[code]
        layout = plane.registry.layouts[key_type]
        matrix = unpack(block)
        assert matrix.shape[0] == layout.column_count
        count = matrix.shape[1]
        times_of = matrix[0].tolist()
        assert (times_of[0], times_of[-1]) == (first_ts, last_ts)
        assert times_of == sorted(times_of)
        assert count <= plane.settings.chunk_events or first_ts == last_ts
        if before[:2] == (code, key_id):
            assert before[2] < first_ts
        before = (code, key_id, last_ts)
        if layout.ties:
            ties = matrix[2:4].view(np.uint64)
            marks = list(zip(times_of, ties[0].tolist(), ties[1].tolist(), strict=True))
            assert marks == sorted(marks)
            told_apart = [mark for mark in marks if layout.ordered or mark[1:] != (0, 0)]  # else of amendments only
            assert told_apart == sorted(set(told_apart))
        plan = LayoutArrays.of(layout)
        assert summarise_chunks(plan, matrix, np.array([0, count])).tobytes() == summaries
        whole.setdefault((code, key_id), []).append(matrix)
    check_spans(connection, plane, whole)
    stored = stored_events(connection, plane.projection_id, plane.registry)
    found = {key: [tuple(event) for event in matrix.T.tolist() if event[0] > horizon] for key, matrix in stored.items()}
    return {key: sorted(events) for key, events in found.items() if events}


def check_spans(connection: Connection[Any], plane: SmallPlane, chunks: dict[tuple[int, str], list[Any]]) -> None:
    """Spans of a level do not overlap, stand over whole rows of the level below, and each that nothing was pruned from is the sum
    of its chunks."""
    pruned_to = plane.row().pruned_to
    before: tuple[Any, ...] = ()
    below = {(1, *key): [(int(matrix[0, 0]), int(matrix[0, -1])) for matrix in matrices] for key, matrices in chunks.items()}
    for level, code, key_id, first_ts, last_ts, summaries in connection.execute(
        "SELECT level, key_type, key_id, first_ts, last_ts, summaries FROM ofp.span WHERE projection_id = %s"
        " ORDER BY level, key_type, key_id, first_ts",
        (plane.projection_id,),
    ).fetchall():
        if before[:3] == (level, code, key_id):
            assert before[3] < first_ts
        before = (level, code, key_id, last_ts)
        below.setdefault((level + 1, code, key_id), []).append((first_ts, last_ts))
        rows = [row for row in below.get((level, code, key_id), []) if first_ts <= row[0] <= last_ts]
        under = [matrix for matrix in chunks.get((code, key_id), []) if first_ts <= matrix[0, 0] <= last_ts]
        if pruned_to is None or first_ts > pruned_to:
            assert (under[0][0, 0], under[-1][0, -1]) == (first_ts, last_ts)
            assert (rows[0][0], rows[-1][1]) == (first_ts, last_ts)
            assert 1 <= len(rows) <= 2 * plane.settings.span_chunks
            matrix = np.ascontiguousarray(np.concatenate(under, axis=1))
            layout = {KEY_TYPE_CODES[name]: layout for name, layout in plane.registry.layouts.items()}[code]
            merged = summarise_chunks(LayoutArrays.of(layout), matrix, np.array([0, matrix.shape[1]]))
            assert merged.tobytes() == summaries


def test_a_hot_key_is_served_from_summaries_and_edges(dsn: str) -> None:
    """Many small chunks: at the edges of every window, one microsecond to each side."""
    with open_pool(dsn) as pool:
        plane = SmallPlane(pool, next(STREAMS), chunk_events=4, span_chunks=3, tail_bytes=200)
        rng = np.random.default_rng(20)
        moments = np.sort(rng.integers(0, 30 * SECOND, 400))
        moments[100:140] = moments[100]  # a run of equal times longer than a chunk
        events = [
            payment(
                f"e-{number}",
                moment,
                amount=int(rng.integers(-50, 50)),
                status=("ok", "odd", "no")[number % 3],
                shop="xyz"[number % 3],
                online=number % 2 == 0,
            )
            for number, moment in enumerate(moments.tolist())
        ]
        shuffled = [events[index] for index in rng.permutation(len(events))]
        plane.append(shuffled, [0, 1, 1])
        receipts: list[ApplyReceipt] = plane.drain(sizes=iter([150, 150]))
        assert sum(receipt.applied for receipt in receipts) == 400
        anchors = (START + int(moments[100]), START + int(moments[399]))
        for anchor, span, side in itertools.product(anchors, (0, SECOND, 3 * SECOND, 10 * SECOND), (-1, 0, 1)):
            plane.check([("account", "a-1"), ("merchant", "m-1")], sorted(GROUPS), anchor + span + side, {"amount": 2})
        with pool.connection() as connection:
            check_chunks(connection, plane)
