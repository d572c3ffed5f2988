"""Admission of columns against admission of records: the same records with the same bytes, the same refusals."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.log import column_admission
from ofp_platform.log.admission import MAX_PAYLOAD_BYTES, Admission
from ofp_platform.log.admitted import AdmittedBatch
from ofp_platform.log.column_admission import admit_columns
from ofp_platform.log.port import RefusalReason
from ofp_platform.vocabulary.canonical import MAX_INTEGER, jcs_bytes
from ofp_platform.vocabulary.columns import FIRST_MOMENT, LAST_MOMENT, NOT_EMITTED, EventColumns
from ofp_platform.vocabulary.identity import ContextPins

CARD = "4111111111111111"
PINS = ContextPins(scenario_id="town", run_id="run-1", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)
HIDDEN_CARDS = [
    f"PAN={CARD}",
    f" {CARD}\n",
    "4111.1111.1111.1111",
    "4111\u00a01111\u00a01111\u00a01111",
    "4111\u20111111\u20111111\u20111111 ",
    "\uff14" + "\uff11" * 15,
    "see 4111\t1111\t1111\t1111",
    '4111"1111"1111"1111',
    "4111\\1111\\1111\\1111",
    "4111\x001111\x001111\x001111",
]
GOOD_PINS = [PINS, PINS.model_copy(update={"seed": 3}), PINS.model_copy(update={"platform_run_id": "p/1"})]
# model_copy does not validate: these are pins that nothing has looked at yet
BAD_PINS = [
    PINS.model_copy(update=change) for change in ({"run_id": CARD}, {"seed": -1}, {"seed": True}, {"parameter_hash": "x y"})
]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FLAT = (
    st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXT | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(FLAT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6)
KEY_VALUES = st.sampled_from(["acc-1", "acc-2", "é", 7, "5", "", "x" * 257, 1.5, None, True, ["acc-1"], {"b": "acc-1"}])
OBJECTS = st.builds(
    lambda rest, key: {**rest, **key},
    st.dictionaries(TEXT, VALUES, max_size=3),
    st.fixed_dictionaries({}, optional={"a": KEY_VALUES}),
)
PLAIN = st.builds(
    lambda account, amount, text: {"a": account, "amount": amount, "text": text},
    st.sampled_from(["acc-1", "acc-2"]),
    st.integers(-MAX_INTEGER, MAX_INTEGER),
    TEXT,
)
BAD_OBJECTS: list[dict[Any, Any]] = [
    {"a": "acc-1", "x": float("nan")},
    {"a": "acc-1", "x": [float("inf")]},
    {"a": "acc-1", "x": 2**53},
    {"a": "acc-1", "x": {"y": -(2**64)}},
    {"a": "acc-1", "x": "\ud800"},
    {"a": "acc-1", "\ud800": 1},
    {"a": "acc-1", "x": CARD},
    {"a": CARD},
    {"a": "acc-1", CARD: 1},
    {"a": "acc-1", "x": [["4111 1111-1111 1111"]]},
    *({"a": "acc-1", "x": [text]} for text in HIDDEN_CARDS),
    *({"a": "acc-1", text: 1} for text in HIDDEN_CARDS),
    {"a": "acc-1", 5: 1},
    {"a": "acc-1", "x": {5: 1}},
    {"a": "acc-1", "x": {1, 2}},
    {"a": "acc-1", "x": b"bytes"},
    {"a": "acc-1", "x": (1, 2)},
]
ODD_TEXTS = [
    b"",
    b"not JSON",
    b"null",
    b"[1]",
    b"{}",
    b'{},{"a":"acc-1"}',
    b'{"a":"acc-1"}\n',
    b'{"a": "acc-1"}',
    b'{"b":1,"a":"acc-1"}',
    b'{"a":"acc-1","a":"acc-2"}',
    b'{"a":"acc-1","x":{"b":1,"b":1}}',
    b'{"a":"acc-1","x":[{"b":1,"\\u0062":2}]}',
    b'{"a":"acc-1","x":1e999}',
    b'{"a":"acc-1","x":1.0}',
    b'{"a":"acc-1","x":1.5}',
    b'{"a":"acc-1","x":1e3}',
    b'{"a":"acc-1","x":-0}',
    b'{"a":"acc-1","x":NaN}',
    b'{"a":"acc-1","x":9007199254740991}',
    b'{"a":"acc-1","x":9007199254740992}',
    b'{"a":"acc-1","x":18446744073709551616}',
    b'{"a":"acc-1","x":18446744073709552000}',
    b'{"a":"acc-1","x":"\\u00e9"}',
    b'{"a":"acc-1","x":"\\ud800"}',
    b'{"a":"acc-1","x":"\xff"}',
    b'{"a":"acc-1","x":"{[1.5"}',
    b'{"a":"acc-1","x":"4111111111111111"}',
    b'{"4111-1111-1111-1111":0,"a":"acc-1"}',
    b'{"a":"acc-1","x":"4111111111111112"}',
    *(jcs_bytes({"a": "acc-1", "x": text}) for text in HIDDEN_CARDS),
    *(jcs_bytes({"a": "acc-1", text: 1}) for text in HIDDEN_CARDS),
    b'{"a":"acc-1","x":[4111,1111,1111,1111]}',
    b'{"a":"acc-1","x":4111111111111111}',
    '{"a":"acc-1","\U0001f600":1,"\ufb33":2}'.encode(),  # the order of UTF-8
    '{"a":"acc-1","\ufb33":2,"\U0001f600":1}'.encode(),
    '{"a":"acc-1","\U0001f600":1}'.encode(),
    b'{"a":"acc-1","x":' + b"[" * 127 + b"]" * 127 + b"}",
    b'{"a":"acc-1","x":' + b"[" * 129 + b"]" * 129 + b"}",
    b'{"a":"acc-1","x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
]
PAYLOADS = (
    (PLAIN | OBJECTS).map(jcs_bytes)
    | PLAIN
    | OBJECTS
    | OBJECTS.map(orjson.dumps)
    | st.sampled_from(ODD_TEXTS)
    | st.sampled_from(BAD_OBJECTS)
    | st.sampled_from([None, "text", [1]])
)
ODD_IDS: list[Any] = [
    CARD,
    f"e-{CARD}",
    "live-1767225600000008-0000001",
    "4111.1111:1111/1111",
    "4111-1111-1111-1111",
    "4111111111111112",
    "",
    "x" * 129,
    "e\n",
    "é",
    "-e",
    5,
    None,
    b"e",
    ["e"],
]
ODD_TYPES: list[Any] = ["Seen", f"seen_{CARD}", "", "seen\n", 5, None, ["seen"]]
ODD_VERSIONS: list[Any] = ["", "v 1", CARD, 1, True]
ODD_MOMENTS = [FIRST_MOMENT, LAST_MOMENT, FIRST_MOMENT - 1, LAST_MOMENT + 1, NOT_EMITTED, 2**63 - 1]
IDS = st.sampled_from(["e-1", "e-2", "x" * 128, *ODD_IDS])
TYPES = st.sampled_from(["seen", "heard", *ODD_TYPES])
VERSIONS = st.sampled_from(["v1", "2", *ODD_VERSIONS])
MOMENTS = st.integers(FIRST_MOMENT, LAST_MOMENT) | st.sampled_from(ODD_MOMENTS)
GOOD_RECORDS = st.tuples(
    st.sampled_from(["e-1", "e-2"]),
    st.sampled_from(["seen", "heard"]),
    st.just("v1"),
    st.integers(FIRST_MOMENT, LAST_MOMENT),
    st.just(NOT_EMITTED) | st.integers(FIRST_MOMENT, LAST_MOMENT),
    st.integers(0, len(GOOD_PINS) - 1),
    PLAIN.map(jcs_bytes) | PLAIN,
)
RECORDS = GOOD_RECORDS | st.tuples(
    IDS, TYPES, VERSIONS, MOMENTS, MOMENTS, st.integers(0, len(GOOD_PINS) + len(BAD_PINS) - 1), PAYLOADS
)
# one thing wrong, or odd, in a record that is good otherwise
CHANGES = st.one_of(
    *(st.tuples(st.just(place), values) for place, values in ((0, IDS), (1, TYPES), (2, VERSIONS), (3, MOMENTS), (4, MOMENTS))),
    st.tuples(st.just(5), st.integers(0, len(GOOD_PINS) + len(BAD_PINS) - 1)),
    st.tuples(st.just(6), PAYLOADS),
)
NEARLY_GOOD = st.builds(lambda r, change: (*r[: change[0]], change[1], *r[change[0] + 1 :]), GOOD_RECORDS, CHANGES)
PATHS = st.sampled_from(["payload.a", "payload.a.b", "event_id", "event_type"])


def as_columns(records: list[tuple[Any, ...]]) -> EventColumns:
    ids, types, versions, ts, emitted, pins, payloads = (list(column) for column in zip(*records, strict=True))
    return EventColumns(
        ids,
        types,
        versions,
        np.array(ts, np.int64),
        np.array(emitted, np.int64),
        [*GOOD_PINS, *BAD_PINS],
        np.array(pins, np.int32),
        payloads,
    )


def both(columns: EventColumns, path: str = "payload.a", part: int = 1_000) -> tuple[AdmittedBatch, AdmittedBatch]:
    """The columns admitted as columns, and as records; the n-th of them at the time n."""
    times = np.arange(len(columns), dtype=np.int64)
    with patch.object(column_admission, "PART_RECORDS", part):
        by_columns = admit_columns(Admission(path), columns, times)
    by_records = Admission(path).admit_batch(list(columns.records()), None)
    by_records.admitted_at = list(by_records.records.places)
    return by_columns, by_records


@given(st.lists(RECORDS | NEARLY_GOOD, min_size=1, max_size=8), PATHS, st.sampled_from([1, 3, 1_000]))
def test_columns_are_admitted_as_their_records_are(records: list[tuple[Any, ...]], path: str, part: int) -> None:
    by_columns, by_records = both(as_columns(records), path, part)
    assert by_columns == by_records


GOOD: tuple[Any, ...] = ("e-1", "seen", "v1", 0, NOT_EMITTED, 0, b'{"a":"acc-1"}')
LARGE = b'{"a":"acc-1","x":"' + b"x" * MAX_PAYLOAD_BYTES + b'"}'
ODD: list[tuple[int, Any]] = [
    (field, value)
    for field, values in enumerate(
        [
            ODD_IDS,
            ODD_TYPES,
            ODD_VERSIONS,
            ODD_MOMENTS,
            ODD_MOMENTS,
            range(len(GOOD_PINS) + len(BAD_PINS)),
            [*ODD_TEXTS, *BAD_OBJECTS, LARGE, None, "text", [1], b'{"b":1}', {"a": ""}, {"a": 7}],
        ]
    )
    for value in values
]


@pytest.mark.parametrize("path", ["payload.a", "event_id"])
@pytest.mark.parametrize(("field", "value"), ODD, ids=str)
def test_one_odd_thing_among_good_records(field: int, value: Any, path: str) -> None:
    by_columns, by_records = both(as_columns([GOOD, (*GOOD[:field], value, *GOOD[field + 1 :]), GOOD]), path)
    assert by_columns == by_records
    assert {0, 2} <= set(by_columns.records.places)


def test_each_kind_of_refusal_is_met() -> None:
    bad: list[tuple[Any, RefusalReason]] = [
        (("e 1", *GOOD[1:]), RefusalReason.INVALID_ENVELOPE),
        ((*GOOD[:3], 2**63 - 1, *GOOD[4:]), RefusalReason.INVALID_TIME),
        ((*GOOD[:-1], b'{"a":"acc-1","x":9007199254740992}'), RefusalReason.NOT_I_JSON),
        ((*GOOD[:-1], b'{"a":"acc-1","a":"acc-2"}'), RefusalReason.NOT_I_JSON),
        ((*GOOD[:-1], b'{"a":"acc-1","\\u0061":"acc-1"}'), RefusalReason.NOT_I_JSON),
        ((*GOOD[:-1], b'{"a":"acc-1","x":[{"b":1,"b":1}]}'), RefusalReason.NOT_I_JSON),
        ((*GOOD[:-1], b'{"a":"acc-1","x":NaN}'), RefusalReason.NOT_I_JSON),
        ((*GOOD[:-1], b'{"a":"acc-1"'), RefusalReason.INVALID_ENVELOPE),
        ((CARD, *GOOD[1:]), RefusalReason.RAW_IDENTIFIER),
        ((f"e-{CARD}", *GOOD[1:]), RefusalReason.RAW_IDENTIFIER),
        ((GOOD[0], f"seen_{CARD}", *GOOD[2:]), RefusalReason.RAW_IDENTIFIER),
        ((*GOOD[:2], CARD, *GOOD[3:]), RefusalReason.RAW_IDENTIFIER),
        *(((*GOOD[:-1], jcs_bytes({"a": "acc-1", "x": text})), RefusalReason.RAW_IDENTIFIER) for text in HIDDEN_CARDS),
        *(((*GOOD[:-1], jcs_bytes({"a": "acc-1", text: 1})), RefusalReason.RAW_IDENTIFIER) for text in HIDDEN_CARDS),
        ((*GOOD[:5], len(GOOD_PINS), GOOD[6]), RefusalReason.RAW_IDENTIFIER),
        ((*GOOD[:-1], LARGE), RefusalReason.RECORD_TOO_LARGE),
        ((*GOOD[:-1], b'{"b":1}'), RefusalReason.MISSING_PARTITION_KEY),
    ]
    by_columns, by_records = both(as_columns([GOOD, *(record for record, _ in bad), GOOD]))
    assert by_columns == by_records
    assert [refusal.reason for refusal in by_columns.refusals] == [reason for _, reason in bad]
    assert [refusal.index for refusal in by_columns.refusals] == list(range(1, len(bad) + 1))
    assert by_columns.records.places == [0, len(bad) + 1]


@given(st.lists(GOOD_RECORDS, min_size=1, max_size=8))
def test_good_records_need_no_closer_look(records: list[tuple[Any, ...]]) -> None:
    texts = [(*record[:-1], record[-1] if isinstance(record[-1], bytes) else jcs_bytes(record[-1])) for record in records]
    with patch.object(Admission, "admit", side_effect=AssertionError("record by record")):
        columns = as_columns(texts)
        batch = admit_columns(Admission("payload.a"), columns, np.zeros(len(columns), np.int64))
    assert len(batch.records) == len(records)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.zeros(2, np.int64), "not int64 of"),
        (np.zeros(1, np.float64), "float64"),
        (np.array([LAST_MOMENT + 1], np.int64), "outside the years"),
        (np.array([NOT_EMITTED], np.int64), "outside the years"),
    ],
)
def test_admission_times_that_cannot_be(times: Any, message: str) -> None:
    columns = as_columns([("e-1", "seen", "v1", 0, NOT_EMITTED, 0, b'{"a":"acc-1"}')])
    with pytest.raises(ValueError, match=message):
        admit_columns(Admission("payload.a"), columns, times)
