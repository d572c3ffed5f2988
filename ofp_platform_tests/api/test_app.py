"""The application through ASGI: routes, statuses, and that whatever happens the answer is one of the contract."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ofp_platform.api import examples
from ofp_platform.api.access_log import AccessLog
from ofp_platform.api.app import Application
from ofp_platform.api.contract_files import contract_schemas, offline_schema, serving_schema
from ofp_platform.api.http_policy import HttpPolicy
from ofp_platform.api.live_example import LiveExample, live_request
from ofp_platform.api.openapi import openapi
from ofp_platform.api.principals import Scope
from ofp_platform.api.refusals import status_of
from ofp_platform.vocabulary.background_tasks import EndedTask, EndedTasks
from ofp_platform.vocabulary.errors import ContractError, ErrorCode, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.serving import FeatureGroups, Health, PostureState
from ofp_platform_tests.api.fake_port import (
    BODY,
    HASH,
    REBUILT,
    RECORD,
    FakeActions,
    FakeBuilds,
    FakeCases,
    FakeOperators,
    FakeOverviews,
    FakePort,
    FakePosture,
    FakeRecords,
    FixedAnswer,
)
from ofp_platform_tests.api.keys import BEARER, KEY, authentication, principal

CONTRACT = Draft202012Validator(serving_schema())
_NAMES = (
    "ofs_build_intent",
    "ofs_build_run",
    "ofp_health",
    "ofp_feature_groups",
    "ieg_entity_profile",
    "ofp_catalogue",
    "ofp_explanation",
    "ofp_apply_failures",
    "ofp_snapshot_record",
    "ofs_build_list",
    "ofs_build_progress",
    "ofs_parity_list",
    "ofs_parity_report",
    "ofs_dataset_list",
    "ofs_published_dataset",
    "ofp_pack_operations",
    "ofp_health_history",
    "bundle_history",
    "bundles_in_force",
    "posture_view",
    "posture_hold",
    "posture_release",
)
_OF_CASES = ("case", "case_list", "case_receipt", "case_trigger_ask", "case_entry_ask")
_OF_ACTIONS = ("action_record", "action_list", "action_settlement_ask")
_RECORDED = ("df_decision_record", "df_decision_receipt", "df_decision_list", "label_assertions", "label_receipt")
OFFLINE = Draft202012Validator(offline_schema())
_LISTED = _NAMES + _RECORDED + _OF_CASES + _OF_ACTIONS
SHOWN = {name: Draft202012Validator(contract_schemas()[f"{name}_v0.schema.json"]) for name in _LISTED}
REQUEST = json.dumps(examples.request_example()).encode()


def client_of(port: FakePort, builds: FakeBuilds | None = None, **settings: Any) -> httpx.AsyncClient:
    settings.setdefault("authentication", authentication())
    settings.setdefault("cases", FakeCases())
    settings.setdefault("actions", FakeActions())
    settings.setdefault("posture", FakePosture())
    application = Application(
        port,
        builds or FakeBuilds(),
        FakeOperators(),
        FakeRecords(),
        FakeOverviews(),
        new_request_id=lambda: "id-1",
        **settings,
    )
    headers = BEARER | {"content-type": "application/json"}
    # an exception that leaves the application fails the test
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost", headers=headers)


@pytest.fixture
def port() -> FakePort:
    return FakePort()


@pytest.fixture
async def http(port: FakePort) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(port) as client:
        yield client


def error_in(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()
    (OFFLINE if response.request.url.path.startswith("/v0/build_") else CONTRACT).validate(error)
    assert error["kind"] == "error_response"
    assert response.headers["content-type"] == "application/json"
    return error


async def test_get_features(http: httpx.AsyncClient) -> None:
    response = await http.post("/v0/get_features", content=REQUEST)
    assert response.status_code == 200
    assert response.content == BODY
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(BODY))
    assert response.headers["ofp-snapshot-hash"] == HASH


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "MALFORMED_JSON"),
        (b"{", "MALFORMED_JSON"),
        (b"\xff\xfe", "MALFORMED_JSON"),
        (b"[]", "INVALID_FIELD"),
        (b"null", "INVALID_FIELD"),
        (b"{}", "MISSING_FIELD"),
        (b"[" * 50_000, "MALFORMED_JSON"),
        (REQUEST.replace(b".250000Z", b".250000123Z"), "INVALID_TIME"),
        (REQUEST.replace(b".250000Z", b""), "INVALID_TIME"),
        (REQUEST.replace(b"acc-000117", b"4111 1111 1111 1111"), "INVALID_FIELD"),
        (REQUEST.replace(b"acc-000117", b"4111111111111111"), "RAW_IDENTIFIER"),
        (REQUEST.replace(b"acc-000117", b"pan=4111.1111.1111.1111"), "RAW_IDENTIFIER"),
    ],
)
async def test_bad_bodies_are_worded_and_never_quoted(http: httpx.AsyncClient, body: bytes, reason: str) -> None:
    response = await http.post("/v0/get_features", content=body)
    assert response.status_code == 400
    error = error_in(response)
    assert (error["error_code"], error["reason"], error["retryable"]) == ("INVALID_REQUEST", reason, False)
    assert "4111" not in response.text


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_above_the_limit(port: FakePort, declared: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 500

    async with client_of(port, policy=HttpPolicy(max_body_bytes=1000)) as http:
        content = b" " * 1001 if declared else pieces()
        response = await http.post("/v0/get_features", content=content)
    assert response.status_code == 413
    assert error_in(response)["reason"] == "BODY_TOO_LARGE"
    assert response.headers["connection"] == "close"
    assert port.asked == 0


async def test_a_body_at_the_limit_is_read(port: FakePort) -> None:
    async with client_of(port, policy=HttpPolicy(max_body_bytes=len(REQUEST) + 10)) as http:
        assert (await http.post("/v0/get_features", content=REQUEST + b" " * 10)).status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (invalid(Reason.TOO_MANY_KEYS, "x"), 400, None),
        (invalid(Reason.AS_OF_BEFORE_HORIZON, "x"), 400, None),
        (invalid(Reason.BASIS_LOST, "x"), 400, None),
        (invalid(Reason.DECISION_MISMATCH, "x"), 400, None),
        (invalid(Reason.DECISION_CONFLICT, "x"), 409, None),
        (invalid(Reason.CASE_ENTRY_CONFLICT, "x"), 409, None),
        (invalid(Reason.CASE_NOT_NOW, "x"), 409, None),
        (invalid(Reason.ACTION_NOT_NOW, "x"), 409, None),
        (not_found(Reason.UNKNOWN_ACTION, "x"), 404, None),
        (not_found(Reason.UNKNOWN_CASE, "x"), 404, None),
        (not_found(Reason.UNKNOWN_DECISION, "x"), 404, None),
        (unavailable(Reason.DECISION_CORRUPT, "x"), 503, "1"),
        (unavailable(Reason.LOG_TAIL_LOST, "x"), 503, "1"),
        (unavailable(Reason.SERVED_LOG_FULL, "x"), 503, "1"),
        (not_found(Reason.UNKNOWN_RUN, "x"), 404, None),
        (unavailable(Reason.STORE_DOWN, "x"), 503, "1"),
        (unavailable(Reason.BASIS_NOT_REACHED, "x"), 503, "1"),
    ],
)
async def test_refusals_of_the_plane(
    port: FakePort, http: httpx.AsyncClient, error: ContractError, status: int, retry_after: str | None
) -> None:
    port.script = [error]
    response = await http.post("/v0/get_features", content=REQUEST)
    assert response.status_code == status
    assert error_in(response) == error.wire()
    assert error_in(response)["context_pins"] == examples.request_example()["context_pins"]
    assert response.headers.get("retry-after") == retry_after
    assert "ofp-snapshot-hash" not in response.headers


def test_every_reason_has_a_status_of_its_code() -> None:
    for code, family in [(ErrorCode.INVALID_REQUEST, 4), (ErrorCode.NOT_FOUND, 4), (ErrorCode.UNAVAILABLE, 5)]:
        for reason in Reason:
            assert status_of(ContractError(code, reason, "")) // 100 in (family, 4)
    assert status_of(unavailable(Reason.INTERNAL, "")) == 503


async def test_an_unexpected_exception_is_safe_logged_and_counted(
    port: FakePort, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    port.script = [RuntimeError("secret payload 4111111111111111")]
    with caplog.at_level(logging.ERROR, "ofp.http"):
        response = await http.post("/v0/get_features", content=REQUEST, headers={"x-request-id": "mine-7"})
    assert response.status_code == 503
    error = error_in(response)
    assert (error["error_code"], error["reason"], error["retryable"]) == ("UNAVAILABLE", "INTERNAL", True)
    assert error["context_pins"] == examples.request_example()["context_pins"]
    assert response.headers["x-request-id"] == "mine-7"
    assert "RuntimeError" in caplog.text
    assert "mine-7" in caplog.text
    assert "fake_port.py" in caplog.text
    assert "secret" not in caplog.text + response.text
    assert "ofp_http_unexpected_errors_total 1.0" in (await http.get("/metrics")).text


async def test_exceptions_of_the_other_routes_are_safe_too(port: FakePort, http: httpx.AsyncClient) -> None:
    async def broken(*_: object) -> Any:
        raise ValueError("secret")

    for name, path in [
        ("snapshot", f"/v0/snapshots/{HASH}"),
        ("rebuilt_snapshot", f"/v0/rebuilt_snapshots/{HASH}"),
        ("feature_groups", "/v0/feature_groups"),
        ("health", "/health"),
    ]:
        setattr(port, name, broken)
        response = await http.get(path)
        assert response.status_code == 503
        assert error_in(response)["reason"] == "INTERNAL"
        assert "secret" not in response.text


@pytest.mark.parametrize("given_id", ["has space", "x" * 200, "-", "", "r-4111111111111111"])
async def test_a_request_id_that_is_not_one_is_replaced(port: FakePort, http: httpx.AsyncClient, given_id: str) -> None:
    port.script = [RuntimeError()]
    response = await http.post("/v0/get_features", content=REQUEST, headers={"x-request-id": given_id})
    assert response.headers["x-request-id"] == "id-1"


@pytest.mark.parametrize(("folder", "body"), [("snapshots", RECORD), ("rebuilt_snapshots", REBUILT)])
async def test_snapshots(http: httpx.AsyncClient, folder: str, body: bytes) -> None:
    response = await http.get(f"/v0/{folder}/{HASH}")
    assert (response.status_code, response.content) == (200, body)
    assert response.headers["ofp-snapshot-hash"] == HASH
    unknown = await http.get(f"/v0/{folder}/{'0' * 64}")
    assert (unknown.status_code, error_in(unknown)["reason"]) == (404, "UNKNOWN_SNAPSHOT")
    for name in ["zz", HASH.upper(), HASH + "0", HASH[:-1] + "%0A"]:
        wrong = await http.get(f"/v0/{folder}/{name}")
        assert (wrong.status_code, error_in(wrong)["reason"]) == (400, "INVALID_FIELD"), name


async def test_feature_groups(http: httpx.AsyncClient) -> None:
    SHOWN["ofp_feature_groups"].validate((await http.get("/v0/feature_groups")).json())


ENTITY = "/v0/entity?key_type=device&key_id=device-0000001"


@pytest.mark.parametrize("path", [ENTITY, f"{ENTITY}&as_of_time_utc=2026-01-03T00:00:00Z"])
async def test_an_entity(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    SHOWN["ieg_entity_profile"].validate(answer.json())
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "MISSING_FIELD"),
        ("?key_type=device", "MISSING_FIELD"),
        ("?key_type=town&key_id=x", "INVALID_FIELD"),
        ("?key_type=card&key_id=4111111111111111", "INVALID_FIELD"),
        ("?key_type=device&key_id=x&as_of_time_utc=now", "INVALID_FIELD"),
        ("?key_type=device&key_id=x&key_id=y", "INVALID_FIELD"),
    ],
)
async def test_an_entity_of_no_key(http: httpx.AsyncClient, query: str, reason: str) -> None:
    answer = await http.get(f"/v0/entity{query}")
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert "4111" not in answer.text


async def test_the_catalogue(http: httpx.AsyncClient) -> None:
    SHOWN["ofp_catalogue"].validate((await http.get("/v0/catalogue")).json())


@pytest.mark.parametrize(("state", "status"), [("GREEN", 200), ("AMBER", 200), ("RED", 503)])
async def test_health(port: FakePort, http: httpx.AsyncClient, state: str, status: int) -> None:
    port.health_now = port.health_now.model_copy(update={"state": PostureState(state)})
    response = await http.get("/health")
    assert response.status_code == status
    assert response.json()["state"] == state
    assert ("retry-after" in response.headers) == (status == 503)
    SHOWN["ofp_health"].validate(response.json())


async def test_metrics(http: httpx.AsyncClient) -> None:
    await http.post("/v0/get_features", content=REQUEST)
    await http.post("/v0/get_features", content=b"{")
    await http.get("/made/up/by/a/client")
    response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert "ofp_events_applied_total 200360.0" in response.text
    assert 'ofp_http_requests_total{outcome="OK",route="/v0/get_features"} 1.0' in response.text
    assert 'ofp_http_requests_total{outcome="MALFORMED_JSON",route="/v0/get_features"} 1.0' in response.text
    assert 'ofp_http_request_seconds_count{route="/v0/get_features"} 2.0' in response.text
    assert "made/up" not in response.text


async def test_unknown_paths_and_methods(http: httpx.AsyncClient) -> None:
    for method, path in [("GET", "/"), ("GET", "/v0"), ("GET", "/health/"), ("POST", "/v1/get_features"), ("OPTIONS", "/x")]:
        response = await http.request(method, path)
        assert (response.status_code, error_in(response)["reason"]) == (404, "UNKNOWN_PATH")
    for method, path, allow in [
        ("GET", "/v0/get_features", "POST"),
        ("OPTIONS", "/v0/get_features", "POST"),
        ("PUT", "/v0/get_features", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("OPTIONS", "/v0/feature_groups", "GET, HEAD"),
        ("DELETE", f"/v0/snapshots/{HASH}", "GET, HEAD"),
        ("GET", "/v0/build_intents", "POST"),
        ("POST", f"/v0/build_runs/{HASH}", "GET, HEAD"),
        ("GET", f"/v0/build_runs/{HASH}/cancellation", "POST"),
    ]:
        response = await http.request(method, path)
        assert (response.status_code, error_in(response)["reason"]) == (405, "METHOD_NOT_ALLOWED")
        assert response.headers["allow"] == allow


async def test_nobody_asks_without_a_key(port: FakePort) -> None:
    builds = FakeBuilds()
    reader_key, reader = principal("reader", ["features:read"])
    ended_key, ended = principal("ended", list(Scope), expires_at_utc="2026-01-01T00:00:00Z")
    wrong_keys = [f"Basic {KEY}", f"Bearer {KEY}x", "Bearer " + KEY[:-1], f"Bearer {KEY[:-1]}!", f"Bearer {ended_key}"]
    async with client_of(port, builds, authentication=authentication(reader, ended)) as http:
        for value in [None, "", "Bearer", *wrong_keys, "Bearer " + KEY[:20] + reader_key[20:]]:
            http.headers.pop("authorization", None)
            http.headers.update({} if value is None else {"authorization": value})
            for method, path in [
                ("POST", "/v0/get_features"),
                ("GET", f"/v0/snapshots/{HASH}"),
                ("GET", f"/v0/rebuilt_snapshots/{HASH}"),
                ("GET", "/v0/feature_groups"),
                ("GET", "/metrics"),
                ("POST", "/v0/build_intents"),
                ("GET", f"/v0/build_runs/{HASH}"),
                ("POST", f"/v0/build_runs/{HASH}/cancellation"),
            ]:
                response = await http.request(method, path, content=REQUEST)
                assert (response.status_code, error_in(response)["reason"]) == (401, "UNAUTHENTICATED")
                assert response.headers["www-authenticate"] == "Bearer"
        assert port.asked == builds.asked == 0
        for value in [f"Bearer {KEY}", f"bearer {KEY}", f"Bearer {reader_key}"]:
            headers = {"authorization": value}
            assert (await http.post("/v0/get_features", content=REQUEST, headers=headers)).status_code == 200
            assert (await http.get("/v0/feature_groups", headers=headers)).status_code == 200


async def test_open_routes_need_no_key(port: FakePort) -> None:
    async with client_of(port) as http:
        del http.headers["authorization"]
        for path in ["/health", "/docs", "/openapi.json"]:
            assert (await http.get(path)).status_code == 200


async def test_more_requests_than_the_bound_are_refused_at_once(port: FakePort) -> None:
    release = asyncio.Event()
    entered = asyncio.Event()

    async def held(body: bytes) -> FixedAnswer:
        entered.set()
        await release.wait()
        return FixedAnswer()

    port.answer = held  # type: ignore[method-assign]
    async with client_of(port, policy=HttpPolicy(max_in_flight=1)) as http:
        first = asyncio.create_task(http.post("/v0/get_features", content=REQUEST))
        await entered.wait()
        second = await http.post("/v0/get_features", content=REQUEST)
        assert (second.status_code, error_in(second)["reason"]) == (503, "OVERLOADED")
        release.set()
        assert (await first).status_code == 200
        assert (await http.post("/v0/get_features", content=REQUEST)).status_code == 200


async def test_lifespan(port: FakePort) -> None:
    for broken in (False, True):
        if broken:

            async def fail() -> None:
                raise ConnectionError("no store")

            port.open = fail  # type: ignore[method-assign]
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[Any] = []

        async def receive(messages: list[Any] = messages) -> Any:
            return messages.pop(0)

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        builds = FakeBuilds()
        await Application(
            port, builds, FakeOperators(), FakeRecords(), FakeOverviews(), posture=FakePosture(), authentication=authentication()
        )({"type": "lifespan"}, receive, send)
        if broken:
            assert sent == [
                {"type": "lifespan.startup.failed", "message": "the service cannot start: no store"},
            ]
        else:
            assert [m["type"] for m in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
            assert (port.opened, port.closed, builds.closed) == (True, True, True)


async def test_a_background_task_that_ends_is_told_to_health(tmp_path: Path) -> None:
    class BrokenLog(AccessLog):
        def write(self) -> None:
            raise ValueError("a defect")

    ended = EndedTasks()
    access = BrokenLog(tmp_path, lambda: 0.0)
    ports = FakePort(), FakeBuilds(), FakeOperators(), FakeRecords(), FakeOverviews()
    application = Application(*ports, posture=FakePosture(), authentication=authentication(), access=access, ended=ended)
    stop = asyncio.Event()
    began = False

    async def receive() -> dict[str, str]:
        nonlocal began
        if began:
            await stop.wait()
        began = True
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        pass

    serving = asyncio.create_task(application({"type": "lifespan"}, receive, send))
    while not ended.own:
        await asyncio.sleep(0.01)
    assert ended.own == [EndedTask("access log", "ValueError")]
    stop.set()
    await serving


async def test_openapi_is_true_to_the_service(http: httpx.AsyncClient) -> None:
    description = (await http.get("/openapi.json")).json()
    assert description == json.loads(json.dumps(openapi(LIVE)))
    schemas = {"$defs": {"components": description["components"]}}
    checked = 0
    for path, item in description["paths"].items():
        for method, operation in item.items():
            parts = [operation.get("requestBody", {}), *operation["responses"].values()]
            for part in parts:
                content = part.get("content", {}).get("application/json", {})
                if "example" in content:
                    kind = content["example"].get("kind", "")  # Feast's shape has none
                    is_offline = path.startswith("/v0/build_") or kind == "rebuilt_feature_snapshot"
                    if kind:
                        SHOWN.get(kind, OFFLINE if is_offline else CONTRACT).validate(content["example"])
                    Draft202012Validator({**content["schema"], "components": description["components"]}).validate(
                        content["example"]
                    )
                    checked += 1
            example = next((p["example"] for p in operation.get("parameters", []) if p["in"] == "path"), "")
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            query = {p["name"]: p["example"] for p in operation.get("parameters", []) if p["in"] == "query" and "example" in p}
            response = await http.request(method.upper(), re.sub(r"\{\w+\}", example, path), json=content, params=query)
            assert str(response.status_code) in operation["responses"], path
            assert response.status_code == 200
    assert checked >= 10
    text = json.dumps(schemas)
    assert "#/$defs/" not in text
    for name in set(text.split("#/components/schemas/")[1:]):
        assert name.split('"')[0] in description["components"]["schemas"]


async def test_the_page_works_offline(http: httpx.AsyncClient) -> None:
    response = await http.get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    page = response.text
    assert "<script" not in page
    assert "src=" not in page
    assert "http://" not in page.replace("http://localhost/", "")
    assert "https://" not in page
    for path in openapi()["paths"]:
        assert f"</span>{path}</h2>" in page
    assert HASH in page
    assert "account-0000001" in page


LIVE = LiveExample(
    request={
        "kind": "get_features_request",
        "contract_version": "ofp_public_contracts_v0",
        "context_pins": examples.request_example()["context_pins"],
        "feature_keys": [{"key_type": "account", "key_id": "account-0000001"}],
        "feature_groups": [{"group_name": "account_amount", "group_version": "v1"}],
        "as_of_time_utc": "2026-03-31T13:00:00Z",
        "request_context": {"amount_minor": 12_900},
        "request_id": "first-look",
    },
    response=json.loads(BODY),
    snapshot_hash=HASH,
)
"""What the pages make of the catalogue and the health of a FakePort."""


async def test_the_pages_ask_the_plane_once_for_their_example(port: FakePort, http: httpx.AsyncClient) -> None:
    for path in ["/docs", "/openapi.json", "/docs"]:
        assert (await http.get(path)).status_code == 200
    assert port.asked == 1


async def test_without_a_key_the_pages_show_nothing_of_the_plane(port: FakePort) -> None:
    metrics_key, metrics = principal("metrics", ["metrics"])
    stranger_key, stranger = principal("stranger", ["features:read"], [{"run_id": "another"}])
    async with client_of(port, authentication=authentication(metrics, stranger)) as http:
        for value in ["", f"Bearer {metrics_key}", f"Bearer {stranger_key}"]:
            headers = {"authorization": value}
            assert "$OFP_API_TOKEN" in (await http.get("/docs", headers=headers)).text
            assert (await http.get("/openapi.json", headers=headers)).json() == json.loads(json.dumps(openapi()))
    assert port.asked == 0


async def test_the_pages_do_not_need_the_plane(port: FakePort, http: httpx.AsyncClient) -> None:
    port.script = [unavailable(Reason.STORE_DOWN, "no")]
    assert (await http.get("/openapi.json")).json() == json.loads(json.dumps(openapi()))
    assert (await http.get("/openapi.json")).json() == json.loads(json.dumps(openapi(LIVE)))


@pytest.mark.parametrize(
    ("watermark", "as_of"),
    [
        (None, "2026-01-01T00:00:00Z"),
        ("2026-03-31T12:00:00Z", "2026-03-31T12:00:00Z"),
        ("2026-03-31T12:00:00.000001Z", "2026-03-31T13:00:00Z"),
    ],
)
def test_the_example_is_as_of_the_hour_after_the_watermark(watermark: str | None, as_of: str) -> None:
    health = Health.model_validate({**examples.health_example(), "watermark_utc": watermark})
    assert live_request(FeatureGroups.model_validate(examples.feature_groups_example()), health)["as_of_time_utc"] == as_of


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged_requests(draw: st.DrawFn) -> bytes:
    """A good request with one field replaced or removed, or with bytes of it replaced."""
    request: Any = examples.request_example()
    if draw(st.booleans()):
        raw = bytearray(REQUEST)
        at = draw(st.integers(0, len(raw) - 1))
        raw[at : at + draw(st.integers(0, 5))] = draw(st.binary(max_size=5))
        return bytes(raw)
    node: Any = request
    while True:
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if isinstance(node[key], (dict, list)) and node[key] and draw(st.booleans()):
            node = node[key]
            continue
        node[key] = draw(JSON_VALUES)
        return json.dumps(request).encode()


@given(
    method=st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "OPTIONS", "PATCH", "FOO"]),
    path=st.sampled_from(
        ["/v0/get_features"] * 4
        + [
            "/health",
            "/v0/snapshots/x",
            "/v0/feature_groups",
            "/get-online-features",
            "/v0/catalogue",
            "/v0/build_intents",
            "/v0/build_runs/x",
            "/metrics",
            "/docs",
        ]
        + ["/nowhere"]
    ),
    body=st.binary(max_size=200) | damaged_requests() | JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    headers=st.dictionaries(
        st.sampled_from(["x-request-id", "authorization", "content-type", "accept", "x-other"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30),
        max_size=3,
    ),
    failure=st.sampled_from([None, None, RuntimeError("x"), KeyError("y"), RecursionError(), MemoryError(), TimeoutError()]),
)
@settings(max_examples=150)
def test_whatever_is_sent_the_answer_is_of_the_contract(
    method: str, path: str, body: bytes, headers: dict[str, str], failure: Exception | None
) -> None:
    async def ask() -> httpx.Response:
        script = [] if failure is None else [failure]
        async with client_of(FakePort(script=[*script]), FakeBuilds(script=[*script])) as http:
            encoded = {name: value.encode("latin-1") for name, value in headers.items()}
            return await http.request(method, path, content=body, headers=encoded)

    response = asyncio.run(ask())
    if response.status_code == 200:
        return
    assert response.status_code in {400, 401, 404, 405, 408, 413, 415, 503}
    error = error_in(response)
    assert (response.status_code == 503) == (error["error_code"] == "UNAVAILABLE") == error["retryable"]
    assert "Traceback" not in response.text
