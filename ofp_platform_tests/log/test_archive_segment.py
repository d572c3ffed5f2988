"""Segments: what goes in comes out, the content digest sees everything and nothing else, damage is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.log import archive_segment
from ofp_platform.log.archive_content import SegmentFacts, segment_schema
from ofp_platform.log.archive_segment import SegmentDamaged, SegmentFile, SegmentWriter
from ofp_platform.log.port import RecordBatch
from ofp_platform.log.span_records import log_batches
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import OffsetKind, order, place
from ofp_platform_tests.oracle.list_log import AMENDS, STREAM, ListLog, list_logs, listed, rows_of


def written(log: ListLog, span: PartitionSpan, page: int = 100) -> tuple[bytes, SegmentFacts]:
    writer = SegmentWriter(STREAM, span)
    for batch in log_batches(log, span, page):
        writer.add(batch)
    return writer.finish()


def read(data: bytes, span: PartitionSpan, max_records: int = 100) -> list[RecordBatch]:
    return list(SegmentFile(data, "the segment", span.offset_kind).batches(span, span.end, max_records))


@given(list_logs, st.integers(1, 5), st.integers(1, 5), st.data())
def test_any_part_of_a_segment_is_what_the_log_has(log: ListLog, page: int, max_records: int, data: st.DataObject) -> None:
    count = len(log.records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_segment, "ROW_GROUP_RECORDS", 3)
        segment, _ = written(log, log.span(0, count), page)
    first = data.draw(st.integers(0, count))
    part = log.span(first, data.draw(st.integers(first, count)))
    batches = read(segment, part, max_records)
    assert rows_of(batches) == rows_of(list(log_batches(log, part, 100)))
    assert all(len(batch) + len(batch.unreadable) > 0 and len(batch) <= max_records for batch in batches)
    if part.start != part.next:
        assert batches[-1].next == part.end
    after = place(part.first)
    for batch in batches:
        positions = [order(offset) for offset in [*batch.offsets, *(one.offset for one in batch.unreadable)]]
        assert after < min(positions) <= max(positions) <= place(batch.next)
        after = place(batch.next)
    for batch, following in pairwise(batches):  # each `next` is where reading goes on
        rest = PartitionSpan(**{**dict(part), "start": batch.next.offset})
        assert rows_of(read(segment, rest, max_records))[0] == rows_of([following])[0]


@given(list_logs, st.integers(1, 12), st.integers(1, 12))
def test_the_content_does_not_depend_on_how_it_was_written(log: ListLog, page: int, group: int) -> None:
    span = log.span(0, len(log.records))
    one, facts = written(log, span)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_segment, "ROW_GROUP_RECORDS", group)
        other, other_facts = written(log, span, page)
    assert facts == other_facts
    assert SegmentFile(one, "", span.offset_kind).facts(STREAM, span) == facts
    assert SegmentFile(other, "", span.offset_kind).facts(STREAM, span) == facts
    admitted = [record.admitted_at for record in log.records if record.readable]
    assert (facts.admitted_min, facts.admitted_max) == (min(admitted, default=None), max(admitted, default=None))
    times = [record.ts for record in log.records if record.readable]
    assert facts.event_time_max == max(times, default=None)
    assert (facts.records, facts.records + facts.unreadable) == (len(admitted), len(log.records))


@pytest.mark.parametrize(
    "change",
    [
        {"event_id": "txn-x"},
        {"event_type": "refund"},
        {"schema_version": "v2"},
        {"ts": 5},
        {"admitted_at": 5},
        {"emitted_at": 5},
        {"pins": 1},
        {"payload": b'{"amount_minor":-1}'},
        {"amends": AMENDS[0]},
        {"readable": False},
    ],
)
def test_the_content_digest_covers_every_field(change: dict[str, object]) -> None:
    log = listed(5)
    before = written(log, log.span(0, 5))[1].content_digest
    log.change(3, **change)
    assert written(log, log.span(0, 5))[1].content_digest != before


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("offset", 9),
        ("admitted_at", 5),
        ("ts", 5),
        ("emitted_at", 5),
        ("event_id", "txn-00000x"),
        ("event_type", "card_authorisatiox"),
        ("schema_version", "v2"),
        ("pins", None),
        ("payload", '{"amount_minor":5}'),
        ("payload_hash", bytes(32)),
    ],
)
def test_the_content_digest_covers_each_column_by_itself(column: str, value: object) -> None:
    log = listed(5)
    span = log.span(0, 20)  # wide enough for the other position
    data, facts = written(log, log.span(0, 5))
    values = pq.read_table(pa.BufferReader(data)).column(column).to_pylist()
    values[4] = values[4].replace("one", "two") if value is None else value
    changed = SegmentFile(_rewritten(data, **{column: values}), "", span.offset_kind).facts(STREAM, span)
    assert changed.content_digest != SegmentFile(data, "", span.offset_kind).facts(STREAM, span).content_digest
    assert (changed.records, facts.records) == (5, 5)


def test_the_content_digest_covers_what_is_amended_and_by_which_record() -> None:
    digests = set()
    for ordinal, amends in ((3, AMENDS[0]), (3, AMENDS[1]), (2, AMENDS[0]), (2, None)):
        log = listed(5)
        log.change(ordinal, amends=amends)
        digests.add(written(log, log.span(0, 5))[1].content_digest)
    assert len(digests) == 4


def test_the_content_digest_covers_where_it_belongs() -> None:
    log, empty = listed(5), listed(0)
    span, elsewhere = log.span(0, 5), log.span(0, 5).model_copy(update={"partition_id": "other"})
    data, facts = written(log, span)
    segment = SegmentFile(data, "", span.offset_kind)
    digests = {segment.facts(STREAM, span).content_digest, segment.facts("other", span).content_digest}
    digests |= {segment.facts(STREAM, elsewhere).content_digest, written(empty, empty.span(0, 0))[1].content_digest}
    assert facts.content_digest in digests
    assert len(digests) == 4


def test_text_moved_between_neighbours_is_another_content() -> None:
    log = listed(2)
    log.change(0, event_id="ab")
    log.change(1, event_id="c")
    before = written(log, log.span(0, 2))[1].content_digest
    log.change(0, event_id="a")
    log.change(1, event_id="bc")
    assert written(log, log.span(0, 2))[1].content_digest != before


def test_row_groups_are_bounded_by_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_segment, "ROW_GROUP_BYTES", 60)
    log = listed(12)
    data, _ = written(log, log.span(0, 12), page=2)
    assert pq.ParquetFile(pa.BufferReader(data)).num_row_groups == 6 // 2
    assert rows_of(read(data, log.span(0, 12))) == rows_of(list(log_batches(log, log.span(0, 12), 100)))


def test_a_truncated_segment_is_named() -> None:
    log = listed(20)
    data, _ = written(log, log.span(0, 20))
    for length in range(0, len(data), 7):
        with pytest.raises(SegmentDamaged, match="the segment"):
            read(data[:length], log.span(0, 20))


def test_another_parquet_file_is_no_segment() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"offset": [1, 2]}), sink)
    with pytest.raises(SegmentDamaged, match="other columns"):
        SegmentFile(sink.getvalue().to_pybytes(), "x", OffsetKind.EXCLUSIVE_NEXT)
    data, _ = written(listed(3), listed(3).span(0, 3))
    with pytest.raises(SegmentDamaged, match="other columns"):
        SegmentFile(data, "x", OffsetKind.AFTER_SEQUENCE_NUMBER)


def _rewritten(data: bytes, **columns: Sequence[object]) -> bytes:
    table = pq.read_table(pa.BufferReader(data))
    for name, values in columns.items():
        index = table.column_names.index(name)
        table = table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def test_positions_out_of_order_or_outside_are_damage() -> None:
    log = listed(3)
    span = log.span(0, 3)
    data, _ = written(log, span)
    for offsets in ([0, 2, 1], [0, 1, 1], [0, 1, 3]):
        with pytest.raises(SegmentDamaged, match="position"):
            SegmentFile(_rewritten(data, offset=offsets), "x", span.offset_kind).facts(STREAM, span)


def test_pins_that_are_none_are_damage() -> None:
    log = listed(3)
    data, _ = written(log, log.span(0, 3))
    for pins in ("{}", "no JSON"):
        with pytest.raises(SegmentDamaged, match="cannot be read"):
            read(_rewritten(data, pins=[pins] * 3), log.span(0, 3))


def test_a_position_is_a_record_or_unreadable() -> None:
    log = listed(3, unreadable=[1])
    span = log.span(0, 3)
    data, _ = written(log, span)
    segment = SegmentFile(data, "x", span.offset_kind)
    segment.unreadable = [dataclasses.replace(segment.unreadable[0], offset=2)]
    with pytest.raises(SegmentDamaged, match="both"):
        segment.facts(STREAM, span)


def test_what_amends_is_a_record() -> None:
    log = listed(3)
    log.change(1, amends=AMENDS[0])
    span = log.span(0, 3)
    data, _ = written(log, span)
    segment = SegmentFile(data, "x", span.offset_kind)
    assert segment.amendments == {1: AMENDS[0]}
    segment.amendments = {3: AMENDS[0]}
    with pytest.raises(SegmentDamaged, match="a position that has no record"):
        segment.facts(STREAM, span)


def test_anybody_can_read_the_columns() -> None:
    log = listed(3)
    data, _ = written(log, log.span(0, 3))
    table = pq.read_table(pa.BufferReader(data))
    assert table.schema.equals(segment_schema(OffsetKind.EXCLUSIVE_NEXT))
    row = table.to_pylist()[1]
    assert (row["offset"], row["payload"], row["event_type"]) == (1, '{"amount_minor":1}', "card_authorisation")
    assert row["admitted_at"].isoformat() == "2024-05-01T10:00:01.000001+00:00"
