"""Reading ahead: the next commit's records while one is written, used once and for the same question only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import current_thread, main_thread
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.log.port import EventLog, LogUnavailable, PositionUnknown, RecordBatch
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.online.projecting.projector_settings import ProjectorSettings
from ofp_platform.online.projecting.read_ahead import LEAST_RECORDS, ReadRequest, read_batches
from ofp_platform.online.state.projection import ProjectionConflict
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.position import Basis, make_basis
from ofp_platform_tests.oracle.small_plane import ScatteredLog, SmallPlane, payment
from ofp_platform_tests.oracle.strategies import LATENESS, SKEW


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn) as opened:
        yield opened


class Watched:
    """A log that tells which offsets were read in which thread, and breaks when it is told to."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.reads: list[tuple[bool, list[int | str]]] = []
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def read(self, partition_id: str, basis: Any, max_records: int) -> RecordBatch:
        if self.broken:
            raise LogUnavailable("broken")
        batch = self._log.read(partition_id, basis, max_records)
        self.reads.append((current_thread() is main_thread(), list(batch.offsets)))
        return batch


@pytest.fixture
def plane(pool: Pool) -> SmallPlane:
    plane = SmallPlane(pool, "ahead", partitions=1)
    plane.append([payment(f"e-{number}", number) for number in range(7)])
    return plane


def projector_of(plane: SmallPlane, log: Watched, least: int = 1) -> Projector:
    return Projector(
        plane.pool,
        log,  # type: ignore[arg-type]
        plane.registry,
        plane.projection_id,
        ProjectorSettings(SKEW, LATENESS, least_ahead=least),
    )


def applied(projector: Projector, count: int) -> int:
    receipt = projector.apply_available(max_records=count)
    return 0 if receipt is None else receipt.applied


def test_each_record_is_read_once_and_beside_the_commit_before_it(plane: SmallPlane) -> None:
    log = Watched(plane.log)
    projector = projector_of(plane, log)
    assert [applied(projector, 3) for _ in range(4)] == [3, 3, 1, 0]
    assert log.reads == [(True, [0, 1, 2]), (False, [3, 4, 5]), (False, [6]), (True, [])]


def test_a_commit_of_few_records_reads_nothing_ahead(plane: SmallPlane) -> None:
    log = Watched(plane.log)
    projector = projector_of(plane, log, LEAST_RECORDS)
    assert [applied(projector, 3) for _ in range(4)] == [3, 3, 1, 0]
    assert all(main for main, _ in log.reads)


def test_another_question_is_read_anew(plane: SmallPlane) -> None:
    log = Watched(plane.log)
    projector = projector_of(plane, log)
    assert [applied(projector, 2), applied(projector, 3), applied(projector, 2)] == [2, 3, 2]
    assert log.reads[:3] == [(True, [0, 1]), (False, [2, 3]), (True, [2, 3, 4])]


def test_a_read_that_fails_beside_a_commit_fails_the_next_one(plane: SmallPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Watched(plane.log)
    projector = projector_of(plane, log)
    monkeypatch.setattr(
        "ofp_platform.online.projecting.projector.crash_point",
        lambda name: setattr(log, "broken", name.endswith("before_transaction")),
    )
    assert applied(projector, 3) == 3
    log.broken = True
    with pytest.raises(LogUnavailable):
        projector.apply_available(max_records=3)
    log.broken = False
    assert [applied(projector, 3) for _ in range(2)] == [3, 1]


def test_of_a_lost_commit_nothing_that_was_read_ahead_is_kept(plane: SmallPlane) -> None:
    log = Watched(plane.log)
    loser, winner = projector_of(plane, log), plane.projector()
    assert applied(loser, 2) == 2
    assert applied(winner, 3) == 3
    with pytest.raises(ProjectionConflict):
        loser.apply_available(max_records=2)
    assert [applied(loser, 2) for _ in range(2)] == [2, 0]
    assert [offsets for main, offsets in log.reads if main][1:] == [[5, 6], []]


class InTurn:
    """A log that reads one partition after the other."""

    reads_many = False

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@given(
    sizes=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    starts=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    bounds=st.none() | st.lists(st.none() | st.integers(0, 9), min_size=4, max_size=4),
    max_records=st.integers(1, 30),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_partitions_read_together_give_what_they_give_in_turn(
    pool: Pool, sizes: list[int], starts: list[int], bounds: list[int | None] | None, max_records: int
) -> None:
    log = ScatteredLog.create(pool, f"together-{uuid4().hex[:8]}", 4, "payload.account_id")
    names = log.first_partition_ids(4)
    log.places.extend(name for name, size in zip(names, sizes, strict=True) for _ in range(size))
    if sum(sizes):
        log.append([payment(f"e-{number}", number) for number in range(sum(sizes))])

    def basis_at(offsets: Iterable[int | None]) -> Basis:
        parts = {
            name: log.position_kind.basis(name, min(offset, size))
            for name, offset, size in zip(names, offsets, sizes, strict=True)
            if offset is not None
        }
        return make_basis(log.stream_name, parts)

    basis = basis_at(starts)
    until = None if bounds is None else basis_at(b if b is None else max(a, b) for a, b in zip(starts, bounds, strict=True))
    request = ReadRequest(basis, max_records, until)
    (together, more), (in_turn, more_in_turn) = read_batches(log, request), read_batches(InTurn(log), request)  # type: ignore[arg-type]
    assert [(batch.event_ids, batch.next) for batch in together] == [(batch.event_ids, batch.next) for batch in in_turn]
    assert more == more_in_turn


def test_a_head_behind_the_basis_is_an_error_and_no_end(pool: Pool) -> None:
    log = ScatteredLog.create(pool, "behind", 2, "payload.account_id")
    names = log.first_partition_ids(2)
    basis = make_basis(log.stream_name, {name: log.position_kind.basis(name, 3) for name in names})
    with pytest.raises(PositionUnknown, match="ends at 0; 3 is of another log"):
        read_batches(log, ReadRequest(basis, 10))
