"""The compiled text of a key's answer is the text that finalisation in Python gives."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import replace

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.kernel.answer_form import GroupForm, KeyForm
from ofp_platform.kernel.answer_text import KEY_ID, NEXT_TEXT, TOUCHED, TextProgram
from ofp_platform.kernel.query import LayoutArrays, Query, query_of
from ofp_platform.kernel.windows import NEVER, Evaluation, evaluate
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.times import format_time, parse_time
from ofp_platform_tests.oracle.matrices import matrices
from ofp_platform_tests.oracle.small_plane import small_registry

FIRST, LAST = parse_time("0001-01-01T00:00:00Z"), parse_time("9999-12-31T23:59:59.999999Z")
GROUPS = [  # on-demand features, texts and lists are never compiled
    replace(group, on_demand=()) for group in small_registry().groups.values() if group.name not in ("texts", "lists")
]
KEY_TYPES = sorted({group.key_type for group in GROUPS})
Texts = tuple[str, str, list[dict[str, str]]]


def texts(form: KeyForm, key_id: str, found: Evaluation, as_of: int) -> Texts | str:
    warnings: list[dict[str, str]] = []
    try:
        pair = form.texts(key_id, orjson.dumps(key_id).decode(), found, as_of, EARLIEST, None, warnings)
    except ContractError as refusal:
        return refusal.message
    return *pair, warnings


def forms(key_type: str, groups: list[CompiledGroup]) -> tuple[Query, KeyForm, KeyForm]:
    """The form twice, the second without its compiled program."""
    query = query_of(LayoutArrays.of(small_registry().layouts[key_type]), groups)
    compiled, plain = (KeyForm(key_type, query, [GroupForm(group) for group in groups]) for _ in range(2))
    assert compiled._program is not None
    plain._program = None
    return query, compiled, plain


@given(data=st.data())
def test_both_ways_give_the_same_texts(data: st.DataObject) -> None:
    key_type = data.draw(st.sampled_from(KEY_TYPES))
    mine = [group for group in GROUPS if group.key_type == key_type]
    groups = data.draw(st.lists(st.sampled_from(mine), min_size=1, unique_by=lambda group: (group.name, group.version)))
    query, compiled, plain = forms(key_type, groups)
    matrix = data.draw(matrices(small_registry().layouts[key_type], max_events=12))
    stretch = data.draw(st.sampled_from([1, 333_333, 1_000_000]))
    shift = data.draw(st.one_of(st.sampled_from([0, FIRST, LAST - 50_000_000]), st.integers(FIRST, LAST - 50_000_000)))
    matrix[0] = matrix[0] * stretch + shift
    as_of = min(LAST, shift + data.draw(st.integers(0, 45_000_000)))
    found = evaluate(query, np.ascontiguousarray(matrix), as_of)
    key_id = data.draw(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128))
    assert texts(compiled, key_id, found, as_of) == texts(plain, key_id, found, as_of)


@pytest.mark.parametrize("key_type", KEY_TYPES)
@pytest.mark.parametrize("beyond", [-1_000_001, -1, 0, 999_999, 1_000_000, 10**12])
def test_a_group_is_stale_a_second_behind_its_time_to_live(key_type: str, beyond: int) -> None:
    mine = [group for group in GROUPS if group.key_type == key_type]
    query, compiled, plain = forms(key_type, mine)
    empty = evaluate(query, np.empty((small_registry().layouts[key_type].column_count, 0), np.int64), 0)
    as_of = parse_time("2024-01-01T00:00:00Z")
    touches = np.array([as_of - group.ttl_seconds * 1_000_000 - beyond for group in mine], np.int64)
    stale = len(mine) if beyond >= 1_000_000 else 0
    for never in (None, 0):
        if never is not None:
            touches[never] = NEVER
            stale += beyond < 1_000_000
        found = Evaluation(empty.accumulators, empty.distinct, touches.copy())
        assert compiled._program is not None
        written = compiled._program.write(found, as_of, b'"a"')
        assert written is not None
        assert written[2] == stale
        assert written[1].count('"stale":true') == stale
        assert texts(compiled, "a", found, as_of) == texts(plain, "a", found, as_of)


@given(moment=st.one_of(st.integers(FIRST, LAST), st.integers(FIRST // 10**6, LAST // 10**6).map(lambda second: second * 10**6)))
def test_every_time_has_its_canonical_text(moment: int) -> None:
    key_type = KEY_TYPES[0]
    query, compiled, _ = forms(key_type, [next(group for group in GROUPS if group.key_type == key_type)])
    empty = evaluate(query, np.empty((small_registry().layouts[key_type].column_count, 0), np.int64), moment)
    found = Evaluation(empty.accumulators, empty.distinct, np.array([moment], np.int64))
    told = texts(compiled, "a", found, moment)
    assert not isinstance(told, str)
    assert orjson.loads(told[1])["last_update_event_time"] == format_time(moment)


@pytest.mark.parametrize("year", [1, 4, 100, 399, 400, 1600, 1899, 1900, 1969, 1970, 2000, 2023, 2024, 2100, 9999])
def test_every_month_begins_and_ends_where_the_calendar_says(year: int) -> None:
    key_type = KEY_TYPES[0]
    query, compiled, _ = forms(key_type, [next(group for group in GROUPS if group.key_type == key_type)])
    empty = evaluate(query, np.empty((small_registry().layouts[key_type].column_count, 0), np.int64), 0)
    assert compiled._program is not None
    for month in range(1, 13):
        for day in (1, 28, monthrange(year, month)[1]):
            text = f"{year:04d}-{month:02d}-{day:02d}T{month + 8:02d}:{day + 20:02d}:{day + 28:02d}"
            for moment in (parse_time(f"{text}Z"), parse_time(f"{text}.000{month:02d}9Z")):
                written = compiled._program.write(
                    Evaluation(empty.accumulators, empty.distinct, np.array([moment])), moment, b'"a"'
                )
                assert written is not None
                assert f'"last_update_event_time":"{format_time(moment)}"' in written[1]


@pytest.mark.parametrize(
    ("touched", "is_written"), [(NEVER, True), (FIRST, True), (LAST, True), (FIRST - 1, False), (LAST + 1, False)]
)
def test_a_time_without_a_calendar_date_is_left(touched: int, is_written: bool) -> None:
    key_type = KEY_TYPES[0]
    query, compiled, _ = forms(key_type, [next(group for group in GROUPS if group.key_type == key_type)])
    empty = evaluate(query, np.empty((small_registry().layouts[key_type].column_count, 0), np.int64), 0)
    assert compiled._program is not None
    written = compiled._program.write(Evaluation(empty.accumulators, empty.distinct, np.array([touched])), LAST, b'"a"')
    assert (written is not None) is is_written


def test_what_the_loop_cannot_decide_it_leaves() -> None:
    key_type = KEY_TYPES[0]
    query, compiled, plain = forms(key_type, [group for group in GROUPS if group.key_type == key_type])
    found = evaluate(query, np.empty((small_registry().layouts[key_type].column_count, 0), np.int64), 0)
    rows = found.accumulators.copy()
    rows[:, 0], rows[:, 2], rows[:, 3] = 3, -(2**63), 2**62  # a sum of 2^63, squares of 2^126
    huge = Evaluation(rows, found.distinct, found.touches)
    assert compiled._program is not None
    assert compiled._program.write(huge, 0, b'"a"') is None
    assert texts(compiled, "a", huge, 0) == texts(plain, "a", huge, 0)


@pytest.mark.parametrize(("scale", "written"), [(None, True), (0, True), (18, True), (19, False)])
def test_scales_that_the_loop_writes(scale: int | None, written: bool) -> None:
    feature = next(one for group in GROUPS for one in group.features)
    assert TextProgram.writes([type(feature)(feature.name, feature.operand, feature.denominator, scale)]) is written


@pytest.mark.parametrize("count", [1, 20])
def test_ids_and_times_have_room_however_many_there_are(count: int) -> None:
    key_type = KEY_TYPES[0]
    query, _, _ = forms(key_type, [next(group for group in GROUPS if group.key_type == key_type)])
    empty = evaluate(query, np.empty((small_registry().layouts[key_type].column_count, 0), np.int64), 0)
    found = Evaluation(empty.accumulators, empty.distinct, np.array([LAST], np.int64))
    longest = orjson.dumps('"' * 128)
    ids = TextProgram(query, [], [1], [*[(KEY_ID, 0)] * count, (NEXT_TEXT, 0)]).write(found, LAST, longest)
    assert ids == (longest.decode() * count, "", 0)
    both = TextProgram(query, [], [1], ["{" * count, (NEXT_TEXT, 0), *[(TOUCHED, 0), (KEY_ID, 0)] * count]).write(
        found, LAST, longest
    )
    assert both == ("{" * count, f'"{format_time(LAST)}"{longest.decode()}' * count, 0)


@pytest.mark.parametrize("value", [0, 1, -1, 9, -9, 10, -10, -65, 99, 100, -100, 2**53 - 1, 1 - 2**53])
@pytest.mark.parametrize("key_id", ["a", '"' * 128])
def test_the_longest_texts_have_room_and_the_shortest_are_right(value: int, key_id: str) -> None:
    for key_type in KEY_TYPES:
        layout = small_registry().layouts[key_type]
        query, compiled, plain = forms(key_type, [group for group in GROUPS if group.key_type == key_type])
        for count in (1, 3):
            matrix = np.full((layout.column_count, count), value, np.int64)
            matrix[0], matrix[1] = LAST - np.arange(count)[::-1], -1
            found = evaluate(query, matrix, LAST)
            assert texts(compiled, key_id, found, LAST) == texts(plain, key_id, found, LAST)
            if abs(value) <= 100:
                assert compiled._program is not None
                assert compiled._program.write(found, LAST, orjson.dumps(key_id)) is not None
