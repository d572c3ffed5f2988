"""Values that are texts and booleans: exact on each path of the kernel, and as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from ofp_platform.kernel.accumulate import COUNT, summarise_chunks
from ofp_platform.kernel.columns import ColumnQuery, KeyedEvents, KeyedRows, feature_columns
from ofp_platform.kernel.finalise import group_values
from ofp_platform.kernel.known_rows import evaluate_known
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.snapshot import SnapshotMaker
from ofp_platform.kernel.texts import NO_TEXTS, with_ranks
from ofp_platform.kernel.windows import EventsMissing, evaluate, evaluate_state, segments_of_chunks
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.layout import TIME_ROW
from ofp_platform.registry.pack import load_pack
from ofp_platform.registry.question import check_request
from ofp_platform.registry.routing import Router
from ofp_platform.registry.text_words import text_of
from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GetFeaturesRequest, GetFeaturesResponse
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.matrices import sorted_matrix
from ofp_platform_tests.oracle.strategies import PINS, SHOPS, START

PACK = """
pack_id: values
revision: 1
events:
  payment:
    keys: {account: account_id}
    fields: {channel: string, online: boolean, amount: integer}
groups:
  - name: texts
    version: v1
    key_type: account
    ttl_seconds: 5
    features:
      - {name: least, aggregation: min, events: [payment], value: channel, window: 10s}
      - {name: greatest, aggregation: max, events: [payment], value: channel, window: 10s}
      - {name: first, aggregation: first, events: [payment], value: channel, window: 10s}
      - {name: last, aggregation: last, events: [payment], value: channel, window: 10s}
      - {name: count, aggregation: count, events: [payment], window: 10s}
  - name: switches
    version: v1
    key_type: account
    ttl_seconds: 5
    features:
      - {name: least, aggregation: min, events: [payment], value: online, window: 10s}
      - {name: greatest, aggregation: max, events: [payment], value: online, window: 10s}
      - {name: first, aggregation: first, events: [payment], value: online, window: 10s}
      - {name: last, aggregation: last, events: [payment], value: online, window: 10s}
      - {name: numbers, aggregation: distinct_count, events: [payment], value: amount, window: 10s}
"""
REGISTRY = compile_pack(load_pack(PACK))
ARRAYS = LayoutArrays.of(REGISTRY.layouts["account"])
TEXTS, SWITCHES = REGISTRY.groups["texts", "v1"], REGISTRY.groups["switches", "v1"]
NAMES = ("first", "greatest", "last", "least")
SECOND = 1_000_000


def matrix_of(events: list[tuple[int, str, bool]]) -> Int64Array:
    """The event matrix of (seconds from START, channel, online)."""
    if not events:
        return np.empty((REGISTRY.layouts["account"].column_count, 0), np.int64)
    payloads = [orjson.dumps({"account_id": "a", "channel": text, "online": online, "amount": 1}) for _, text, online in events]
    count = len(events)
    ts = np.array([START + second * SECOND for second, _, _ in events], np.int64)
    ids = [f"e-{number}" for number in range(count)]
    routed = Router(REGISTRY).route(["payment"] * count, ids, ["v1"] * count, ts, [b"h" * 32] * count, payloads, [None] * count)
    assert not routed.failures
    assert not routed.group_failures
    return sorted_matrix(routed.touched["account"].matrix)


def values_of(matrix: Int64Array, second: int, group: Any = TEXTS) -> dict[str, Any]:
    query, as_of = query_of(ARRAYS, [group]), START + second * SECOND
    values = group_values(group, query, evaluate(query, matrix, as_of), as_of)
    return {name: values[name] for name in NAMES}


def test_each_path_gives_the_texts_themselves() -> None:
    channels = [text for text in SHOPS if len(text.encode()) <= 64]
    events = [(second, text, second % 2 == 0) for second, text in enumerate(channels)]
    matrix = matrix_of(events)
    column_query = ColumnQuery(ARRAYS, [TEXTS])
    seconds = range(len(channels) + 12)
    times = np.array([START + second * SECOND for second in seconds], np.int64)
    everything = np.zeros(1, np.int64), np.array([matrix.shape[1]])
    rows = KeyedRows(np.array([0, len(times)]), times)
    columns = feature_columns(column_query, KeyedEvents(matrix, *everything), rows)
    known = feature_columns(
        column_query,
        KeyedEvents(matrix, *everything, np.arange(matrix.shape[1])),
        KeyedRows(rows.offsets, times, np.full(len(times), 4)),
    )
    evaluations = evaluate_known(
        column_query,
        KeyedEvents(matrix, *everything, np.arange(matrix.shape[1])),
        KeyedRows(rows.offsets, times, np.full(len(times), 4)),
        np.full(len(times), -(2**63)),
    )
    for made, last_known in ((columns, len(channels)), (known, 5)):
        for place, second in enumerate(seconds):
            window = [text for own, text, _ in events[:last_known] if second - 10 < own <= second]
            expected = dict.fromkeys(NAMES) if not window else {
                "first": window[0],
                "last": window[-1],
                "least": min(window, key=str.encode),
                "greatest": max(window, key=str.encode),
            }  # fmt: skip
            for column in made:
                if column.texts is not None:
                    assert (text_of(column.texts[column.low[place]]) if column.valid[place] else None) == expected[column.name]
            if made is columns:
                assert values_of(matrix, second) == expected
            else:
                found = group_values(TEXTS, column_query.query, evaluations.at(place), int(times[place]))
                assert {name: found[name] for name in NAMES} == expected


def test_summaries_never_stand_for_texts() -> None:
    matrix = matrix_of([(second, text, True) for second, text in enumerate("dacbfe")])
    query, as_of = query_of(ARRAYS, [TEXTS]), START + 6 * SECOND
    offsets = np.array([0, 2, 4, 6])
    summaries = summarise_chunks(matrix, offsets, ARRAYS.measures)
    first_ts, last_ts = matrix[TIME_ROW, offsets[:-1]], matrix[TIME_ROW, offsets[1:] - 1]
    whole = segments_of_chunks(first_ts, last_ts, summaries, np.ones(3, np.bool_), matrix, offsets)
    assert group_values(TEXTS, query, evaluate_state(query, whole, as_of), as_of) == {
        "count": 6,
        "first": "d",
        "greatest": "f",
        "last": "e",
        "least": "a",
    }
    partly = segments_of_chunks(
        first_ts, last_ts, summaries, np.array([True, False, True]), matrix[:, [0, 1, 4, 5]], np.array([0, 2, 4])
    )
    with pytest.raises(EventsMissing):
        evaluate_state(query, partly, as_of)
    numbers = query_of(ARRAYS, [SWITCHES])
    assert len(numbers.text_slots) == 0
    assert with_ranks(numbers, matrix) == (matrix, NO_TEXTS)
    flags = group_values(SWITCHES, query_of(ARRAYS, [SWITCHES]), evaluate_state(numbers, whole, as_of), as_of)
    assert flags == {"first": True, "greatest": True, "last": True, "least": True, "numbers": 1}


@pytest.mark.parametrize("text", ["", '"', "\\", "\b\f\n\r\t", "\x00\x01\x1f\x7f", "é\u2028\U0001f600", "%s %% %d", "</script>"])
def test_a_text_on_the_wire_is_that_of_rfc_8785(text: str) -> None:
    values = answer_of(matrix_of([(0, text, False)]), "texts")
    assert values == jcs_bytes(dict.fromkeys(NAMES, text) | {"count": 1})


@pytest.mark.parametrize("online", [True, False])
def test_a_boolean_on_the_wire_is_one(online: bool) -> None:
    assert answer_of(matrix_of([(0, "x", online)]), "switches") == jcs_bytes(dict.fromkeys(NAMES, online) | {"numbers": 1})
    assert answer_of(matrix_of([]), "switches") == jcs_bytes({**dict.fromkeys(NAMES), "numbers": 0})
    assert answer_of(matrix_of([]), "texts") == jcs_bytes({**dict.fromkeys(NAMES), "count": 0})


def answer_of(matrix: Int64Array, group: str) -> bytes:
    """The canonical bytes of one group's features, from both ways to write an answer."""
    maker = SnapshotMaker(REGISTRY, ContextPins(**PINS), "c" * 64, 0)
    request = {
        "context_pins": PINS,
        "feature_keys": [{"key_type": "account", "key_id": "a"}],
        "feature_groups": [{"group_name": group, "group_version": "v1"}],
        "as_of_time_utc": format_time(START + SECOND),
    }
    question = check_request(GetFeaturesRequest.model_validate(request), REGISTRY, ContextPins(**PINS), Limits())
    query = maker.query(question.groups)
    basis = '{"partitions":[],"stream_name":"s"}'
    posture = {"state": "GREEN", "reasons": [], "lag_records": 0}
    answers = [
        maker.snapshot(question, basis, None, [state], posture) for state in (matrix, evaluate(query, matrix, question.as_of))
    ]
    assert answers[0] == answers[1]
    body = answers[0].body
    (key,) = GetFeaturesResponse.model_validate_json(body).snapshot.by_key
    assert orjson.loads(body)["snapshot"]["by_key"][0]["by_group"][0]["features"] == key.by_group[0].features
    begin = body.index(b'"features":') + len(b'"features":')
    return body[begin : body.index(b',"group_name"', begin)]


def test_of_events_at_one_time_the_identity_decides_for_texts_as_for_numbers() -> None:
    matrix = matrix_of([(0, text, text < "c") for text in "abcdef"])
    texts, flags = values_of(matrix, 1), values_of(matrix, 1, SWITCHES)
    _, tables = with_ranks(query_of(ARRAYS, [TEXTS]), matrix)
    in_order = [text_of(text) for text in next(iter(tables.tables.values()))]
    assert in_order == list("abcdef")
    assert (texts["first"] < "c", texts["last"] < "c") == (flags["first"], flags["last"])
    assert (texts["least"], texts["greatest"], flags["least"], flags["greatest"]) == ("a", "f", False, True)
    assert evaluate(query_of(ARRAYS, [TEXTS]), matrix, START).accumulators[TEXTS.features[0].operand.slot, COUNT] == 6
