"""Reading ahead: the next commit's records while one is written, used once and for the same question only."""

from __future__ import annotations

from collections.abc import Iterator
from threading import current_thread, main_thread
from typing import Any

import pytest

from ofp_platform.log.port import EventLog, LogUnavailable, RecordBatch
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.online.projecting.read_ahead import LEAST_RECORDS
from ofp_platform.online.state.projection import ProjectionConflict
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
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
        clock_skew_us=SKEW,
        allowed_lateness_us=LATENESS,
        least_ahead=least,
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
