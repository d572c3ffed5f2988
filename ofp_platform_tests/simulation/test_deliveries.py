from __future__ import annotations

import numpy as np

from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.vocabulary.columns import NOT_EMITTED
from ofp_platform.vocabulary.identity import ContextPins

PINS = ContextPins(scenario_id="town", run_id="run-1", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)


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
