from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.vocabulary.columns import (
    FIRST_MOMENT,
    LAST_MOMENT,
    NOT_EMITTED,
    EventColumns,
    are_moments,
    time_texts,
)
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.times import format_time

PINS = ContextPins(scenario_id="town", run_id="run-1", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)
OTHER = PINS.model_copy(update={"run_id": "run-2", "seed": 0})
MOMENTS = st.integers(FIRST_MOMENT, LAST_MOMENT)


def columns(**changes: Any) -> EventColumns:
    """Three events, the second of another run and emitted."""
    fields: dict[str, Any] = {
        "event_ids": ["a", "b", "c"],
        "event_types": ["seen", "seen", "heard"],
        "schema_versions": ["v1", "v1", "v2"],
        "ts": np.array([0, 1, 2_000_000], np.int64),
        "emitted_at": np.array([NOT_EMITTED, 5, NOT_EMITTED], np.int64),
        "pins": [PINS, OTHER],
        "pins_index": np.array([0, 1, 0], np.int32),
        "payloads": [b'{"n":1}', {"n": 2}, b"not JSON"],
    }
    return EventColumns(**{**fields, **changes})


@given(st.lists(MOMENTS | MOMENTS.map(lambda moment: moment // 1_000_000 * 1_000_000), max_size=20))
def test_many_times_are_written_as_one_is(moments: list[int]) -> None:
    assert time_texts(np.array(moments, dtype=np.int64)) == [format_time(moment) for moment in moments]


def test_the_records_are_what_a_producer_would_send() -> None:
    first, second, third = columns().records()
    assert first == {
        "event_id": "a",
        "event_type": "seen",
        "schema_version": "v1",
        "ts_utc": "1970-01-01T00:00:00Z",
        **PINS.wire(),
        "payload": {"n": 1},
    }
    assert Envelope.model_validate(second).pins() == OTHER
    assert second["emitted_at_utc"] == "1970-01-01T00:00:00.000005Z"
    assert "emitted_at_utc" not in third
    assert third["payload"] == b"not JSON"


@pytest.mark.parametrize("moment", [FIRST_MOMENT - 1, LAST_MOMENT + 1, NOT_EMITTED, 2**63 - 1])
def test_a_moment_without_a_wire_form_stays_a_number(moment: int) -> None:
    made = columns(ts=np.array([moment, FIRST_MOMENT, LAST_MOMENT], np.int64), emitted_at=np.array([3, 3, moment], np.int64))
    assert are_moments(made.ts).tolist() == [False, True, True]
    assert [record["ts_utc"] for record in made.records()] == [
        str(moment),
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
    ]
    assert list(made.records())[2].get("emitted_at_utc") == (None if moment == NOT_EMITTED else str(moment))


def test_a_part_is_its_records() -> None:
    assert list(columns().part(1, 9).records()) == list(columns().records())[1:]
    assert len(columns().part(1, 1)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"event_ids": ["a", "b"]}, "different lengths"),
        ({"payloads": []}, "different lengths"),
        ({"ts": np.array([0, 1, 2], np.float64)}, "ts is float64"),
        ({"emitted_at": np.zeros((3, 1), np.int64)}, "emitted_at is int64 of shape"),
        ({"pins_index": np.array([0, 1, 0], np.int64)}, "pins_index is int64"),
        ({"pins": [PINS]}, "outside the 1 pins"),
        ({"pins_index": np.array([0, -1, 0], np.int32)}, "outside the 2 pins"),
    ],
)
def test_columns_that_do_not_fit_together(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        columns(**change)
