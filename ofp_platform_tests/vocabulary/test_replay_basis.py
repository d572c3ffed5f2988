"""Spans of a replay: which way they run, what stands before and behind them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan, ReplayBasis
from ofp_platform.vocabulary.position import OffsetKind, PartitionBasis, make_basis

DENSE, SPARSE = OffsetKind.EXCLUSIVE_NEXT, OffsetKind.AFTER_SEQUENCE_NUMBER


def span(
    start: int | str, following: int | str, name: str = "p", kind: OffsetKind = DENSE, closed: bool = False
) -> PartitionSpan:
    return PartitionSpan(partition_id=name, offset_kind=kind, start=start, next=following, closed=closed)


@pytest.mark.parametrize(
    ("start", "following", "kind"), [(0, 0, DENSE), (3, 3, DENSE), (3, 4, DENSE), ("", "", SPARSE), ("9", "10", SPARSE)]
)
def test_a_span_runs_forward_or_is_empty(start: Any, following: Any, kind: OffsetKind) -> None:
    made = span(start, following, kind=kind)
    assert made.first == PartitionBasis(partition_id="p", offset_kind=kind, offset=start)
    assert made.end == PartitionBasis(partition_id="p", offset_kind=kind, offset=following)
    assert not made.closed


@pytest.mark.parametrize(("start", "following", "kind"), [(4, 3, DENSE), (1, 0, DENSE), ("10", "9", SPARSE), ("0", "", SPARSE)])
def test_a_reversed_span_is_refused(start: Any, following: Any, kind: OffsetKind) -> None:
    with pytest.raises(ValidationError, match="reversed"):
        span(start, following, kind=kind)


@pytest.mark.parametrize(
    ("start", "following", "kind"),
    [("1", 2, DENSE), (1, "2", DENSE), ("1", "2", DENSE), (1, "2", SPARSE), ("1", 2, SPARSE), (1, 2, SPARSE)],
)
def test_both_ends_are_of_the_kind_of_the_log(start: Any, following: Any, kind: OffsetKind) -> None:
    with pytest.raises(ValidationError, match="not of offset kind"):
        span(start, following, kind=kind)


def test_the_end_of_an_ended_partition_says_so() -> None:
    ended = span("1", "5", kind=SPARSE, closed=True)
    assert ended.end.closed
    assert not ended.first.closed
    assert ReplayBasis(stream_name="s", partitions=(ended,)).end == make_basis("s", {"p": ended.end})


def test_partitions_stand_in_the_order_of_their_ids_each_once() -> None:
    one, other = span(0, 5, "a"), span(2, 3, "b")
    basis = ReplayBasis(stream_name="s", partitions=(one, other))
    assert basis.by_partition() == {"a": one, "b": other}
    assert basis.end == make_basis("s", {"a": one.end, "b": other.end})
    for wrong in ((other, one), (one, one), ()):
        with pytest.raises(ValidationError):
            ReplayBasis(stream_name="s", partitions=wrong)


def test_everything_up_to_a_basis_begins_at_the_first_record() -> None:
    dense = make_basis("s", {name: span(0, offset, name).end for name, offset in (("b", 7), ("a", 0))})
    shuffled = dense.model_copy(update={"partitions": dense.partitions[::-1]})
    for basis in (dense, shuffled):
        assert ReplayBasis.up_to(basis) == ReplayBasis(stream_name="s", partitions=(span(0, 0, "a"), span(0, 7, "b")))
    sparse = make_basis("s", {"a": span("", "12", "a", SPARSE, closed=True).end})
    assert ReplayBasis.up_to(sparse).partitions == (span("", "12", "a", SPARSE, closed=True),)


def test_a_span_is_read_from_its_wire() -> None:
    text = '{"partition_id":"p","offset_kind":"after_sequence_number","start":"","next":"7"}'
    assert PartitionSpan.model_validate_json(text) == span("", "7", kind=SPARSE)
    wire = {"stream_name": "s", "partitions": [{"partition_id": "p", "offset_kind": "exclusive_next", "start": 0, "next": 7}]}
    assert ReplayBasis.model_validate(wire) == ReplayBasis(stream_name="s", partitions=(span(0, 7),))
