"""Pages of identities, and filters over them: the form in which a projection keeps the events that it has known for long.

A segment holds identities by id, those of one id in the order in which they became known. It is cut into 2^page_bits pages: a
page holds the ids that begin with its number, so where an id would be is known without an index. A page is little-endian words
of 8 bytes:

    word 0      format version (8 bits), words of an identity (8), zero (16), identities (32)
    word 1      checksum of all the other words
    then        the identities

A filter says of most ids that a segment does not have that it does not. It is a Bloom filter of blocks of 256 bits, eight bits
an id in one block, blocks in the order of the ids; 2^group_bits groups of pages have `group_blocks` blocks each, so a segment and
its filter can be written group by group.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from ofp_platform.kernel.native import IN1, INTEGER, NOTHING, OUT1, Int64Array, native
from ofp_platform.online.state.chunk_codec import words_checksum

Words = npt.NDArray[np.uint64]
Blocks = npt.NDArray[np.uint32]
FORMAT_VERSION = 1
ABSENT, SAME, OTHER = 0, 1, 2
"""Of a query: nothing under its id; this very event; only other contents of its id."""

_HEADER = 2
_BLOCK_WORDS = 8
_BLOCK_ENTRIES = 16
"""Identities to a block: 16 bits each, of which about one absent id in 700 passes."""
_PAGE_ENTRIES = 32
"""A page has between this and twice as many on average."""
_GROUP_PAGE_BITS = 5
_MOST_PAGE_BITS = 40
_FOLD = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_SALTS = np.array(
    [0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31], np.uint64
)  # odd numbers, as those of a split block filter of Parquet
_WORDS_1 = types.Array(types.uint64, 1, "C")
_WORDS_1_IN = types.Array(types.uint64, 1, "C", readonly=True)
_WORDS_2 = types.Array(types.uint64, 2, "C")
_WORDS_2_IN = types.Array(types.uint64, 2, "C", readonly=True)
_BLOCKS = types.Array(types.uint32, 2, "C")
_BLOCKS_IN = types.Array(types.uint32, 2, "C", readonly=True)
_FLAGS = types.Array(types.boolean, 1, "C")
_CODES = types.Array(types.int8, 1, "C")


class PageCorrupt(Exception):
    """Bytes of a page or filter of identities that were not written so, or are not there."""


@dataclass(frozen=True)
class SegmentShape:
    """How a segment is cut: 2^page_bits pages in 2^group_bits groups, `group_blocks` blocks of filter a group."""

    page_bits: int
    group_bits: int
    group_blocks: int

    @classmethod
    def of(cls, entries: int, most_group_bits: int = _MOST_PAGE_BITS) -> SegmentShape:
        """Shape for so many identities; a group is never less than a page of the segments that it is merged from."""
        page_bits = min(_MOST_PAGE_BITS, max(0, (entries // _PAGE_ENTRIES).bit_length() - 1))
        group_bits = max(0, min(page_bits - _GROUP_PAGE_BITS, most_group_bits))
        return cls(page_bits, group_bits, max(1, -(-entries // (_BLOCK_ENTRIES << group_bits))))

    @property
    def groups(self) -> int:
        """How many groups."""
        return 1 << self.group_bits

    def pages_of(self, first_group: int, end_group: int, group_bits: int | None = None) -> tuple[int, int]:
        """The pages [first, end) of the groups [first, end), counted in 2^group_bits groups (unless given, this segment's)."""
        shift = self.page_bits - (self.group_bits if group_bits is None else group_bits)
        return first_group << shift, end_group << shift


def prefixes(ids: Words, bits: int) -> Int64Array:
    """The first `bits` bits of ids (their high words, uint64[n]), int64[n]; at most 40."""
    if bits == 0:
        return np.zeros(len(ids), np.int64)
    return (ids >> np.uint64(64 - bits)).astype(np.int64)


def sorted_identities(entries: Words) -> Words:
    """Identities uint64[n, w] by id; those of one id keep their order."""
    high = np.ascontiguousarray(entries[:, 0])
    order = np.argsort(high)
    in_order = high[order]
    if (in_order[1:] == in_order[:-1]).any():  # several of one id, whose order counts
        order = np.lexsort((entries[:, 1], high))
    result: Words = np.take(entries, order, axis=0)
    return result


@native(NOTHING(_WORDS_2_IN, IN1, _WORDS_1))
def _write(entries: Words, offsets: Int64Array, words: Words) -> None:
    width = entries.shape[1]
    at = 0
    for page in range(offsets.shape[0] - 1):
        start = at
        count = offsets[page + 1] - offsets[page]
        words[at] = np.uint64(FORMAT_VERSION) | (np.uint64(width) << np.uint64(8)) | (np.uint64(count) << _FOLD)
        at += _HEADER
        for entry in range(offsets[page], offsets[page + 1]):
            for word in range(width):
                words[at] = entries[entry, word]
                at += 1
        words[start + 1] = words_checksum(words, start, at)


def pack_pages(entries: Words, first_page: int, end_page: int, page_bits: int) -> list[bytes]:
    """Sorted identities uint64[n, w], all with prefixes in [first_page, end_page), as pages."""
    pages = prefixes(entries[:, 0], page_bits)
    offsets = np.searchsorted(pages, np.arange(first_page, end_page + 1))
    width = entries.shape[1]
    words = np.empty(_HEADER * (end_page - first_page) + entries.size, np.uint64)
    _write(np.ascontiguousarray(entries), offsets, words)
    content = words.tobytes()
    starts = (8 * (_HEADER * np.arange(len(offsets)) + width * offsets)).tolist()
    return [content[start:end] for start, end in itertools.pairwise(starts)]


@native(INTEGER(IN1, INTEGER, _WORDS_1_IN, OUT1))
def _check(starts: Int64Array, width: int, words: Words, counts: Int64Array) -> int:
    """Read the counts of pages; the first page that is corrupt, or -1."""
    for page in range(starts.shape[0] - 1):
        start = starts[page]
        end = starts[page + 1]
        if end - start < _HEADER:
            return page
        head = words[start]
        if head & _LOW != np.uint64(FORMAT_VERSION) | (np.uint64(width) << np.uint64(8)):
            return page
        count = np.int64(head >> _FOLD)
        if end - start != _HEADER + count * width or words[start + 1] != words_checksum(words, start, end):
            return page
        counts[page] = count
    return -1


def _check_pages(pages: Sequence[bytes], width: int) -> tuple[Words, Int64Array, Int64Array]:
    """The words of pages, where each begins (int64[k+1]) and how many identities it has (int64[k])."""
    sizes = np.fromiter(map(len, pages), np.int64, len(pages))
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes // 8)])
    counts = np.zeros(len(pages), np.int64)
    odd = np.flatnonzero(sizes % 8)
    words: Words = np.frombuffer(b"".join(pages), np.uint64) if not len(odd) else np.zeros(0, np.uint64)
    corrupt = int(odd[0]) if len(odd) else _check(starts, width, words, counts)
    if corrupt >= 0:
        raise PageCorrupt(f"page {corrupt} of {len(pages)} ({sizes[corrupt]} bytes) is not as it was written")
    return words, starts, counts


def unpack_pages(pages: Sequence[bytes], width: int) -> Words:
    """The identities of pages, one page after the other, uint64[n, width].

    Raises:
        PageCorrupt: not the bytes of pages of such identities.
    """
    words, _, counts = _check_pages(pages, width)
    is_entry = np.ones(len(words), np.bool_)
    heads = np.concatenate([np.zeros(1, np.int64), np.cumsum(_HEADER + width * counts)])[:-1]
    is_entry[heads] = is_entry[heads + 1] = False
    return words[is_entry].reshape(-1, width)


@native()
def _block(high: Any, group_bits: int, group_blocks: int) -> Any:
    """The block of an id, by its high word."""
    if group_bits == 0:
        group = np.uint64(0)
    else:
        group = high >> np.uint64(64 - group_bits)
    inside = (high << np.uint64(group_bits)) >> _FOLD
    return np.int64(group) * group_blocks + np.int64((inside * np.uint64(group_blocks)) >> _FOLD)


@native()
def _bit(low: Any, word: int) -> Any:
    """The bit of an id in a word of its block, by its low word: the five highest of 32 bits of a product."""
    return np.uint32(np.uint64(1) << (((low & _LOW) * _SALTS[word] & _LOW) >> np.uint64(27)))


@native(NOTHING(_WORDS_2_IN, INTEGER, INTEGER, INTEGER, _BLOCKS))
def _fill(entries: Words, group_bits: int, group_blocks: int, first_group: int, blocks: Blocks) -> None:
    for entry in range(entries.shape[0]):
        block = _block(entries[entry, 0], group_bits, group_blocks) - first_group * group_blocks
        for word in range(_BLOCK_WORDS):
            blocks[block, word] |= _bit(entries[entry, 1], word)


def make_filter(entries: Words, shape: SegmentShape, first_group: int, end_group: int) -> list[bytes]:
    """The filter of the groups [first_group, end_group) over the identities in them, one bytes a group."""
    blocks = np.zeros(((end_group - first_group) * shape.group_blocks, _BLOCK_WORDS), np.uint32)
    _fill(np.ascontiguousarray(entries), shape.group_bits, shape.group_blocks, first_group, blocks)
    return [part.tobytes() for part in np.split(blocks, end_group - first_group)]


@native(NOTHING(_WORDS_2_IN, INTEGER, INTEGER, _BLOCKS_IN, _FLAGS))
def _probe(queries: Words, group_bits: int, group_blocks: int, blocks: Blocks, maybe: npt.NDArray[np.bool_]) -> None:
    for query in range(queries.shape[0]):
        block = _block(queries[query, 0], group_bits, group_blocks)
        passes = True
        for word in range(_BLOCK_WORDS):
            if blocks[block, word] & _bit(queries[query, 1], word) == np.uint32(0):
                passes = False
                break
        maybe[query] = passes


class IdentityFilter:
    """The filter of one whole segment."""

    def __init__(self, shape: SegmentShape, parts: Sequence[bytes]) -> None:
        """Put a filter together from its groups' parts, in order.

        Raises:
            PageCorrupt: not as many parts, or of another size, than the segment's shape says.
        """
        part_size = 4 * _BLOCK_WORDS * shape.group_blocks
        if len(parts) != shape.groups or any(len(part) != part_size for part in parts):
            raise PageCorrupt(
                f"a filter of {shape.groups} parts of {part_size} bytes has {len(parts)} parts, or one of another size"
            )
        self._shape = shape
        self._blocks: Blocks = np.frombuffer(b"".join(parts), np.uint32).reshape(-1, _BLOCK_WORDS)

    @staticmethod
    def size(shape: SegmentShape) -> int:
        """Its bytes."""
        return 4 * _BLOCK_WORDS * shape.group_blocks * shape.groups

    def passes(self, queries: Words) -> npt.NDArray[np.bool_]:
        """Whether the segment may have the ids of queries (uint64[n, w]); False is certain."""
        maybe = np.empty(len(queries), np.bool_)
        _probe(queries, self._shape.group_bits, self._shape.group_blocks, self._blocks, maybe)
        return maybe


@native(NOTHING(_WORDS_1_IN, IN1, IN1, IN1, IN1, _WORDS_2_IN, _CODES, _WORDS_2))
def _search(
    words: Words,
    starts: Int64Array,
    counts: Int64Array,
    pair_page: Int64Array,
    pair_query: Int64Array,
    queries: Words,
    status: npt.NDArray[np.int8],
    earliest: Words,
) -> None:
    width = earliest.shape[1]
    for pair in range(pair_page.shape[0]):
        query = pair_query[pair]
        if status[query] == SAME:
            continue
        base = starts[pair_page[pair]] + _HEADER
        high = queries[query, 0]
        low = queries[query, 1]
        low_entry = np.int64(0)
        high_entry = counts[pair_page[pair]]
        count = high_entry
        while low_entry < high_entry:
            middle = (low_entry + high_entry) >> 1
            at = base + middle * width
            if words[at] < high or (words[at] == high and words[at + 1] < low):
                low_entry = middle + 1
            else:
                high_entry = middle
        while low_entry < count:
            at = base + low_entry * width
            if words[at] != high or words[at + 1] != low:
                break
            if words[at + 2] == queries[query, 2] and words[at + 3] == queries[query, 3]:
                status[query] = SAME
                break
            if status[query] == ABSENT:
                status[query] = OTHER
                for word in range(width):
                    earliest[query, word] = words[at + word]
            low_entry += 1


def search_pages(
    pages: Sequence[bytes],
    pair_page: Int64Array,
    pair_query: Int64Array,
    queries: Words,
    status: npt.NDArray[np.int8],
    earliest: Words,
) -> None:
    """Look queries up in pages, oldest pages first, and set their status, and the earliest identity of those that are OTHER.

    Args:
        pair_page, pair_query: int64[k] each, which query (an index of `queries`, uint64[n, >=4]) is looked up in which page.
        status: int8[n]; earliest: uint64[n, w]: changed in place.

    Raises:
        PageCorrupt: see `unpack_pages`.
    """
    words, starts, counts = _check_pages(pages, earliest.shape[1])
    _search(words, starts, counts, pair_page, pair_query, queries, status, earliest)
