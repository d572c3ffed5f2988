"""A key's part of an answer written by one compiled loop: values and freshness from accumulators to canonical text.

What the loop cannot decide in machine arithmetic it leaves to `finalise` (see column_values): the text is the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import types

from ofp_platform.kernel.accumulate import ROW_WIDTH
from ofp_platform.kernel.column_values import NULL, UNDECIDED, _finalise, encode_features
from ofp_platform.kernel.native import IN1, IN2, IN3, INTEGER, Int64Array, native
from ofp_platform.kernel.query import Query
from ofp_platform.kernel.window_loops import NEVER, answer_whole
from ofp_platform.kernel.windows import Evaluation
from ofp_platform.registry.layout import CompiledFeature
from ofp_platform.registry.models import FieldType
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time

# the columns of a program: a code, which feature or group (a literal: its first byte), of a literal the byte behind its last
CODE, NUMBER, END = range(3)
Bytes = npt.NDArray[np.uint8]
LITERAL, FEATURE, KEY_ID, AGE, TOUCHED, STALE, NEXT_TEXT = range(7)
_BYTES_IN = types.Array(types.uint8, 1, "C", readonly=True)
_BYTES = types.Array(types.uint8, 1, "C")
_WRITTEN = types.UniTuple(INTEGER, 3)  # type: ignore[no-untyped-call]
Written = tuple[str, str, int]
"""Two canonical texts, and how many groups are stale."""
_DAY = 86_400
_FIRST, _LAST = parse_time("0001-01-01T00:00:00Z"), parse_time("9999-12-31T23:59:59.999999Z")
_LONGEST_NUMBER = 48  # sign, 19 digits, a point, quotes, padding to the largest scale that is written here
_LONGEST_ID = 2 * 128 + 2
_MOST_SCALE = 18
_INTEGER_SCALE, _BOOLEAN_SCALE = -1, -2


@native()
def _digits(out: Bytes, at: int, value: int, width: int) -> int:
    """Write value >= 0 in decimal, at least `width` digits; the place after it."""
    count = 1
    rest = value // 10
    while rest > 0:
        count += 1
        rest //= 10
    count = max(count, width)
    for index in range(count):
        out[at + count - 1 - index] = 48 + value % 10
        value //= 10
    return at + count


@native()
def _number(out: Bytes, at: int, value: int, scale: int) -> int:
    """An integer (scale -1) or a quoted decimal; value is not the least int64."""
    if scale >= 0:
        out[at] = 34
        at += 1
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    if scale <= 0:
        at = _digits(out, at, value, 1)
    else:
        power = 1
        for _ in range(scale):
            power *= 10
        at = _digits(out, at, value // power, 1)
        out[at] = 46
        at = _digits(out, at + 1, value % power, scale)
    if scale >= 0:
        out[at] = 34
        at += 1
    return at


@native()
def _null(out: Bytes, at: int) -> int:
    out[at] = 110
    out[at + 1] = 117
    out[at + 2] = 108
    out[at + 3] = 108
    return at + 4


@native()
def _boolean(out: Bytes, at: int, value: bool) -> int:
    if value:
        out[at] = 116
        out[at + 1] = 114
        out[at + 2] = 117
        out[at + 3] = 101
        return at + 4
    out[at] = 102
    out[at + 1] = 97
    out[at + 2] = 108
    out[at + 3] = 115
    out[at + 4] = 101
    return at + 5


@native()
def _time(out: Bytes, at: int, micros: int) -> int:
    """A quoted time of years 1 to 9999 in its canonical text."""
    seconds = micros // MICROS_PER_SECOND
    fraction = micros - seconds * MICROS_PER_SECOND
    days = seconds // _DAY
    second = seconds - days * _DAY
    # days since 0000-03-01 in eras of 400 years: the leap day ends its year
    days += 719_468
    era = days // 146_097
    day = days - era * 146_097
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day = day - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year += era * 400 + (1 if month <= 2 else 0)
    out[at] = 34
    at = _digits(out, at + 1, year, 4)
    out[at] = 45
    at = _digits(out, at + 1, month, 2)
    out[at] = 45
    at = _digits(out, at + 1, day, 2)
    out[at] = 84
    at = _digits(out, at + 1, second // 3_600, 2)
    out[at] = 58
    at = _digits(out, at + 1, second // 60 % 60, 2)
    out[at] = 58
    at = _digits(out, at + 1, second % 60, 2)
    if fraction > 0:
        out[at] = 46
        at = _digits(out, at + 1, fraction, 6)
    out[at] = 90
    out[at + 1] = 34
    return at + 2


@native(_WRITTEN(IN2, _BYTES_IN, IN2, IN1, IN1, IN3, IN2, IN1, INTEGER, _BYTES_IN, _BYTES))
def _render(
    program: Int64Array,
    literals: Bytes,
    features: Int64Array,
    scales: Int64Array,
    ttls: Int64Array,
    accumulators: Int64Array,
    distinct: Int64Array,
    touches: Int64Array,
    time: int,
    key_id: Bytes,
    out: Bytes,
) -> tuple[int, int, int]:
    """Write both texts: (stale groups, end of the first, end of the second); stale -1: not decided here."""
    times = np.full(1, time)
    values = np.empty((features.shape[0], 1), np.int64)
    statuses = np.empty((features.shape[0], 1), np.uint8)
    _finalise(features, accumulators, distinct, times, values, statuses)
    stale = 0
    for group in range(ttls.shape[0]):
        last_touch = touches[group]
        if last_touch == NEVER or (time - last_touch) // MICROS_PER_SECOND > ttls[group]:
            stale += 1
        if last_touch != NEVER and (last_touch < _FIRST or last_touch > _LAST):
            return -1, 0, 0
    at = 0
    between = 0
    for step in range(program.shape[0]):
        code = program[step, CODE]
        number = program[step, NUMBER]
        if code == LITERAL:
            for index in range(number, program[step, END]):
                out[at] = literals[index]
                at += 1
        elif code == FEATURE:
            status = statuses[number, 0]
            if status == UNDECIDED or values[number, 0] == -(2**63):
                return -1, 0, 0
            if status == NULL:
                at = _null(out, at)
            elif scales[number] == _BOOLEAN_SCALE:
                at = _boolean(out, at, values[number, 0] != 0)
            else:
                at = _number(out, at, values[number, 0], scales[number])
        elif code == KEY_ID:
            for index in range(key_id.shape[0]):
                out[at] = key_id[index]
                at += 1
        elif code == AGE:
            if touches[number] == NEVER:
                at = _null(out, at)
            else:
                at = _number(out, at, (time - touches[number]) // MICROS_PER_SECOND, -1)
        elif code == TOUCHED:
            if touches[number] == NEVER:
                at = _null(out, at)
            else:
                at = _time(out, at, touches[number])
        elif code == STALE:
            last_touch = touches[number]
            is_stale = last_touch == NEVER or (time - last_touch) // MICROS_PER_SECOND > ttls[number]
            at = _boolean(out, at, is_stale)
        else:
            between = at
    return stale, between, at


@native(_WRITTEN(IN2, IN1, IN2, IN1, IN2, IN2, _BYTES_IN, IN2, IN1, IN1, INTEGER, INTEGER, IN2, _BYTES_IN, _BYTES))
def _render_whole(
    slots: Int64Array,
    slot_numbers: Int64Array,
    distinct_windows: Int64Array,
    masks: Int64Array,
    measures: Int64Array,
    program: Int64Array,
    literals: Bytes,
    features: Int64Array,
    scales: Int64Array,
    ttls: Int64Array,
    time: int,
    horizon: int,
    matrix: Int64Array,
    key_id: Bytes,
    out: Bytes,
) -> tuple[int, int, int]:
    """Evaluate a whole event matrix and write both texts."""
    accumulators = np.zeros((1, slots.shape[0], ROW_WIDTH), np.int64)
    distinct = np.zeros((1, distinct_windows.shape[0]), np.int64)
    touches = np.zeros(masks.shape[0], np.int64)
    answer_whole(
        slots, slot_numbers, distinct_windows, masks, measures, time, horizon, matrix, accumulators[0], distinct[0], touches
    )  # fmt: skip
    return _render(program, literals, features, scales, ttls, accumulators, distinct, touches, time, key_id, out)


def _scale(feature: CompiledFeature) -> int:
    if feature.scale is not None:
        return feature.scale
    return _BOOLEAN_SCALE if feature.value_type is FieldType.BOOLEAN else _INTEGER_SCALE


class TextProgram:
    """The two texts that the loop writes for one key, as literals and the codes between them.

    Args:
        query: the kernel's query of the key's groups.
        features: the windowed features, in the order of their FEATURE numbers.
        ttls: time to live of each group, seconds; groups in the order of the query's masks.
        steps: literal texts and (code, number) pairs; (NEXT_TEXT, 0) once, between the two texts.
    """

    def __init__(
        self, query: Query, features: Sequence[CompiledFeature], ttls: Sequence[int], steps: Sequence[str | tuple[int, int]]
    ) -> None:
        rows: list[tuple[int, int, int]] = []
        literals = b""
        for step in steps:
            if isinstance(step, str):
                rows.append((LITERAL, len(literals), len(literals) + len(step.encode())))
                literals += step.encode()
            else:
                rows.append((*step, 0))
        ids = sum(row[CODE] == KEY_ID for row in rows)
        self._room = len(literals) + ids * _LONGEST_ID + (len(rows) - ids) * _LONGEST_NUMBER
        self._query = (query.arrays.slots, query.slot_numbers, query.distinct, query.masks, query.arrays.measures)
        self._form = (
            np.array(rows, np.int64).reshape(len(rows), 3),
            np.frombuffer(literals, np.uint8),
            encode_features(features, query.distinct_index),
            np.array([_scale(feature) for feature in features], np.int64),
            np.array(ttls, np.int64),
        )

    @staticmethod
    def writes(features: Sequence[CompiledFeature]) -> bool:
        """Whether the loop can write these features at all."""
        return all(
            feature.value_type is not FieldType.STRING and not feature.is_list and _scale(feature) <= _MOST_SCALE
            for feature in features
        )

    def write(self, evaluation: Evaluation, as_of: int, key_id: bytes) -> Written | None:
        """The texts; None: some value is not decided here. `key_id`: as JSON."""
        out = np.empty(self._room, np.uint8)
        rows, distinct = evaluation.accumulators[np.newaxis], evaluation.distinct[np.newaxis]
        extent = _render(*self._form, rows, distinct, evaluation.touches, as_of, np.frombuffer(key_id, np.uint8), out)
        return _texts(out, *extent)

    def write_whole(self, matrix: Int64Array, as_of: int, horizon: int, key_id: bytes) -> Written | None:
        """The same from the key's event matrix int64[C, n], evaluated on the way."""
        out = np.empty(self._room, np.uint8)
        extent = _render_whole(*self._query, *self._form, as_of, horizon, matrix, np.frombuffer(key_id, np.uint8), out)
        return _texts(out, *extent)


def _texts(out: Bytes, stale: int, between: int, end: int) -> Written | None:
    if stale < 0:
        return None
    text = out[:end].tobytes().decode("ascii")
    return text[:between], text[between:], stale
