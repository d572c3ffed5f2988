from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.native import Int64Array
from ofp_platform.online.state.chunk_codec import (
    FORMAT_VERSION,
    ChunkCorrupt,
    pack,
    pack_many,
    unpack,
    unpack_many,
    words_checksum,
)

LEAST, GREATEST = -(2**63), 2**63 - 1


@st.composite
def matrices(draw: st.DrawFn) -> Int64Array:
    """Columns of every shape that the codec treats by itself: constant, narrow, of a common step, wide."""
    count = draw(st.one_of(st.integers(0, 20), st.just(256)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    columns = []
    for _ in range(draw(st.sampled_from((1, 5, 9)))):
        base = draw(st.sampled_from((0, -1, 10**15, LEAST, GREATEST)))
        step = draw(st.sampled_from((1, 2, 1_000_000, 2**40 + 1, 2**63)))
        reach = draw(st.sampled_from((0, 1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1))) // step
        steps = random.integers(0, reach, count, np.uint64, endpoint=True)
        if count and draw(st.booleans()):
            steps[draw(st.integers(0, count - 1))] = reach
        # wraps where the base leaves no room: any int64 may stand in a column
        column = (steps * np.uint64(step) + np.uint64(base % 2**64)).view(np.int64)
        if draw(st.booleans()):  # hardly any event has a value
            column[random.random(count) > draw(st.sampled_from((0, 0.02, 0.2, 0.5)))] = 0
        columns.append(column)
    return np.array(columns, np.int64).reshape(len(columns), count)


@given(matrices())
def test_round_trip(matrix: Int64Array) -> None:
    block = pack(matrix)
    assert len(block) % 8 == 0
    assert np.array_equal(unpack(block), matrix)
    assert unpack(block).shape == matrix.shape


@given(matrices(), st.lists(st.integers(0, 256), max_size=10))
def test_many_are_each(matrix: Int64Array, cuts: list[int]) -> None:
    count = matrix.shape[1]
    offsets = np.array([0, *sorted(min(cut, count) for cut in cuts), count], np.int64)
    blocks = pack_many(matrix, offsets)
    parts = [np.ascontiguousarray(matrix[:, a:b]) for a, b in pairwise(offsets)]
    assert blocks == [pack(part) for part in parts]
    decoded, places = unpack_many(blocks, matrix.shape[0])
    assert np.array_equal(decoded, matrix)
    assert np.array_equal(places, offsets)
    sparse: list[bytes | None] = [None, *blocks[:1], None, *blocks[1:], None]
    decoded, places = unpack_many(sparse, matrix.shape[0])
    assert np.array_equal(decoded, matrix)
    assert places.tolist() == [0, 0, offsets[1], *offsets[1:].tolist(), count]


@pytest.mark.parametrize("blocks", [[], [None], [None, None]])
def test_no_blocks_have_no_events(blocks: list[bytes | None]) -> None:
    matrix, offsets = unpack_many(blocks, 3)
    assert matrix.shape == (3, 0)
    assert offsets.tolist() == [0] * (len(blocks) + 1)


@given(matrices(), st.data())
def test_any_flipped_bit_is_found(matrix: Int64Array, data: st.DataObject) -> None:
    block = bytearray(pack(matrix))
    bit = data.draw(st.integers(0, 8 * len(block) - 1))
    block[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ChunkCorrupt):
        unpack(bytes(block))
    with pytest.raises(ChunkCorrupt, match="chunk 1 of 2"):
        unpack_many([pack(matrix), bytes(block)], matrix.shape[0])


@given(matrices(), st.data())
def test_any_other_length_is_found(matrix: Int64Array, data: st.DataObject) -> None:
    block = pack(matrix)
    with pytest.raises(ChunkCorrupt):
        unpack(block[: data.draw(st.integers(0, len(block) - 1))])
    with pytest.raises(ChunkCorrupt):
        unpack(block + bytes(data.draw(st.integers(1, 24))))
    with pytest.raises(ChunkCorrupt):
        unpack_many([block[:-1], block], matrix.shape[0])


@given(st.binary(max_size=200))
def test_bytes_of_no_chunk_are_found(block: bytes) -> None:
    with pytest.raises(ChunkCorrupt):
        unpack(block)
    with pytest.raises(ChunkCorrupt):
        unpack_many([block], 1)


def test_another_number_of_columns_is_found() -> None:
    block = pack(np.zeros((3, 4), np.int64))
    assert block[0] == FORMAT_VERSION
    with pytest.raises(ChunkCorrupt):
        unpack_many([block], 4)


def test_a_chunk_of_regular_times_is_small() -> None:
    times = 1_700_000_000_000_000 + 1_000_000 * np.arange(256, dtype=np.int64)
    # header, descriptors, base, divisor, one byte each
    assert len(pack(times.reshape(1, 256))) == 16 + 8 + 8 + 8 + 256


def test_a_column_that_hardly_any_event_has_is_small() -> None:
    column = np.zeros((1, 256), np.int64)
    column[0, [3, 200]] = LEAST, GREATEST
    # header, descriptors, count, two places and values
    assert len(pack(column)) == 16 + 8 + 8 + 32
    half = column.copy()
    half[0, ::2] = GREATEST
    assert len(pack(half)) == 16 + 8 + 8 + 8 * 256


def reformed(block: bytes, place: int, word: int) -> bytes:
    """The block with another word, and the checksum of that."""
    words = np.frombuffer(block, np.uint64).copy()
    words[place] = word
    words[1] = words_checksum(words, 0, len(words))
    return words.tobytes()


@pytest.mark.parametrize(("place", "word"), [(3, 3), (3, 1), (3, 257), (3, 2**64 - 1), (4, 256), (4, 2**63), (2, 192), (2, 65)])
def test_a_column_of_few_values_that_says_too_much_is_found(place: int, word: int) -> None:
    column = np.zeros((1, 256), np.int64)
    column[0, [3, 5]] = LEAST, 7
    block = pack(column)
    moved = unpack(reformed(block, 4, 2))[0]
    assert (moved[2], moved[3], moved[5]) == (LEAST, 0, 7)
    with pytest.raises(ChunkCorrupt):
        unpack(reformed(block, place, word))


def test_too_many_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="256 columns"):
        pack(np.zeros((256, 1), np.int64))
