"""Spans of questions: where they are told, and that the answer is the same."""

from __future__ import annotations

import json

from opentelemetry.trace import StatusCode

from ofp_platform.api import examples
from ofp_platform.api.request_spans import tell_get_features, traceparent
from ofp_platform_tests.api.fake_port import BODY, HASH, FakePort
from ofp_platform_tests.api.test_app import client_of
from ofp_platform_tests.telemetry.recorded_spans import recording
from ofp_platform_tests.telemetry.test_open_telemetry import CALLER

QUESTION = json.dumps(examples.request_example())


async def test_a_question_has_a_span_in_the_trace_of_its_caller() -> None:
    with recording() as memory:
        async with client_of(FakePort()) as http:
            answer = await http.post("/v0/get_features", content=QUESTION, headers={"traceparent": CALLER})
            refused = await http.post("/v0/get_features", content="{", headers={"traceparent": "nonsense"})
    assert (answer.status_code, answer.content) == (200, BODY)
    assert refused.status_code == 400
    asked, failed = memory.all()
    assert asked.parent is not None
    assert f"{asked.parent.trace_id:032x}" == CALLER[3:35]
    assert asked.attributes == {"ofp.snapshot_hash": HASH}
    assert (failed.parent, failed.status.status_code, failed.attributes) == (None, StatusCode.ERROR, {})


async def test_where_no_spans_are_told_nothing_is_looked_at() -> None:
    headers = [(b"traceparent", CALLER.encode())]
    assert traceparent(headers) is None
    tell_get_features(headers, 0.0, HASH, None)
    with recording() as memory:
        assert traceparent(headers) == CALLER
        assert traceparent([]) is None
    assert memory.all() == []
