"""Reading a span out of a log: exactly its records, or an error that names what is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.log import span_records
from ofp_platform.log.span_records import ReplayGap, log_batches
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import OffsetKind
from ofp_platform_tests.oracle.list_log import ListLog, list_logs, listed, rows_of

DENSE, SPARSE = OffsetKind.EXCLUSIVE_NEXT, OffsetKind.AFTER_SEQUENCE_NUMBER


@given(list_logs, st.integers(1, 5), st.data())
def test_a_span_is_read_whole_and_nothing_else(log: ListLog, max_records: int, data: st.DataObject) -> None:
    count = len(log.records)
    first = data.draw(st.integers(0, count))
    span = log.span(first, data.draw(st.integers(first, count)))
    batches = list(log_batches(log, span, max_records))
    everything = rows_of([log.read(span.partition_id, log.at(0), 100)])
    following = next(n for n in range(count + 1) if log.at(n).offset == span.next)
    assert rows_of(batches) == everything[first:following]
    assert [batch.next for batch in batches[-1:]] == ([span.end] if first < following else [])
    assert all(len(batch) + len(batch.unreadable) <= max_records for batch in batches)


def test_a_sparse_span_may_end_between_records() -> None:
    log = listed(5, SPARSE)
    end = str(int(str(log.at(3).offset)) + 1)
    [batch] = log_batches(log, log.span(0, 3).model_copy(update={"next": end}), 100)
    assert (len(batch), batch.next.offset) == (3, end)
    none = log.span(0, 0).model_copy(update={"next": "5"})
    [empty] = log_batches(log, none, 100)
    assert (len(empty), empty.next.offset) == (0, "5")


def test_pages_shrink_where_records_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_records, "PAGE_BYTES", 1000)
    log = listed(600)
    for n in range(600):
        log.change(n, payload=b'"%b"' % (b"x" * 98))
    sizes = [len(batch) for batch in log_batches(log, log.span(0, 600), 500)]
    assert sizes[0] == 256
    assert set(sizes[1:-1]) == {10}


class Broken(ListLog):
    """Returns something else than it has."""

    how: Any = None

    def read(self, *arguments: Any) -> Any:
        return self.how(super().read(*arguments))


def _without(batch: Any, index: int) -> Any:
    names = ("offsets", "event_ids", "event_types", "schema_versions", "emitted_at", "payload_hashes", "payloads", "amends")
    columns = {name: [*getattr(batch, name)[:index], *getattr(batch, name)[index + 1 :]] for name in names}
    keep = [n for n in range(len(batch)) if n != index]
    arrays = {name: getattr(batch, name)[keep] for name in ("admitted_at", "ts", "pins_index")}
    return replace(batch, **columns, **arrays)


@pytest.mark.parametrize(
    "how",
    [
        lambda batch: _without(batch, 2),
        lambda batch: replace(batch, payloads=batch.payloads[:-1]),
        lambda batch: replace(batch, event_ids=batch.event_ids[:-1]),
        lambda batch: replace(batch, offsets=[0, 2, 1, 3, 4]),
    ],
)
def test_a_log_that_leaves_something_out(how: Any) -> None:
    log = Broken(listed(5).records)
    log.how = how
    with pytest.raises(ReplayGap, match=r"a-stream: the log does not give every record of \[0, 5\)"):
        list(log_batches(log, log.span(0, 5), 100))


def test_a_sparse_log_out_of_order() -> None:
    log = Broken(listed(5).records, SPARSE)
    log.how = lambda batch: replace(batch, offsets=[*batch.offsets[1:], batch.offsets[0]])
    with pytest.raises(ReplayGap, match="does not give every record of after the start up to"):
        list(log_batches(log, log.span(0, 5), 100))


def test_positions_that_are_not_there() -> None:
    log = listed(20)
    log.floor = 5
    with pytest.raises(ReplayGap, match=r"does not have all of \[3, 10\): 3 is gone"):
        list(log_batches(log, log.span(3, 10), 100))
    with pytest.raises(ReplayGap, match=r"does not have all of \[25, 30\): 25 is ahead"):
        list(log_batches(log, log.span(5, 5).model_copy(update={"start": 25, "next": 30}), 100))


def test_parts_of_spans() -> None:
    def span(start: int, following: int, closed: bool = False) -> PartitionSpan:
        return PartitionSpan(partition_id="0", offset_kind=DENSE, start=start, next=following, closed=closed)

    assert span(0, 10).shared(span(5, 20)) == span(5, 20).shared(span(0, 10)) == span(5, 10)
    assert span(0, 10).shared(span(10, 20)) is None
    whole = span(0, 10, True)
    assert whole.up_to(span(0, 5).end) == span(0, 5)
    assert whole.rest(span(5, 10).first) == span(5, 10, True)
    assert span(3, 4).text == "[3, 4)"
