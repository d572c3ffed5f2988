"""What can be replayed and what cannot, each refusal with its field."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.port import LogUnavailable
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.offline.requests.replay_resolution import data_end, resolve_basis, resolve_replay
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.build_intent import AdmissionTimes, Offsets
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan, ReplayBasis
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, make_basis
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.list_log import PARTITION, STREAM, ListedRecord, ListLog
from ofp_platform_tests.oracle.no_ledger import NO_LEDGER

SECOND = 1_000_000


@pytest.fixture
def log() -> ListLog:
    return ListLog([ListedRecord(f"event-{number}", admitted_at=number * SECOND) for number in range(30)])


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(ObjectStore(str(tmp_path)), STREAM)


def offsets(log: ListLog, first: int, following: int, **changes: Any) -> Offsets:
    span = log.span(first, following).model_copy(update=changes)
    return Offsets(basis=ReplayBasis(stream_name=STREAM, partitions=(span,)))


def times(first: int, until: int) -> AdmissionTimes:
    return AdmissionTimes(from_utc=format_time(first * SECOND), to_utc=format_time(until * SECOND))


def refused(log: ListLog, archive: Archive, replay: Offsets | AdmissionTimes) -> tuple[BuildReason, str]:
    with pytest.raises(BuildRefused) as caught:
        resolve_replay(replay, StreamRecords(log, archive))
    return caught.value.reason, caught.value.field


def archived(log: ListLog, archive: Archive, count: int) -> None:
    archive_up_to(OffsetRanges(NO_LEDGER, log, 10), archive, make_basis(STREAM, {PARTITION: log.at(count)}))


def test_offsets_are_what_they_say(log: ListLog, archive: Archive) -> None:
    found = resolve_replay(offsets(log, 3, 30), StreamRecords(log, archive))
    assert (found.basis, found.cut_over, found.selected_by) == (offsets(log, 3, 30).basis, (log.at(3),), None)
    archived(log, archive, 20)
    log.floor = 15
    assert resolve_replay(offsets(log, 3, 30), StreamRecords(log, archive)).cut_over == (log.at(20),)
    assert resolve_replay(offsets(log, 3, 12), StreamRecords(log, archive)).cut_over == (log.at(12),)


def test_times_become_offsets_and_are_recorded(log: ListLog, archive: Archive) -> None:
    archived(log, archive, 10)
    found = resolve_replay(times(4, 17), StreamRecords(log, archive))
    assert found.basis.partitions == (log.span(4, 17),)
    assert found.cut_over == (log.at(10),)
    assert found.selected_by == times(4, 17)


def test_what_does_not_resolve(log: ListLog, archive: Archive) -> None:
    here = "replay.basis.partitions.0"
    unresolved = BuildReason.BASIS_UNRESOLVED
    other = OffsetKind.AFTER_SEQUENCE_NUMBER
    assert refused(log, archive, offsets(log, 3, 31)) == (unresolved, f"{here}.next")
    assert refused(log, archive, offsets(log, 3, 3)) == (unresolved, "replay.basis")
    assert refused(log, archive, offsets(log, 3, 5, partition_id="0009")) == (unresolved, f"{here}.partition_id")
    assert refused(log, archive, offsets(log, 3, 5, closed=True)) == (unresolved, f"{here}.closed")
    assert refused(log, archive, offsets(log, 3, 5, offset_kind=other, start="3", next="5")) == (
        unresolved,
        f"{here}.offset_kind",
    )
    assert refused(log, archive, times(30, 40)) == (unresolved, "replay")
    for name in ("a-later-stream", "a-nother", "A"):
        log.stream_name = name
        assert refused(log, Archive(archive.store, name), offsets(log, 3, 5)) == (unresolved, "replay.basis.stream_name")


@pytest.mark.parametrize("count", [30, 300])
def test_a_partition_that_ended_is_replayed_to_its_end(archive: Archive, count: int) -> None:
    log = ListLog([ListedRecord(f"event-{number}", admitted_at=number * SECOND) for number in range(count)], ended=True)
    held = StreamRecords(log, archive)
    assert resolve_replay(offsets(log, 3, count, closed=True), held).basis.partitions[0].closed
    assert resolve_replay(offsets(log, 3, count), held).basis.partitions == (log.span(3, count),)
    here = (BuildReason.BASIS_UNRESOLVED, "replay.basis.partitions.0.closed")
    assert refused(log, archive, offsets(log, 3, count - 1, closed=True)) == here
    log.ended = False
    assert refused(log, archive, offsets(log, 3, count, closed=True)) == here
    assert refused(log, archive, offsets(log, count - 1, count - 1)) == (BuildReason.BASIS_UNRESOLVED, "replay.basis")


def test_a_resolution_does_not_change(log: ListLog, archive: Archive) -> None:
    found = resolve_replay(offsets(log, 3, 30), StreamRecords(log, archive))
    with pytest.raises(FrozenInstanceError):
        found.basis = found.basis  # type: ignore[misc]


def test_what_is_held_no_more_is_incomplete(log: ListLog, archive: Archive) -> None:
    log.floor = 10
    for replay in (offsets(log, 9, 12), times(9, 12)):
        assert refused(log, archive, replay)[0] is BuildReason.REPLAY_INCOMPLETE
    assert resolve_replay(offsets(log, 10, 12), StreamRecords(log, archive)).cut_over == (log.at(10),)
    log.floor = 0
    archived(log, archive, 10)
    log.floor = 11
    assert refused(log, archive, offsets(log, 3, 12)) == (BuildReason.REPLAY_INCOMPLETE, "replay.basis")


def test_a_damaged_archive_is_named(log: ListLog, archive: Archive, tmp_path: Path) -> None:
    archived(log, archive, 10)
    receipt = next(tmp_path.rglob("receipts/*.json"))
    receipt.rename(receipt.with_name("nonsense.json"))
    assert refused(log, archive, offsets(log, 3, 12)) == (BuildReason.ARCHIVE_DAMAGED, "replay.basis")


def test_a_log_that_does_not_answer_may_pass(log: ListLog, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(self: ListLog) -> Basis:
        raise LogUnavailable("the log is away")

    monkeypatch.setattr(ListLog, "ends", away)
    with pytest.raises(BuildRefused) as caught:
        resolve_replay(times(1, 2), StreamRecords(log, archive))
    assert caught.value.retryable


def test_a_basis_is_everything_up_to_it(log: ListLog, archive: Archive) -> None:
    held = StreamRecords(log, archive)
    assert resolve_basis(make_basis(STREAM, {PARTITION: log.at(7)}), held).basis == offsets(log, 0, 7).basis
    part = log.at(7)
    for parts, field in [
        ((), "basis.partitions"),
        ((part, part), "basis.partitions"),
        ((part.model_copy(update={"offset": "7"}),), "basis.partitions"),
        ((part.model_copy(update={"offset": 31}),), "basis.partitions.0.offset"),
        ((part, part.model_copy(update={"partition_id": "0000"})), "basis.partitions.1.partition_id"),
        ((part.model_copy(update={"offset": 0}),), "basis"),
    ]:
        with pytest.raises(BuildRefused) as caught:
            resolve_basis(Basis(stream_name=STREAM, partitions=parts), held)
        assert (caught.value.reason, caught.value.field) == (BuildReason.BASIS_UNRESOLVED, field)


def test_a_partition_that_the_log_lost_is_replayed_from_the_archive(
    log: ListLog, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived(log, archive, 30)
    log.reads.clear()
    monkeypatch.setattr(ListLog, "ends", lambda self: make_basis(STREAM, {}))
    monkeypatch.setattr(ListLog, "retention_floor", lambda self: make_basis(STREAM, {}))
    held = StreamRecords(log, archive)
    assert resolve_replay(times(5, 25), held).basis.partitions == (log.span(5, 25),)
    assert data_end(offsets(log, 0, 12).basis, held) == 11 * SECOND
    assert log.reads == []


def test_the_data_ends_where_the_last_partition_does(log: ListLog, archive: Archive) -> None:
    held = StreamRecords(log, archive)
    assert data_end(offsets(log, 0, 12).basis, held) == 11 * SECOND
    for number in range(3):
        log.change(number, readable=False)
    with pytest.raises(BuildRefused) as caught:
        data_end(offsets(log, 0, 3).basis, held)
    assert caught.value.reason is BuildReason.NOTHING_TO_BUILD


def test_which_recorded_bases_lie_inside() -> None:
    def span(name: str, start: int, following: int) -> PartitionSpan:
        return PartitionSpan(partition_id=name, offset_kind=OffsetKind.EXCLUSIVE_NEXT, start=start, next=following)

    def known(**offsets: int) -> Basis:
        kind = OffsetKind.EXCLUSIVE_NEXT
        parts = {name: PartitionBasis(partition_id=name, offset_kind=kind, offset=offset) for name, offset in offsets.items()}
        return make_basis(STREAM, parts)

    basis = ReplayBasis(stream_name=STREAM, partitions=(span("a", 0, 10), span("b", 5, 10)))
    for inside in (known(a=10, b=5), known(a=0, b=10), known(b=7), known(a=3, b=7, c=0)):
        assert basis.contains_end(inside)
    equal = ReplayBasis.model_validate_json(basis.model_dump_json())  # the same name in another string
    assert equal.contains_end(known(a=10, b=5))
    for outside in (known(a=11, b=7), known(a=3, b=4), known(a=3), known(), known(a=3, b=7, c=1)):
        assert not basis.contains_end(outside)
    for name in ("other", "A", "a-stream-later"):
        assert not basis.contains_end(known(a=3, b=7).model_copy(update={"stream_name": name}))
