"""The HTTP door on a real log: what it takes, what it answers, and that whatever is sent the answer is one of the contract."""

from __future__ import annotations

import gzip
import io
import json
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ofp_platform.api.contract_files import CONTRACTS, serving_schema
from ofp_platform.api.ingress_app import MOST_BYTES, IngressApplication
from ofp_platform.api.ingress_service import Allowance, IngressService
from ofp_platform.ingress.class_map import class_map_of
from ofp_platform.ingress.reconciliation import reconcile_ingress
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.run_asks import pending_asks
from ofp_platform.telemetry.log_lines import OWN_LOGGERS, line_formatter
from ofp_platform.telemetry.trace_ids import Stage
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.api.keys import BEARER, authentication, principal
from ofp_platform_tests.oracle.simulated_log import PINS
from ofp_platform_tests.oracle.simulated_log import profile as simulated_profile
from ofp_platform_tests.telemetry.recorded_spans import recording
from ofp_platform_tests.telemetry.test_open_telemetry import CALLER

LINES = {"content-type": "application/x-ndjson"}
JSON = {"content-type": "application/json"}
ERRORS = Draft202012Validator(serving_schema())
ANSWER = Draft202012Validator(json.loads((CONTRACTS / "admission_answer_v0.schema.json").read_text(encoding="utf-8")))


def payment(event_id: str, **more: Any) -> dict[str, Any]:
    payload = {f"{kind}_id": f"{kind}-0000001" for kind in ("account", "card", "customer", "device", "merchant")}
    rest = {"amount_minor": more.pop("amount", 5), "status": "approved", "channel": "pos"}
    head = {"event_id": event_id, "event_type": "card_payment", "schema_version": "v1", "ts_utc": "2026-02-05T00:00:05Z"}
    return {**head, **PINS, "payload": {**payload, **rest}, **more}


def lines(*records: Any) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


@pytest.fixture
def declared(tmp_path: Path) -> Profile:
    return simulated_profile(tmp_path)


Make = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def make(declared: Profile, dsn: str) -> AsyncIterator[Make]:
    services: list[IngressService] = []

    def client(dsn_of_it: str = dsn, rate: float = 0, clock: Callable[[], float] = lambda: 0.0, **more: Any) -> httpx.AsyncClient:
        services.append(IngressService(more.pop("profile", declared), dsn_of_it))
        auth = more.pop("auth", None) or authentication(pins=declared.context_pins)
        application = IngressApplication(services[-1], authentication=auth, allowance=Allowance(rate, clock), **more)
        # an exception that leaves the application fails the test
        transport = httpx.ASGITransport(application)
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=BEARER | LINES)

    yield client
    for service in services:
        await service.close()


async def sent(http: httpx.AsyncClient, content: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await http.post("/v0/events", content=content, headers=named)
    if response.status_code == 200:
        ANSWER.validate(response.json())
    else:
        assert response.status_code in (400, 401, 403, 404, 408, 409, 413, 415, 421, 429, 503), response.text
        assert response.json()["reason"] != "INTERNAL"
        ERRORS.validate(response.json())
    return response


def outcomes(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [receipt.get("reason", receipt["outcome"]) for receipt in response.json()["receipts"]]


async def test_each_record_gets_a_receipt_in_the_answer(make: Make, declared: Profile, dsn: str) -> None:
    async with make() as http:
        batch = lines(payment("1"), payment("1"), payment("1", amount=6), payment("2", run_id="other")) + b"\nnonsense\n[]\n"
        answer = await sent(http, batch)
        assert outcomes(answer) == [
            "ADMIT",
            "DUPLICATE",
            "EVENT_ID_CONFLICT",
            "RUN_NOT_ACTIVE",
            "INVALID_ENVELOPE",
            "INVALID_ENVELOPE",
        ]
        receipts = answer.json()["receipts"]
        assert [receipt["place"] for receipt in receipts] == [0, 1, 2, 3, 4, 5]
        assert receipts[0]["position"]["stream_name"] == declared.stream_name
        assert receipts[0]["position"] == receipts[1]["position"]
        array = orjson.dumps([payment("3"), 7])
        assert outcomes(await sent(http, array, content_type="application/json")) == ["ADMIT", "INVALID_ENVELOPE"]
        metrics = (await http.get("/metrics")).text
        assert 'ofp_ingress_records_total{outcome="ADMIT"} 2.0' in metrics
        health = await http.get("/health")
        assert (health.status_code, health.json()["state"]) == (200, "GREEN")
    with Plane.open(declared, dsn) as plane, open_pool(dsn) as pool, pool.connection() as connection:
        class_map = class_map_of(profile_pack(declared), has_context=False)
        result = reconcile_ingress(connection, declared.context_pins, class_map, plane.log, None)
    assert (result.differences, result.sent_count, result.in_log) == ([], 8, 2)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_compressed_batches_are_unpacked_within_bounds(make: Make, encoding: str) -> None:
    def packed(content: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, encoding) as stream:
            stream.write(content)
        return bytes(sink.getvalue())

    async with make() as http:
        assert outcomes(await sent(http, packed(lines(payment("1"))), content_encoding=encoding)) == ["ADMIT"]
        bomb = packed(b" " * (MOST_BYTES + 1))
        assert len(bomb) < 100_000
        refused = await sent(http, bomb, content_encoding=encoding)
        assert (refused.status_code, refused.json()["reason"]) == (413, "BODY_TOO_LARGE")
        cut = packed(lines(*[payment(str(number)) for number in range(50)]))[:-20]
        for broken in (cut, b"no " + encoding.encode(), b""):
            refused = await sent(http, broken, content_encoding=encoding)
            assert refused.status_code == 400, refused.text


async def test_an_idempotency_key_is_answered_once(make: Make) -> None:
    async with make() as http:
        first = await sent(http, lines(payment("1")), idempotency_key="k-1")
        again = await sent(http, lines(payment("1")), idempotency_key="k-1")
        assert (outcomes(first), outcomes(again)) == (["ADMIT"], ["ADMIT"])
        assert (first.json()["repeated"], again.json()["repeated"]) == (False, True)
        assert first.json()["batch_id"] == again.json()["batch_id"]
        assert first.json()["receipts"] == again.json()["receipts"]
        packed = await sent(http, gzip.compress(lines(payment("1"))), idempotency_key="k-1", content_encoding="gzip")
        assert packed.json()["repeated"]
        refused = await sent(http, lines(payment("2")), idempotency_key="k-1")
        assert (refused.status_code, refused.json()["reason"]) == (409, "IDEMPOTENCY_CONFLICT")
        assert outcomes(await sent(http, lines(payment("1")))) == ["DUPLICATE"]
        for key in ("", "a b", "k" * 129, "4111111111111111"):
            refused = await sent(http, lines(payment("3")), idempotency_key=key)
            assert (refused.status_code, refused.json()["reason"]) == (400, "INVALID_FIELD")


async def test_batches_that_are_none_are_refused(make: Make) -> None:
    async with make() as http:
        for content, headers, reason in (
            (b"", {}, "MISSING_FIELD"),
            (b"\n\n", {}, "MISSING_FIELD"),
            (b"{}", JSON, "MALFORMED_JSON"),
            (b"[1,", JSON, "MALFORMED_JSON"),
            (b"[" * 100_000, JSON, "MALFORMED_JSON"),
            (b'[{"a":1,"a":2}]', JSON, "MALFORMED_JSON"),
            (b"[]", JSON, "MISSING_FIELD"),
            (b"{}\n" * 10_001, {}, "TOO_MANY_RECORDS"),
            (lines(payment("1")), {"content-type": "text/plain"}, "UNSUPPORTED_MEDIA_TYPE"),
            (lines(payment("1")), {"content-encoding": "br"}, "UNSUPPORTED_MEDIA_TYPE"),
            (lines(payment("1")), {"host": "evil.example"}, "FOREIGN_HOST"),
            (lines(payment("1")), {"origin": "http://evil.example"}, "FOREIGN_ORIGIN"),
            (b" " * (MOST_BYTES + 1), {}, "BODY_TOO_LARGE"),
        ):
            refused = await sent(http, content, **{name.replace("-", "_"): value for name, value in headers.items()})
            assert refused.json()["reason"] == reason, (content[:20], headers)
        for method, path, status in (("GET", "/v0/events", 405), ("POST", "/health", 405), ("GET", "/v0/other", 404)):
            response = await http.request(method, path)
            assert response.status_code == status
            ERRORS.validate(response.json())


async def test_only_who_may_write_events_of_the_run_is_let_in(make: Make, declared: Profile) -> None:
    reader_key, reader = principal("reader", ["features:read"])
    other_key, other = principal("other", ["events:write"], runs=[{"run_id": "another"}])
    till_key, till = principal("till", ["events:write"])
    auth = authentication(reader, other, till, pins=declared.context_pins)
    async with make(auth=auth) as http:
        refusals = (reader_key, 403, "FORBIDDEN"), (other_key, 404, "UNKNOWN_RUN"), ("ofp_none", 401, "UNAUTHENTICATED")
        for key, status, reason in refusals:
            refused = await sent(http, lines(payment("1")), authorization=f"Bearer {key}")
            assert (refused.status_code, refused.json()["reason"]) == (status, reason)
        assert (await http.get("/metrics", headers={"authorization": f"Bearer {till_key}"})).status_code == 403
        assert (await http.get("/health", headers={"authorization": ""})).status_code == 200
        assert outcomes(await sent(http, lines(payment("1")), authorization=f"Bearer {till_key}")) == ["ADMIT"]


async def test_a_producer_has_an_allowance_of_its_own(make: Make, declared: Profile) -> None:
    till_key, till = principal("till", ["events:write"])
    now = [100.0]
    async with make(rate=5, clock=lambda: now[0], auth=authentication(till, pins=declared.context_pins)) as http:
        batch = lines(*[payment(str(number)) for number in range(10)])
        assert (await sent(http, batch)).status_code == 200
        refused = await sent(http, lines(payment("x")))
        assert (refused.status_code, refused.json()["reason"], refused.headers["retry-after"]) == (429, "RATE_EXCEEDED", "1")
        assert (await sent(http, batch, authorization=f"Bearer {till_key}")).status_code == 200  # another producer
        now[0] += 0.2
        assert outcomes(await sent(http, lines(payment("x")))) == ["ADMIT"]
        now[0] += 1_000
        larger = lines(*[payment(f"l-{number}") for number in range(30)])  # than all that can be saved up
        assert (await sent(http, larger)).status_code == 200


async def test_a_database_that_is_away_is_said_and_comes_back(make: Make, dsn: str, declared: Profile) -> None:
    async with make("postgresql://somebody:secret@127.0.0.1:1/none") as http:
        refused = await sent(http, lines(payment("1")))
        assert (refused.status_code, refused.json()["reason"]) == (503, "STORE_DOWN")
        assert "secret" not in refused.text
        health = await http.get("/health")
        assert (health.status_code, health.json()["state"], health.json()["reasons"]) == (503, "RED", ["STORE_DOWN"])
    with Plane.open(declared, dsn) as plane, plane.pool.connection() as connection:
        connection.execute("UPDATE ofp.log_stream SET server = NULL")
    async with make() as http:
        first = await sent(http, lines(payment("1")))
        assert first.status_code in (200, 503)  # whoever opens the stream settles it, where the archive lacks nothing
        assert outcomes(await sent(http, lines(payment("2")))) == ["ADMIT"]


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["event_id", "event_type", "schema_version", "ts_utc", "payload", "amends", "run_id", "seed", "more"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=120, deadline=None)
@given(
    st.lists(st.dictionaries(FIELDS, JSONISH, max_size=4), min_size=1, max_size=4),
    st.binary(max_size=40),
    st.sampled_from(["json", "lines", "bytes"]),
)
async def test_whatever_is_sent_the_answer_is_of_the_contract(
    make: Make, changes: list[dict[str, Any]], noise: bytes, form: str
) -> None:
    records = [{**payment(f"f-{place}"), **change} for place, change in enumerate(changes)]
    texts = [json.dumps(record).encode() for record in records]
    async with make() as http:
        match form:
            case "json":
                response = await sent(http, b"[" + b",".join(texts) + b"]", content_type="application/json")
            case "lines":
                response = await sent(http, b"\n".join(texts))
            case _:
                response = await sent(http, b"\n".join(texts) + noise)
    if response.status_code == 200 and form != "bytes":
        assert len(response.json()["receipts"]) == len(records)


async def test_a_run_that_needs_no_ready_is_not_asked_for(make: Make) -> None:
    async with make() as http:
        refused = await http.post("/v0/runs", content=b'{"world": "june"}', headers=JSON)
    assert (refused.status_code, refused.json()["reason"]) == (404, "UNKNOWN_RUN")
    assert "names no control_stream" in refused.text


async def test_a_run_is_asked_for_and_a_runner_answers(make: Make, declared: Profile, dsn: str) -> None:
    answer_schema = Draft202012Validator(json.loads((CONTRACTS / "run_ask_answer_v0.schema.json").read_text(encoding="utf-8")))
    key, producer = principal("till", ["events:write"])
    auth = authentication(producer, pins=declared.context_pins)
    async with make(auth=auth, profile=declared.model_copy(update={"control_stream": "control"})) as http:

        async def asked(content: bytes, **headers: str) -> httpx.Response:
            named = {"content-type": "application/json", **headers}
            response = await http.post("/v0/runs", content=content, headers=named)
            (answer_schema if response.status_code == 202 else ERRORS).validate(response.json())
            return response

        first = await asked(b'{"world": "june", "speedup": "60"}')
        assert (first.status_code, first.json()["state"], first.json()["actor"]) == (202, "PENDING", "everything")
        shown = await http.get(f"/v0/runs/{first.json()['ask_id']}")
        answer_schema.validate(shown.json())
        assert shown.json() == first.json()
        for body, reason in (
            (b"{", "MALFORMED_JSON"),
            (b'{"world": "june", "world": "july"}', "MALFORMED_JSON"),
            (b'{"world": "NO NAME"}', "INVALID_FIELD"),
            (b'{"world": "june", "surplus": 1}', "INVALID_FIELD"),
            (b"[]", "INVALID_FIELD"),
            (b"{}", "INVALID_FIELD"),
        ):
            refused = await asked(body)
            assert (refused.status_code, refused.json()["reason"]) == (400, reason), body
        assert (await asked(b"{}", authorization=f"Bearer {key}")).json()["reason"] == "FORBIDDEN"
        assert (await asked(b"{}", **LINES)).json()["reason"] == "UNSUPPORTED_MEDIA_TYPE"
        assert (await http.get("/v0/runs/77")).json()["reason"] == "UNKNOWN_RUN"
        for name in ("9" * 5_000, "-1", "one", "%C2%B2"):
            refused = await http.get(f"/v0/runs/{name}")
            assert (refused.status_code, refused.json()["reason"]) == (400, "INVALID_FIELD"), name[:9]
        wrong = await http.get("/v0/runs")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    with open_pool(dsn) as pool, pool.connection() as connection:
        assert len(pending_asks(connection, declared.context_pins)) == 1


async def test_events_have_spans_that_lead_to_the_trace_of_their_sender(make: Make) -> None:
    content = lines(payment("e-1"), payment("e-2"), {"event_id": "none"})
    async with make() as http:
        with recording() as memory:
            first = await sent(http, content, traceparent=CALLER)
            again = await sent(http, content)
    assert (first.status_code, again.status_code) == (200, 200)
    for event_id in ("e-1", "e-2"):
        assert memory.names(event_id) == [Stage.ADMIT, Stage.APPEND, Stage.ADMIT]
        admitted, appended, repeated = memory.of_event(event_id)
        assert [f"{link.context.trace_id:032x}" for link in admitted.links] == [CALLER[3:35]]
        assert not repeated.links
        assert (appended.attributes or {})["ofp.partition_id"] == "0000"
        assert (repeated.attributes or {})["ofp.outcome"] == "DUPLICATE"
    assert len(memory.all()) == 6  # what is no envelope has no id, and no trace


async def test_no_line_of_the_log_has_what_was_sent(make: Make, declared: Profile, dsn: str) -> None:
    marker, root = "marked-4111", logging.getLogger()
    lines_of_log = io.StringIO()
    handler = logging.StreamHandler(lines_of_log)
    handler.setFormatter(line_formatter({}, "json"))
    own_loggers = [logging.getLogger(name) for name in OWN_LOGGERS]
    levels = [logger.level for logger in own_loggers]
    root.addHandler(handler)
    for logger in own_loggers:
        logger.setLevel(logging.DEBUG)
    try:
        marked = {"account_id": marker, "card_id": marker, "amount_minor": marker}
        records = [payment(f"e-{number}", payload={**payment("x")["payload"], **marked}) for number in range(3)]
        conflict = payment("e-0", payload={**records[0]["payload"], "status": marker})
        async with make() as http:
            answer = await sent(
                http, lines(*records, conflict, payment("e-9", ts_utc=marker), payment("e-8", event_type=marker), marker)
            )
            broken = await sent(http, f'[{{"{marker}"'.encode(), content_type="application/json")
        assert (answer.status_code, broken.status_code) == (200, 400)
        assert {receipt["outcome"] for receipt in answer.json()["receipts"]} == {"ADMIT", "QUARANTINE"}
        with Plane.open(declared, dsn) as plane:
            receipt = plane.projector(plane.ensure_live()).apply_available(max_records=100)
        assert receipt is not None
        assert receipt.failures or receipt.group_failures
        logging.getLogger("ofp.http").error("told")
    finally:
        root.removeHandler(handler)
        for logger, level in zip(own_loggers, levels, strict=True):
            logger.setLevel(level)
    assert '"event":"told"' in lines_of_log.getvalue()  # lines do come here
    assert marker not in lines_of_log.getvalue()
