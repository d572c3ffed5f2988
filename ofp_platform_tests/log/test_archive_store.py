"""Names of archive objects, and which segments a replay reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_store import Archive, ReceiptDamaged
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import OffsetKind
from ofp_platform_tests.oracle.list_log import PARTITION, STREAM, listed
from ofp_platform_tests.oracle.no_ledger import NO_LEDGER

DENSE, SPARSE = OffsetKind.EXCLUSIVE_NEXT, OffsetKind.AFTER_SEQUENCE_NUMBER
_FOLDER = "archive/a-stream/shard=3A0=2Fa"


def dense(start: int, following: int) -> PartitionSpan:
    return PartitionSpan(partition_id=PARTITION, offset_kind=DENSE, start=start, next=following)


def test_objects_are_named_by_what_they_hold(tmp_path: Path) -> None:
    archive = Archive(ObjectStore(str(tmp_path)), STREAM)
    assert archive.segment_path(dense(0, 25_000)) == f"{_FOLDER}/segments/0000000000000000-0000000000025000.parquet"
    log = listed(2, SPARSE)
    assert archive.receipt_path(log.span(0, 1)) == f"{_FOLDER}/receipts/start-95.json"
    assert archive.receipt_path(log.span(1, 2)) == f"{_FOLDER}/receipts/95-1000098.json"


@given(st.lists(st.tuples(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1)), max_size=5, unique=True))
def test_names_lead_back_to_spans(tmp_path_factory: pytest.TempPathFactory, ends: list[tuple[int, int]]) -> None:
    archive = Archive(ObjectStore(str(tmp_path_factory.mktemp("objects"))), STREAM)
    spans = sorted({(min(pair), max(pair)) for pair in ends})
    for kind in (DENSE, SPARSE):
        for start, following in spans:
            texts = (start, following) if kind is DENSE else (str(start or ""), str(following))
            span = PartitionSpan(partition_id=f"{kind.value}", offset_kind=kind, start=texts[0], next=texts[1])
            archive.store.put_if_absent(archive.receipt_path(span), b"")
        found = archive.spans(kind.value, kind)
        assert [(int(span.start or 0), int(span.next)) for span in found] == spans


@pytest.mark.parametrize(
    "name", ["x.json", "1-2.json", "0000000000000000-0000000000000001.txt", "a/0000000000000000-0000000000000001.json"]
)
def test_a_foreign_object_among_receipts_is_named(tmp_path: Path, name: str) -> None:
    archive = Archive(ObjectStore(str(tmp_path)), STREAM)
    archive.store.put_if_absent(f"{_FOLDER}/receipts/{name}", b"{}")
    with pytest.raises(ReceiptDamaged, match="has not the name of one"):
        archive.spans(PARTITION, DENSE)


def test_a_receipt_of_another_place_is_refused(tmp_path: Path) -> None:
    log = listed(20)
    archive = Archive(ObjectStore(str(tmp_path)), STREAM)
    archive_up_to(OffsetRanges(NO_LEDGER, log, 10), archive, log.ends())
    first, second = (tmp_path / archive.receipt_path(span) for span in (log.span(0, 10), log.span(10, 20)))
    second.write_bytes(first.read_bytes())
    with pytest.raises(ReceiptDamaged, match="another span"):
        archive.receipt(log.span(10, 20))
    moved = Archive(ObjectStore(str(tmp_path)), "other")
    moved.store.put_if_absent(moved.receipt_path(log.span(0, 10)), first.read_bytes())
    with pytest.raises(ReceiptDamaged, match="another span"):
        moved.receipt(log.span(0, 10))
    assert moved.receipt(log.span(3, 4)) is None


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=8), st.integers(0, 20), st.integers(0, 20))
def test_a_replay_reads_as_far_as_segments_join(parts: list[tuple[int, int]], one: int, other: int) -> None:
    spans = [dense(start, start + length) for start, length in parts]
    wanted = dense(min(one, other), max(one, other))
    held = {n for start, length in parts for n in range(start, start + length)}
    reached = min([n for n in range(int(wanted.start), 40) if n not in held] + [int(wanted.next)])
    chosen = wanted.covered_by(spans)
    at = int(wanted.start)
    for span in chosen:
        assert int(span.start) <= at < int(span.next)
        assert all(not int(rival.start) <= at or int(rival.next) <= int(span.next) for rival in spans)
        at = int(span.next)
    assert min(at, int(wanted.next)) == reached
