"""The ids of a trace follow from the event, as operating.md says."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.telemetry.trace_ids import PARENTS, Stage, span_id, trace_id


def test_ids_of_one_event() -> None:
    # they are found by hand, and stored by whoever keeps traces: they never change
    assert f"{trace_id('payment-1'):032x}" == hashlib.sha256(b"ofp|trace|payment-1").hexdigest()[:32]
    assert f"{span_id(Stage.ADMIT, 'payment-1'):016x}" == hashlib.sha256(b"ofp|span|ofp.admit|payment-1").hexdigest()[:16]


@given(st.text(max_size=40))
def test_ids_are_valid_and_differ_by_stage(event_id: str) -> None:
    assert 0 < trace_id(event_id) < 1 << 128
    ids = {span_id(stage, event_id) for stage in Stage}
    assert len(ids) == len(Stage)
    assert all(0 < number < 1 << 64 for number in ids)


def test_every_stage_leads_back_to_admission() -> None:
    for stage in Stage:
        way = [stage]
        while (parent := PARENTS.get(way[-1])) is not None:
            way.append(parent)
        assert way[-1] is Stage.ADMIT
