"""Many keys at many times, straight to typed columns: the same windows and values as `sliding` and `finalise`.

Events of all keys stand in one matrix, key after key; so do the rows. The work goes in pieces that stay in the processor's
cache, and nothing is done in Python row by row but for the few values that machine arithmetic cannot hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ofp_platform.kernel.accumulate import ROW_WIDTH, events_until, subtract_saturating, times_before
from ofp_platform.kernel.amendments import AmendedKeys, split_amended
from ofp_platform.kernel.column_values import NULL, UNDECIDED, VALUE, encode_features, finalise_into
from ofp_platform.kernel.finalise import finaliser
from ofp_platform.kernel.known_distinct import count_known_distinct
from ofp_platform.kernel.known_windows import KnownWindows, known_accumulators, mark_incomplete
from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT2, OUT3, Int64Array, native
from ofp_platform.kernel.query import DELAY, WINDOW, LayoutArrays, Query, operands_of, places_of, query_of, result_key
from ofp_platform.kernel.sliding import slide_distinct, slide_slots
from ofp_platform.kernel.texts import with_ranks
from ofp_platform.kernel.whole_windows import known_whole, slide_whole
from ofp_platform.registry.aggregations import rule_of
from ofp_platform.registry.exact_value import Unservable
from ofp_platform.registry.layout import CompiledFeature, CompiledGroup
from ofp_platform.registry.text_words import EncodedTexts
from ofp_platform.vocabulary.canonical import MAX_INTEGER

PIECE_ROWS = 4_096
LARGE_PIECE_ROWS = 65_536


@dataclass(frozen=True, eq=False)
class KeyedEvents:
    """Events of many keys.

    `matrix` int64[C, N], sorted by (key, time, tie); the events of key k are matrix[:, starts[k]:ends[k]] (int64[K]).
    `known_from` int64[N]: the moment (any ordered scale) from which an event is known; None: all always are.
    """

    matrix: Int64Array
    starts: Int64Array
    ends: Int64Array
    known_from: Int64Array | None = None


@dataclass(frozen=True, eq=False)
class KeyedRows:
    """Questions to the same keys.

    Rows of key k are [offsets[k], offsets[k+1]) (int64[K+1]), their `times` int64[n] ascending, microseconds. Row i knows
    the events with known_from <= known_until[i]; None: all.
    """

    offsets: Int64Array
    times: Int64Array
    known_until: Int64Array | None = None


@dataclass(frozen=True, eq=False)
class FeatureColumn:
    """One feature of n rows. `low` int64[n]: the value, or the low 64 bits of the unscaled decimal whose high ones are
    `high` (None: an integer feature); `valid` bool[n]. Both are 0 where the value is null; `beyond` of the nulls are values
    beyond what is served. Of a text feature `low` are ranks in `texts` (encoded, see `text_words`); it is None of others. Of a
    list `low` is the number of items, and `items` int64[sum of low] has them (ranks, where they are texts), row by row; of
    categories with integers, `numbers` has these."""

    group: tuple[str, str]
    name: str
    scale: int | None
    low: Int64Array
    high: Int64Array | None
    valid: npt.NDArray[np.bool_]
    beyond: int
    texts: EncodedTexts | None = None
    items: Int64Array | None = None
    numbers: Int64Array | None = None


@native(NOTHING(IN2, IN1, IN1, IN2, INTEGER, IN2, IN2, IN1, IN1, IN1, IN1, OUT3, OUT2))
def _slide_keys(
    slots: Int64Array,
    slot_numbers: Int64Array,
    needs: Int64Array,
    distinct_windows: Int64Array,
    reach: int,
    edges: Int64Array,
    matrix: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    offsets: Int64Array,
    times: Int64Array,
    out: Int64Array,
    distinct: Int64Array,
) -> None:
    for key in range(starts.shape[0]):
        begin = offsets[key]
        end = offsets[key + 1]
        if begin == end:
            continue
        first = events_until(matrix, starts[key], ends[key], subtract_saturating(times[begin], reach))
        last = events_until(matrix, first, ends[key], times[end - 1])
        slide_slots(slots, slot_numbers, needs, edges, matrix, first, last, times, begin, end, out)
        if distinct_windows.shape[0] > 0 and first < last:
            moments = slice(begin, end)
            slide_distinct(distinct_windows, edges[moments], matrix[:, first:last].copy(), times[moments], distinct[moments])


class ColumnQuery:
    """The columns of some groups of one key type; made once, used for any number of keys.

    `lists`: number of each feature that is a list -> its first result, and its most items.
    """

    def __init__(self, arrays: LayoutArrays, groups: Sequence[CompiledGroup]) -> None:
        query = query_of(arrays, groups)
        self.query: Query = query.along()
        self.arrays = self.query.arrays
        self.features: list[tuple[tuple[str, str], CompiledFeature]] = [
            ((group.name, group.version), feature)
            for group in groups
            for feature in sorted(group.features, key=lambda feature: feature.name)
        ]
        self.feature_codes = encode_features([feature for _, feature in self.features], self.query.distinct_index)
        self.finalisers = [finaliser(feature, self.query.distinct_index) for _, feature in self.features]
        self.lists = {
            number: (self.query.distinct_index[result_key(feature.operand)], feature.operand.parameter)
            for number, (_, feature) in enumerate(self.features)
            if feature.is_list
        }
        reaches = [int(row[WINDOW] + row[DELAY]) for row in arrays.slots[query.slot_numbers]]
        reaches += [int(row[WINDOW] + row[DELAY]) for row in (*query.distinct, *query.whole)]
        self.reach = max(reaches, default=0)
        self.needs = _needs(arrays, groups)


def _needs(arrays: LayoutArrays, groups: Sequence[CompiledGroup]) -> Int64Array:
    """int64[S]: the parts of each slot's rows that the features of the groups are made of."""
    needs = np.zeros(arrays.slot_count, np.int64)
    for operand in (operand for group in groups for operand in operands_of(group)):
        needs[operand.slot] |= rule_of(operand.aggregation).finish.parts
    return needs


def as_amended(
    column_query: ColumnQuery, events: KeyedEvents, rows: KeyedRows, after: Int64Array
) -> tuple[KeyedEvents, KeyedRows]:
    """Events and rows, with the amendments applied that count at each row.

    `after` int64[n]: per row the time at or before which it asks about no event.
    """
    keys = AmendedKeys(events.matrix, events.starts, events.ends, rows.offsets, events.known_from)
    split = split_amended(column_query.arrays.layout, keys, rows.times, rows.known_until, after)
    if split is keys:
        return events, rows
    return KeyedEvents(split.matrix, split.starts, split.ends, split.known_from), replace(rows, offsets=split.offsets)


def feature_columns(column_query: ColumnQuery, events: KeyedEvents, rows: KeyedRows) -> list[FeatureColumn]:
    """The windowed features of every row, in the order of `column_query.features`.

    Releases the interpreter's lock for nearly all of its time. Temporary memory is bounded by the rows of a piece.

    Raises:
        ValueError: only one of `events.known_from` and `rows.known_until` is given.
    """
    if (events.known_from is None) is not (rows.known_until is None):
        raise ValueError("known_from and known_until come together")
    query, count = column_query.query, len(rows.times)
    events, rows = as_amended(column_query, events, rows, times_before(rows.times, column_query.reach))
    matrix, texts = with_ranks(query, events.matrix)
    events = replace(events, matrix=matrix)
    values = np.empty((len(column_query.features), count), np.int64)
    statuses = np.empty((len(column_query.features), count), np.uint8)
    lists = {number: _ListItems(column_query.features[number][1], *places) for number, places in column_query.lists.items()}
    wide: list[tuple[int, int, int]] = []
    beyond = [0] * len(column_query.features)
    largest = max((len(piece.times) for piece in _pieces(rows)), default=0)
    accumulators = np.zeros((column_query.arrays.slot_count, ROW_WIDTH, largest), np.int64)
    for piece in _pieces(rows):
        size = len(piece.times)
        distinct = query.no_results(size)
        keys, edges = piece.keys, column_query.arrays.edges(piece.times)
        _slide_keys(
            column_query.arrays.slots, query.slot_numbers, column_query.needs, query.distinct, column_query.reach,
            edges, events.matrix, events.starts[keys], events.ends[keys], piece.offsets, piece.times, accumulators, distinct,
        )  # fmt: skip
        slide_whole(query, edges, events.matrix, events.starts[keys], events.ends[keys], piece.offsets, piece.times, distinct)
        if events.known_from is not None and piece.known_until is not None:
            _leave_out_unknown(column_query, events, piece, edges, accumulators, distinct)
        if finalise_into(column_query.feature_codes, accumulators, distinct, piece.times, piece.first, values, statuses):
            wide += _decide(column_query, piece, accumulators, distinct, values, statuses, beyond)
        for number, list_items in lists.items():
            lengths = list_items.take(distinct)
            values[number, piece.first : piece.first + size] = lengths
            statuses[number, piece.first : piece.first + size] = lengths > 0
            beyond[number] += int((distinct[:, list_items.first] > lengths).sum())
    columns = [
        FeatureColumn(
            group,
            feature.name,
            feature.scale,
            low,
            None if feature.scale is None else low >> 63,
            valid,
            unserved,
            texts.lists.get(column_query.lists[number][0]) if feature.is_list else texts.tables.get(feature.operand.slot),
            lists[number].items if feature.is_list else None,
            lists[number].numbers if feature.has_numbers else None,
        )
        for number, ((group, feature), low, valid, unserved) in enumerate(
            zip(column_query.features, values, statuses.view(np.bool_), beyond, strict=True)
        )
    ]
    for index, row, high in wide:
        own_high = columns[index].high
        if own_high is not None:
            own_high[row] = high
    return columns


class _ListItems:
    """The items of one feature that is a list, gathered piece by piece out of the results.

    Args:
        feature: the feature.
        first: its first result.
        most: the most items that a list of it has.
    """

    def __init__(self, feature: CompiledFeature, first: int, most: int) -> None:
        self.first = first
        self._most = most
        self._places = places_of(feature.operand)
        self._has_numbers = feature.has_numbers
        self._items = [np.empty(0, np.int64)]
        self._numbers = [np.empty(0, np.int64)]

    @property
    def items(self) -> Int64Array:
        """int64[N]: all items so far."""
        return np.concatenate(self._items)

    @property
    def numbers(self) -> Int64Array:
        """int64[N]: their integers, if they have some."""
        return np.concatenate(self._numbers)

    def take(self, results: Int64Array) -> Int64Array:
        """Take the items of the next m rows; int64[m]: how many of each. A list with an integer beyond the bound has none.

        `results` int64[m, R].
        """
        lengths = results[:, self.first].copy()
        is_item = np.arange(self._most) < lengths[:, np.newaxis]
        if self._has_numbers:
            low = self._block(results, self._places - 1)
            is_beyond = (low > MAX_INTEGER) | (low < -MAX_INTEGER)
            if self._places == 3:
                is_beyond |= self._block(results, 1) != low >> 63
            lengths[(is_beyond & is_item).any(axis=1)] = 0
            is_item = np.arange(self._most) < lengths[:, np.newaxis]
            self._numbers.append(low[is_item])
        self._items.append(self._block(results, 0)[is_item])
        return lengths

    def _block(self, results: Int64Array, number: int) -> Int64Array:
        begin = self.first + 1 + number * self._most
        return results[:, begin : begin + self._most]


@dataclass(frozen=True, eq=False)
class _Piece:
    """Some rows: `keys` of the whole, `offsets` of each key's rows counted from `first`."""

    keys: slice
    first: int
    offsets: Int64Array
    times: Int64Array
    known_until: Int64Array | None


def _pieces(rows: KeyedRows) -> Iterator[_Piece]:
    offsets = rows.offsets
    key, total = 0, len(offsets) - 1
    while key < total:
        following = max(int(np.searchsorted(offsets, offsets[key] + PIECE_ROWS, side="right")) - 1, key)
        if following > key:
            yield _piece(rows, slice(key, following), int(offsets[key]), int(offsets[following]))
        else:
            following = key + 1
            for begin in range(int(offsets[key]), int(offsets[following]), LARGE_PIECE_ROWS):
                yield _piece(rows, slice(key, following), begin, min(begin + LARGE_PIECE_ROWS, int(offsets[following])))
        key = following


def _piece(rows: KeyedRows, keys: slice, first: int, end: int) -> _Piece:
    return _Piece(
        keys=keys,
        first=first,
        offsets=np.clip(rows.offsets[keys.start : keys.stop + 1], first, end) - first,
        times=rows.times[first:end],
        known_until=None if rows.known_until is None else rows.known_until[first:end],
    )


def _leave_out_unknown(
    column_query: ColumnQuery,
    events: KeyedEvents,
    piece: _Piece,
    edges: Int64Array,
    accumulators: Int64Array,
    distinct: Int64Array,
) -> None:
    """Evaluate again the rows whose windows hold an event that they do not know, over the events that they do know."""
    known_from, known_until = events.known_from, piece.known_until
    assert known_from is not None
    assert known_until is not None
    starts, ends = events.starts[piece.keys], events.ends[piece.keys]
    known = KnownWindows(events.matrix, known_from, starts, ends, piece.offsets, piece.times, known_until)
    incomplete = mark_incomplete(known, column_query.reach)
    if not incomplete.any():
        return
    arguments = (column_query.query, column_query.reach, edges, known, incomplete)
    rows = np.zeros((len(piece.times), column_query.arrays.slot_count, ROW_WIDTH), np.int64)
    known_accumulators(*arguments, rows)
    accumulators[:, :, np.flatnonzero(incomplete)] = rows[incomplete].transpose(1, 2, 0)
    count_known_distinct(*arguments, distinct)
    known_whole(*arguments, distinct)


def _decide(
    column_query: ColumnQuery,
    piece: _Piece,
    accumulators: Int64Array,
    distinct: Int64Array,
    values: Int64Array,
    statuses: npt.NDArray[np.uint8],
    beyond: list[int],
) -> Iterator[tuple[int, int, int]]:
    """Settle what a piece left UNDECIDED; gives (feature, row, high half) of each value, counts those beyond what is served."""
    first = piece.first
    is_undecided = statuses[:, first : first + len(piece.times)] == UNDECIDED
    for row in np.flatnonzero(is_undecided.any(axis=0)).tolist():
        slot_rows, counts, time = accumulators[:, :, row].tolist(), distinct[row].tolist(), int(piece.times[row])
        for index in np.flatnonzero(is_undecided[:, row]).tolist():
            value = column_query.finalisers[index](slot_rows, counts, time)
            if value is None or isinstance(value, Unservable):
                beyond[index] += value is not None
                statuses[index, first + row] = NULL
                continue
            assert not isinstance(value, (str, list)), "a text or a list is never undecided"
            number = value[0] if isinstance(value, tuple) else value
            statuses[index, first + row] = VALUE
            values[index, first + row] = ((number & (2**64 - 1)) ^ (1 << 63)) - (1 << 63)
            yield index, first + row, number >> 64
