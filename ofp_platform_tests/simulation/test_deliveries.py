from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.simulation.deliveries import NOT_EMITTED, Deliveries, time_texts
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.times import format_time, parse_time

PINS = ContextPins(scenario_id="town", run_id="run-1", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)
MOMENTS = st.integers(parse_time("0001-01-01T00:00:00Z"), parse_time("9999-12-31T23:59:59.999999Z"))


@given(st.lists(MOMENTS | MOMENTS.map(lambda moment: moment // 1_000_000 * 1_000_000), max_size=20))
def test_many_times_are_written_as_one_is(moments: list[int]) -> None:
    assert time_texts(np.array(moments, dtype=np.int64)) == [format_time(moment) for moment in moments]


def test_an_event_without_emission_time_says_nothing_of_it() -> None:
    deliveries = Deliveries(
        schema_version="v1",
        pins=(PINS,),
        pins_index=np.zeros(3, dtype=np.int32),
        event_ids=["a", "b", "c"],
        event_types=["seen"] * 3,
        ts=np.array([0, 1, 2], dtype=np.int64),
        emitted_at=np.array([NOT_EMITTED, 5, NOT_EMITTED], dtype=np.int64),
        admitted_at=np.array([9, 9, 9], dtype=np.int64),
        payloads=[b"{}"] * 3,
    )
    assert [e.emitted_at_utc for e in deliveries.envelopes()] == [None, "1970-01-01T00:00:00.000005Z", None]
    assert ["emitted_at_utc" in record for record in deliveries.part(1, 3).records()] == [True, False]
    assert len(deliveries.part(1, 9)) == 2
