from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, Position, basis_text, make_basis, order

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
