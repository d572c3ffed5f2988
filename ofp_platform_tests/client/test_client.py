"""The clients: what they send, what they believe, what they try again. Both run every test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

import ofp_platform.client as client_package
from ofp_platform.api import examples, overview_examples
from ofp_platform.api.build_examples import rebuilt_example
from ofp_platform.client import AnswerNotTrusted, AsyncOfpClient, OfpClient, RetryPolicy, ServiceUnreachable, make_request, verify
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError, ErrorCode, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.identity_link import EntityProfile
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.serving import GetFeaturesResponse, PostureState

RESPONSE = examples.response_example()
BODY = canonical_bytes(RESPONSE)
HASH = RESPONSE["provenance"]["feature_snapshot_hash"]
PINS = ContextPins.model_validate(RESPONSE["provenance"]["context_pins"])
QUESTION: dict[str, Any] = {
    "context_pins": PINS,
    "feature_keys": [("account", "acc-000117"), ("merchant", "mer-00042")],
    "feature_groups": [("account_amount", "v1"), ("merchant_activity", "v1")],
    "as_of_time_utc": "2026-03-31T12:00:00.25Z",
    "request_context": {"amount_minor": 12_900},
    "at_least_basis": [Position(stream_name="payments", partition_id="p0002", offset=51_233)],
    "request_id": "decision-8812",
    "extensions": {"channel": "web"},
}
Step = Exception | tuple[int, bytes] | tuple[int, bytes, dict[str, str]]


class Service:
    """Answers the given steps one after another and keeps what it was asked."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return httpx.Response(step[0], content=step[1], headers=step[2] if len(step) == 3 else {})


class Asked:
    """Calls one method of either client and keeps the pauses it made."""

    def __init__(self, client: type[OfpClient] | type[AsyncOfpClient]) -> None:
        self.client = client
        self.pauses: list[float] = []

    def __call__(self, service: Service, method: str, *arguments: Any, retries: RetryPolicy | None = None, **named: Any) -> Any:
        transport = httpx.MockTransport(service)
        if self.client is OfpClient:
            with OfpClient(
                "http://service", transport=transport, retries=retries, token="t0", sleep=self.pauses.append, chance=lambda: 0.0
            ) as ofp:
                return getattr(ofp, method)(*arguments, **named)

        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        async def ask() -> Any:
            async with AsyncOfpClient(
                "http://service", transport=transport, retries=retries, token="t0", sleep=pause, chance=lambda: 0.0
            ) as ofp:
                return await getattr(ofp, method)(*arguments, **named)

        return asyncio.run(ask())


@pytest.fixture(params=[OfpClient, AsyncOfpClient])
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(request.param)


def good() -> Step:
    return 200, BODY, {"ofp-snapshot-hash": HASH}


def wire(error: ContractError, status: int) -> Step:
    return status, canonical_bytes(error.wire())


def test_get_features(asked: Asked) -> None:
    service = Service(good())
    answer = asked(service, "get_features", **QUESTION)
    assert isinstance(answer, GetFeaturesResponse)
    assert answer.body == BODY
    assert answer.snapshot.by_key[0].by_group[0].features["mean_amount_30d"] == "4355.000000"
    assert verify(answer) == HASH
    (request,) = service.requests
    assert request.headers["authorization"] == "Bearer t0"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == examples.request_example()


def test_the_other_questions(asked: Asked) -> None:
    record, groups, health = examples.snapshot_record_example(), examples.feature_groups_example(), examples.health_example()
    assert asked(Service((200, canonical_bytes(record))), "get_snapshot", HASH).hashed == record["hashed"]
    rebuilt = rebuilt_example()
    assert asked(Service((200, canonical_bytes(rebuilt))), "get_rebuilt_snapshot", HASH).hashed == record["hashed"]
    assert asked(Service((200, canonical_bytes(groups))), "feature_groups").groups[0].group_name == "account_amount"
    assert asked(Service((200, canonical_bytes(health))), "health").state is PostureState.AMBER


@pytest.mark.parametrize(
    ("method", "arguments", "named", "target", "example"),
    [
        ("health_history", (), {"hours": 3}, "/v0/health_history?hours=3", overview_examples.health_history_example),
        (
            "build_runs",
            (),
            {"state": "DONE", "limit": 2},
            "/v0/build_runs?state=DONE&limit=2",
            overview_examples.build_list_example,
        ),
        ("build_stages", (HASH,), {}, f"/v0/build_runs/{HASH}/stages", overview_examples.build_progress_example),
        ("parity", (), {"limit": 2}, "/v0/parity?limit=2", overview_examples.parity_list_example),
        (
            "parity_report",
            (HASH,),
            {"before": "2026-01-31"},
            f"/v0/parity/{HASH}?before=2026-01-31",
            overview_examples.parity_report_example,
        ),
        ("datasets", (), {}, "/v0/datasets", overview_examples.dataset_list_example),
        ("dataset", ("frauds", HASH), {}, f"/v0/datasets/{HASH}?name=frauds", overview_examples.published_dataset_example),
        ("pack_operations", (), {"cursor": "c"}, "/v0/pack_operations?cursor=c", overview_examples.pack_operations_example),
    ],
)
def test_overviews(
    asked: Asked,
    method: str,
    arguments: tuple[str, ...],
    named: dict[str, Any],
    target: str,
    example: Callable[[], dict[str, Any]],
) -> None:
    service = Service((200, canonical_bytes(example())))
    page = asked(service, method, *arguments, **named)
    assert type(page).model_validate_json(canonical_bytes(example())) == page
    (request,) = service.requests
    assert (request.method, request.url.raw_path.decode()) == ("GET", target)


def test_red_is_an_answer_but_an_error_is_not(asked: Asked) -> None:
    red = examples.health_example() | {"state": "RED"}
    service = Service((503, canonical_bytes(red)))
    assert asked(service, "health").state is PostureState.RED
    assert len(service.requests) == 1
    error = unavailable(Reason.INTERNAL, "x")
    with pytest.raises(ContractError):
        asked(Service(wire(error, 503)), "health")


@pytest.mark.parametrize(
    ("error", "status"), [(invalid(Reason.TOO_MANY_KEYS, "too many", PINS), 400), (not_found(Reason.UNKNOWN_RUN, "who?"), 404)]
)
def test_refusals_come_as_they_are_and_are_not_tried_again(asked: Asked, error: ContractError, status: int) -> None:
    service = Service(wire(error, status))
    with pytest.raises(ContractError) as caught:
        asked(service, "get_features", **QUESTION)
    assert caught.value.wire() == error.wire()
    assert len(service.requests) == 1


def test_retryable_errors_and_lost_connections_are_tried_again(asked: Asked) -> None:
    service = Service(
        wire(unavailable(Reason.STORE_DOWN, "x"), 503), httpx.ConnectError("x"), httpx.RemoteProtocolError("x"), good()
    )
    retries = RetryPolicy(attempts=4, first_seconds=0.1, longest_seconds=0.3)
    assert asked(service, "get_features", retries=retries, **QUESTION).body == BODY
    assert asked.pauses == pytest.approx([0.05, 0.1, 0.15])
    assert len({request.content for request in service.requests}) == 1


def test_an_error_of_another_plane_may_state_no_reason_and_no_pins(asked: Asked) -> None:
    error = {
        "kind": "error_response",
        "contract_version": "ofp_public_contracts_v0",
        "error_code": "NOT_FOUND",
        "message": "no",
        "retryable": False,
    }
    with pytest.raises(ContractError) as caught:
        asked(Service((404, canonical_bytes(error))), "get_features", **QUESTION)
    assert (caught.value.code, caught.value.reason, caught.value.context_pins) == (ErrorCode.NOT_FOUND, Reason.UNSTATED, None)


def test_tries_are_bounded(asked: Asked) -> None:
    error = unavailable(Reason.BASIS_NOT_REACHED, "not yet")
    service = Service(*[wire(error, 503)] * 5)
    with pytest.raises(ContractError) as caught:
        asked(service, "get_features", **QUESTION)
    assert caught.value.reason is Reason.BASIS_NOT_REACHED
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert len(service.requests) == 3
    assert len(asked.pauses) == 2


def test_a_lost_connection_in_the_end(asked: Asked) -> None:
    service = Service(*[httpx.ConnectError("refused")] * 3)
    with pytest.raises(ServiceUnreachable, match="ConnectError"):
        asked(service, "feature_groups")
    assert len(service.requests) == 3


def test_a_read_that_timed_out_is_not_tried_again(asked: Asked) -> None:
    service = Service(httpx.ReadTimeout("slow"), good())
    with pytest.raises(ServiceUnreachable, match="ReadTimeout"):
        asked(service, "get_features", **QUESTION)
    assert len(service.requests) == 1


def test_a_proxy_that_answers_instead(asked: Asked) -> None:
    service = Service((502, b"<html>Bad Gateway</html>"), good())
    assert asked(service, "get_features", **QUESTION).body == BODY


def _altered(change: Callable[[dict[str, Any]], None]) -> bytes:
    altered = examples.response_example()
    change(altered)
    return canonical_bytes(altered)


@pytest.mark.parametrize(
    "step",
    [
        (200, b"<html>", {"ofp-snapshot-hash": HASH}),
        (200, BODY[:-1], {"ofp-snapshot-hash": HASH}),
        (200, canonical_bytes(examples.health_example()), {"ofp-snapshot-hash": HASH}),
        (200, BODY),
        (200, BODY, {"ofp-snapshot-hash": "0" * 64}),
        (500, b"Internal server error"),
        (418, b"[]"),
        (400, b'{"kind":"error_response","reason":"NEW_REASON"}'),
        (302, b"", {"location": "http://elsewhere"}),
    ],
)
def test_what_is_not_of_the_contract_is_not_believed(asked: Asked, step: Step) -> None:
    service = Service(step)
    with pytest.raises(AnswerNotTrusted):
        asked(service, "get_features", **QUESTION)
    assert len(service.requests) == 1


def test_a_record_that_is_not_the_one_asked_for(asked: Asked) -> None:
    record = examples.snapshot_record_example()
    with pytest.raises(AnswerNotTrusted):
        asked(Service((200, canonical_bytes(record))), "get_snapshot", "0" * 64)
    record["hashed"]["values"][0]["key_id"] = "acc-other"
    with pytest.raises(AnswerNotTrusted):
        asked(Service((200, canonical_bytes(record))), "get_snapshot", HASH)
    record["hashed"]["values"] = 1.5
    with pytest.raises(AnswerNotTrusted):
        asked(Service((200, json.dumps(record).encode())), "get_snapshot", HASH)


def test_a_rebuilt_snapshot_that_is_not_the_one_asked_for(asked: Asked) -> None:
    rebuilt = rebuilt_example()
    with pytest.raises(AnswerNotTrusted):
        asked(Service((200, canonical_bytes(rebuilt))), "get_rebuilt_snapshot", "0" * 64)
    rebuilt["hashed"]["values"] = []
    with pytest.raises(AnswerNotTrusted):
        asked(Service((200, canonical_bytes(rebuilt))), "get_rebuilt_snapshot", HASH)


def _set_value(r: dict[str, Any]) -> None:
    r["snapshot"]["by_key"][0]["by_group"][0]["features"]["mean_amount_30d"] = "4355.000001"


def _set_basis(r: dict[str, Any]) -> None:
    r["provenance"]["input_basis"]["partitions"][2]["offset"] += 1


def _set_pins(r: dict[str, Any]) -> None:
    r["provenance"]["context_pins"]["seed"] = 8


def _drop_warning(r: dict[str, Any]) -> None:
    r["provenance"]["warnings"].pop()


def _set_age(r: dict[str, Any]) -> None:
    r["provenance"]["freshness"][0]["age_seconds"] = 91


def _set_context(r: dict[str, Any]) -> None:
    r["provenance"]["requested"]["request_context"] = None


def _set_digest(r: dict[str, Any]) -> None:
    r["provenance"]["feature_definition_set"]["digest"] = "0" * 64


def _set_policy(r: dict[str, Any]) -> None:
    r["provenance"]["run_config_digest"] = "0" * 64


def _set_graph(r: dict[str, Any]) -> None:
    r["provenance"]["graph_version"] = {"graph_version": "g1", "stream_name": "payments", "basis": []}


def _set_instant(r: dict[str, Any]) -> None:
    r["snapshot"]["as_of_time_utc"] = "2026-03-31T12:00:00Z"


def _set_snapshot_pins(r: dict[str, Any]) -> None:
    r["snapshot"]["context_pins"]["seed"] = 8


def _set_snapshot_hash(r: dict[str, Any]) -> None:
    r["snapshot"]["feature_snapshot_hash"] = "0" * 64


def _set_key(r: dict[str, Any]) -> None:
    r["provenance"]["requested"]["feature_keys"][0]["key_id"] = "acc-x"


@pytest.mark.parametrize(
    "change",
    [
        _set_value,
        _set_basis,
        _set_pins,
        _drop_warning,
        _set_age,
        _set_context,
        _set_digest,
        _set_policy,
        _set_graph,
        _set_instant,
        _set_snapshot_pins,
        _set_snapshot_hash,
        _set_key,
    ],
)
def test_verify_notices_any_change_of_what_is_hashed(change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(AnswerNotTrusted):
        verify(GetFeaturesResponse.model_validate_json(_altered(change)))


def test_verify_leaves_the_moment_out() -> None:
    def later(r: dict[str, Any]) -> None:
        r["provenance"]["posture"] |= {"state": "AMBER", "lag_records": 9_000}
        r["provenance"]["request_id"] = None

    assert verify(GetFeaturesResponse.model_validate_json(_altered(later))) == HASH


def test_times_as_datetimes() -> None:
    instant = datetime(2026, 3, 31, 14, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))
    assert make_request(**QUESTION | {"as_of_time_utc": instant}).as_of_time_utc == "2026-03-31T12:00:00.250000Z"
    assert (
        make_request(**QUESTION | {"as_of_time_utc": datetime(2026, 1, 1, tzinfo=UTC)}).as_of_time_utc == "2026-01-01T00:00:00Z"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"feature_keys": [("card", "4111111111111111")]}, Reason.RAW_IDENTIFIER),
        ({"feature_keys": [("card", "has space 4111")]}, Reason.INVALID_FIELD),
        ({"feature_keys": [("terminal", "x4111")]}, Reason.INVALID_FIELD),
        ({"feature_keys": []}, Reason.INVALID_FIELD),
        ({"feature_groups": [("account_amount", "latest")]}, Reason.INVALID_FIELD),
        ({"as_of_time_utc": "2026-03-31"}, Reason.INVALID_TIME),
        ({"as_of_time_utc": datetime(2026, 3, 31)}, Reason.INVALID_TIME),  # noqa: DTZ001
        ({"request_context": {"amount_minor": 1.5}}, Reason.INVALID_FIELD),
        ({"feature_keys": [("card", "pan=4111.1111.1111.1111")]}, Reason.RAW_IDENTIFIER),
        ({"request_context": {"note": "PAN 4111\u20111111\u20111111\u20111111"}}, Reason.RAW_IDENTIFIER),
        ({"request_context": {"pan_4111111111111111": 1}}, Reason.RAW_IDENTIFIER),
        ({"request_id": "r-4111111111111111"}, Reason.RAW_IDENTIFIER),
        ({"context_pins": PINS.model_copy(update={"run_id": "run-4111111111111111"})}, Reason.RAW_IDENTIFIER),
    ],
)
def test_wrong_questions_do_not_leave(asked: Asked, change: dict[str, Any], reason: Reason) -> None:
    service = Service()
    with pytest.raises(ContractError) as caught:
        asked(service, "get_features", **QUESTION | change)
    assert caught.value.reason is reason
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert "4111" not in caught.value.message
    assert service.requests == []


def test_pauses_double_and_are_jittered() -> None:
    policy = RetryPolicy(first_seconds=0.1, longest_seconds=0.5)
    assert [policy.pause(n, 0.0) for n in (1, 2, 3, 4, 50)] == pytest.approx([0.05, 0.1, 0.2, 0.25, 0.25])
    assert policy.pause(1, 0.999) == pytest.approx(0.1, rel=0.01)


def test_what_the_module_offers() -> None:
    assert sorted(client_package.__all__) == [
        "AnswerNotTrusted",
        "AsyncOfpClient",
        "BatchPolicy",
        "ClientTls",
        "EventSender",
        "OfpClient",
        "Producer",
        "ProducerClosed",
        "ReceivedFeatures",
        "RetryPolicy",
        "ServiceUnreachable",
        "make_request",
        "verify",
    ]


@pytest.mark.parametrize("kind", [OfpClient, AsyncOfpClient])
def test_a_key_that_changes_is_asked_for_before_each_request(kind: Any) -> None:
    sent: list[str] = []
    keys = iter(["one", "two"])

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["authorization"])
        return httpx.Response(200, json=examples.health_example())

    async def ask() -> None:
        client = kind("http://service", token=lambda: next(keys), transport=httpx.MockTransport(answer))
        for _ in range(2):
            if kind is OfpClient:
                client.health()
            else:
                await client.health()

    asyncio.run(ask())
    assert sent == ["Bearer one", "Bearer two"]


def test_an_entity_is_asked_for_by_key_and_time(asked: Asked) -> None:
    service = Service((200, canonical_bytes(examples.entity_example())))
    known = asked(service, "entity", ("device", "device-0000001"), as_of_time_utc="2026-01-03T00:00:00Z")
    assert known == EntityProfile.model_validate(examples.entity_example())
    expected = "/v0/entity?key_type=device&key_id=device-0000001&as_of_time_utc=2026-01-03T00%3A00%3A00Z"
    assert str(service.requests[0].url).endswith(expected)
    with pytest.raises(AnswerNotTrusted):
        asked(Service((200, b"{}")), "entity", ("device", "device-0000001"))
