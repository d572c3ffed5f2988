from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import DENSE as DENSE_KIND
from ofp_platform.vocabulary.position import (
    INTEGERS_WITH_GAPS,
    SEQUENCE_TOKENS,
    Basis,
    OffsetKind,
    PartitionBasis,
    Position,
    PositionKind,
    basis_text,
    make_basis,
    order,
    place,
    record_limit,
    shared,
)

DENSE, SPARSE = OffsetKind.EXCLUSIVE_NEXT, OffsetKind.AFTER_SEQUENCE_NUMBER
offsets = st.integers(0, 2**53 - 1)
numbers = st.integers(0, 10**56 - 1)


def basis(kind: OffsetKind, offset: int | str, *, closed: bool = False) -> Basis:
    return make_basis("events", {"p0": PartitionBasis(partition_id="p0", offset_kind=kind, offset=offset, closed=closed)})


def position(offset: int | str, partition: str = "p0", stream: str = "events") -> Position:
    return Position(stream_name=stream, partition_id=partition, offset=offset)


@given(offsets, offsets)
def test_a_dense_basis_ends_before_its_offset(end: int, offset: int) -> None:
    assert basis(DENSE, end).contains(position(offset)) == (offset < end)


@given(numbers, numbers)
def test_a_kinesis_basis_ends_with_its_number(last: int, number: int) -> None:
    assert basis(SPARSE, str(last)).contains(position(str(number))) == (number <= last)


def test_numbers_compare_as_numbers_not_as_texts() -> None:
    assert basis(SPARSE, "100").contains(position("99"))
    assert not basis(SPARSE, "99").contains(position("100"))


def test_the_start_holds_nothing() -> None:
    assert not basis(DENSE, 0).contains(position(0))
    assert not basis(SPARSE, "").contains(position("0"))
    assert order("") < order("0")


def test_the_end_of_a_closed_shard_holds_its_last_record() -> None:
    assert basis(SPARSE, "7", closed=True).contains(position("7"))


def test_other_partitions_and_streams_are_not_in_it() -> None:
    assert not basis(DENSE, 10).contains(position(1, partition="p1"))
    for stream in ("others", "an-earlier-name", "event", "Events"):
        assert not basis(DENSE, 10).contains(position(1, stream=stream))
    assert basis(DENSE, 10).contains(position(1, stream="-events".removeprefix("-")))  # the same name in another string


def test_an_offset_of_another_kind_of_log_is_not_in_it() -> None:
    assert not basis(DENSE, 10).contains(position("1"))
    assert not basis(SPARSE, "10").contains(position(1))


def test_partitions_stand_in_the_order_of_their_ids() -> None:
    parts = {
        name: PartitionBasis(partition_id=name, offset_kind=DENSE, offset=index) for index, name in enumerate(["p2", "p10", "p1"])
    }
    made = make_basis("events", parts)
    assert [part.partition_id for part in made.partitions] == ["p1", "p10", "p2"]
    assert made.by_partition() == parts


@pytest.mark.parametrize("offset", [-1, 2**53, "abc", "-1", "1.0", "1\n", "٣", "1" * 129, None, 1.0])
def test_refused_offsets(offset: Any) -> None:
    with pytest.raises(ValidationError):
        Position.model_validate({"stream_name": "events", "partition_id": "p0", "offset": offset})


def test_wire_round_trip() -> None:
    made = basis(SPARSE, "42", closed=True)
    assert Basis.model_validate_json(made.model_dump_json()) == made
    assert Basis.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize("offset", [0, 2**53 - 1, "", "0", "1" * 128])
def test_the_least_and_the_greatest_offset(offset: int | str) -> None:
    assert position(offset).offset == offset


def test_the_text_of_a_basis_is_canonical() -> None:
    assert basis_text(basis(DENSE, 3)) == (
        '{"partitions":[{"closed":false,"offset":3,"offset_kind":"exclusive_next","partition_id":"p0"}],"stream_name":"events"}'
    )


@pytest.mark.parametrize(("smaller", "greater"), [("", "0"), ("0", "1"), ("9", "10"), (0, 1), (9, 10)])
def test_offsets_have_an_order(smaller: int | str, greater: int | str) -> None:
    assert order(smaller) < order(greater)
    assert order("") == -1
    assert order("17") == order(17) == 17


@pytest.mark.parametrize(
    ("kind", "offset", "alike"), [(DENSE, 1, True), (DENSE, "1", False), (SPARSE, "1", True), (SPARSE, 1, False)]
)
def test_what_counts_alike(kind: OffsetKind, offset: int | str, alike: bool) -> None:
    assert basis(kind, 1 if kind is DENSE else "1").partitions[0].counts_like(position(offset)) is alike


GAPS = INTEGERS_WITH_GAPS
KINDS = (DENSE_KIND, SEQUENCE_TOKENS, GAPS)
kinds = st.sampled_from(KINDS)


@st.composite
def logs(draw: st.DrawFn) -> tuple[PositionKind, list[int | str]]:
    """A kind, and the offsets of the records of a partition, in order; at least one."""
    kind = draw(kinds)
    if kind.is_countable:
        return kind, list(range(draw(st.integers(1, 30))))
    numbers = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=30)))
    return kind, [kind.offset_kind.parse(str(number)) for number in numbers]


def bases(kind: PositionKind, offsets: Sequence[int | str]) -> list[PartitionBasis]:
    """The basis before the first record, and that behind each."""
    start = kind.start("p")
    return [start, *map(start.after, offsets)]


@given(logs())
def test_the_order_of_bases_is_total_and_is_that_of_the_records_in_them(log: tuple[PositionKind, list[int | str]]) -> None:
    kind, offsets = log
    held = [{offset for offset in offsets if part.contains(offset)} for part in bases(kind, offsets)]
    assert held == [set(offsets[:count]) for count in range(len(offsets) + 1)]
    places = [place(part) for part in bases(kind, offsets)]
    assert places == sorted(set(places))


@given(logs())
def test_the_start_contains_nothing_and_every_other_basis_its_last_record(log: tuple[PositionKind, list[int | str]]) -> None:
    kind, offsets = log
    start, *following = bases(kind, offsets)
    assert start.is_at_start
    assert place(start) == place(None)
    assert not any(start.contains(offset) for offset in offsets)
    for part, offset in zip(following, offsets, strict=True):
        assert part.contains(offset)
        assert not part.is_at_start
        assert part.start() == start
        assert kind.offset_kind.parse(str(part.offset)) == part.offset
        assert kind.offset_kind.matches(part.offset)
        assert kind.basis("p", part.offset) == part


@given(logs(), st.data())
def test_a_basis_before_a_record_holds_all_earlier_ones(log: tuple[PositionKind, list[int | str]], data: st.DataObject) -> None:
    kind, offsets = log
    known = data.draw(st.integers(0, len(offsets) - 1))
    index = data.draw(st.integers(0, len(offsets) - known - 1))
    before = bases(kind, offsets)[known].before(offsets[known:], index)
    assert [offset for offset in offsets if before.contains(offset)] == offsets[: known + index]


@given(logs(), st.data())
def test_a_cut_and_the_rest_are_the_whole(log: tuple[PositionKind, list[int | str]], data: st.DataObject) -> None:
    kind, offsets = log
    parts = bases(kind, offsets)
    first, at, end = sorted(data.draw(st.lists(st.integers(0, len(offsets)), min_size=3, max_size=3)))
    closed = data.draw(st.booleans())
    whole = PartitionSpan.whole(parts[end].model_copy(update={"closed": closed})).rest(parts[first])
    cut, rest = whole.up_to(parts[at]), whole.rest(parts[at])
    inside = [[offset for offset in offsets if span.contains(offset)] for span in (whole, cut, rest)]
    assert inside == [offsets[first:end], offsets[first:at], offsets[at:end]]
    assert (cut.first, cut.end.offset, rest.first.offset, rest.end) == (whole.first, rest.start, cut.next, whole.end)
    assert rest.closed is closed
    assert [span.is_empty for span in (cut, rest)] == [first == at, at == end]
    assert whole.shared(cut) == (None if cut.is_empty else cut)
    assert whole.covered_by([rest, cut]) == [span for span in (cut, rest) if not span.is_empty]


@given(kinds, st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=3, max_size=3))
def test_shared_is_commutative_associative_and_idempotent(kind: PositionKind, tokens: list[tuple[int, bool]]) -> None:
    one, two, three = (kind.basis("p", kind.offset_kind.parse(str(number)), closed=closed) for number, closed in tokens)
    assert shared(one, two) == shared(two, one)
    assert shared(one, shared(two, three)) == shared(shared(one, two), three)
    assert shared(one, one) == one
    assert shared(one, kind.start("p")).is_at_start
    for number in range(10):
        offset = kind.offset_kind.parse(str(number))
        assert shared(one, two).contains(offset) == (one.contains(offset) and two.contains(offset))


@given(logs(), st.data())
def test_offset_arithmetic_counts_only_where_no_integer_is_skipped(
    log: tuple[PositionKind, list[int | str]], data: st.DataObject
) -> None:
    kind, offsets = log
    parts = bases(kind, offsets)
    first, end = sorted(data.draw(st.lists(st.integers(0, len(offsets)), min_size=2, max_size=2)))
    limit = record_limit(parts[first], parts[end])
    assert (limit is None) is (kind is SEQUENCE_TOKENS)
    if limit is not None:
        assert limit >= end - first
        assert not kind.is_countable or limit == end - first
    back = parts[end].back(3)
    assert (back is None) is (kind is SEQUENCE_TOKENS)
    if back is not None:
        assert 0 <= sum(parts[end].contains(offset) and not back.contains(offset) for offset in offsets) <= 3
    assert kind.is_run(parts[first], parts[end], [order(offset) for offset in offsets[first:end]])
    assert all(kind.continues(part, offset) for part, offset in zip(parts, offsets, strict=False))


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_record_shows_only_where_records_are_counted(kind: PositionKind) -> None:
    parse = kind.offset_kind.parse
    start, end = kind.start("p"), kind.start("p").after(parse("4"))
    assert kind.is_run(start, end, [0, 1, 3, 4]) is not kind.is_countable
    assert kind.continues(start, parse("1")) is not kind.is_countable
    for wrong in ([0, 2, 1, 4], [0, 0], [3, 5]):
        assert not kind.is_run(start, end, wrong)
    assert not kind.continues(end, parse("4"))


def test_what_each_kind_says_of_itself() -> None:
    facts = [(k.is_countable, k.offset_kind.is_integer, k.offset_kind.start_is_first, k.offset_kind.start_offset) for k in KINDS]
    assert facts == [(True, True, True, 0), (False, False, False, ""), (False, True, True, 0)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_start_is_of_every_history(kind: PositionKind) -> None:
    later = kind.start("p").after(kind.offset_kind.parse("4")).model_copy(update={"incarnation": "0123456789ab"})
    assert later.moved(kind.offset_kind.start_offset) == kind.start("p")
    assert later.moved(kind.offset_kind.parse("3")).incarnation == "0123456789ab"


def test_integers_with_gaps_are_in_no_stored_form() -> None:
    assert bases(GAPS, [4]) == bases(DENSE_KIND, [4])
    assert {kind.value for kind in OffsetKind} == {"exclusive_next", "after_sequence_number"}


def test_only_integers_are_read_as_integers() -> None:
    assert (OffsetKind.EXCLUSIVE_NEXT.parse("017"), OffsetKind.AFTER_SEQUENCE_NUMBER.parse("017")) == (17, "017")
    with pytest.raises(ValueError, match="invalid literal"):
        OffsetKind.EXCLUSIVE_NEXT.parse("start")
