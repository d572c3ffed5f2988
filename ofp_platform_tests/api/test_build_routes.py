"""The routes of builds over a fake ledger, and both clients against them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from ofp_platform.api.app import Application
from ofp_platform.api.build_examples import build_error_examples, intent_example, run_example
from ofp_platform.api.http_policy import HttpPolicy
from ofp_platform.api.refusals import status_of
from ofp_platform.client import AnswerNotTrusted, AsyncOfpClient, OfpClient
from ofp_platform.offline.requests.intent_file import parse_intent
from ofp_platform.offline.requests.policies import BuildPolicies
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError, ErrorCode, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.offline.build_refusal import Refusal
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform_tests.api.fake_port import FakeBuilds, FakeOperators, FakeOverviews, FakePort, FakePosture, FakeRecords
from ofp_platform_tests.api.keys import BEARER, authentication

INTENT = json.dumps(intent_example()).encode()
KEY = run_example()["run_key"]
SUBMITTED = run_example(intent_example() | {"submitted_by": "everything"})


@pytest.fixture
def builds() -> FakeBuilds:
    return FakeBuilds()


def client_of(builds: FakeBuilds, **settings: Any) -> httpx.AsyncClient:
    settings.setdefault("authentication", authentication())
    application = Application(
        FakePort(),
        builds,
        FakeOperators(),
        FakeRecords(),
        FakeOverviews(),
        posture=FakePosture(),
        new_request_id=lambda: "id-1",
        **settings,
    )
    headers = BEARER | {"content-type": "application/json"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost", headers=headers)


def test_the_examples_are_real() -> None:
    intent = parse_intent(intent_example())
    run = BuildRun.model_validate(run_example())
    assert run.intent == intent
    assert run.attempt_limit == run.publish_attempt_limit == BuildPolicies().resolve(intent.policy).max_attempts
    for status, error in build_error_examples().items():
        assert status_of(ContractError(ErrorCode(error["error_code"]), Reason(error["reason"]), "")) == status
    wrong = {**intent_example(), "as_of_basis": "latest"}
    with pytest.raises(Exception, match="as_of_basis") as refusal:
        parse_intent(wrong)
    assert build_error_examples()[400]["message"] == str(refusal.value)


CANCELLED = {"reason": "CANCELLED", "field": "", "message": "cancelled by everything"}


async def test_an_intent_is_one_run(builds: FakeBuilds) -> None:
    async with client_of(builds) as http:
        first = await http.post("/v0/build_intents", content=INTENT)
        assert (first.status_code, first.headers["content-type"]) == (200, "application/json")
        assert first.headers["cache-control"] == "no-store"
        assert first.json() == SUBMITTED
        again = await http.post(
            "/v0/build_intents", content=json.dumps({**intent_example(), "note": "again", "submitted_by": "somebody"})
        )
        assert again.content == first.content
        shown = await http.get(f"/v0/build_runs/{KEY}")
        assert (shown.status_code, shown.content) == (200, first.content)
        metrics = (await http.get("/metrics")).text
    assert 'ofp_http_requests_total{outcome="OK",route="/v0/build_intents"} 2.0' in metrics
    assert 'ofp_http_requests_total{outcome="OK",route="/v0/build_runs/{run_key}"} 1.0' in metrics


async def test_a_run_is_cancelled(builds: FakeBuilds) -> None:
    async with client_of(builds) as http:
        assert (await http.post(f"/v0/build_runs/{KEY}/cancellation")).status_code == 404
        await http.post("/v0/build_intents", content=INTENT)
        first = await http.post(f"/v0/build_runs/{KEY}/cancellation")
        assert first.json()["refusal"] == CANCELLED
        assert (await http.post(f"/v0/build_runs/{KEY}/cancellation")).content == first.content
        wrong = await http.post("/v0/build_runs/latest/cancellation")
        assert (wrong.status_code, wrong.json()["reason"]) == (400, "INVALID_FIELD")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (invalid(Reason.INTENT_REFUSED, "LABEL_ASOF_MISSING (label): why"), 400),
        (invalid(Reason.MALFORMED_JSON, "not JSON"), 400),
        (unavailable(Reason.STORE_DOWN, "down"), 503),
        (unavailable(Reason.OVERLOADED, "later"), 503),
        (not_found(Reason.UNKNOWN_BUILD_RUN, "which?"), 404),
    ],
)
async def test_refusals_come_as_the_port_words_them(builds: FakeBuilds, error: ContractError, status: int) -> None:
    builds.script = [error, error]
    async with client_of(builds) as http:
        shown = await http.get(f"/v0/build_runs/{KEY}")
        assert shown.json()["context_pins"] is None
        submitted = await http.post("/v0/build_intents", content=INTENT)
        assert submitted.json()["context_pins"] == intent_example()["context_pins"]
        for response in (shown, submitted):
            expected = {**error.wire("ofs_public_contracts_v0"), "context_pins": response.json()["context_pins"]}
            assert (response.status_code, response.json()) == (status, expected)
            assert response.headers.get("retry-after") == ("1" if status == 503 else None)


async def test_what_nobody_expected_is_internal(builds: FakeBuilds) -> None:
    builds.script = [RuntimeError("secret")]
    async with client_of(builds) as http:
        response = await http.post("/v0/build_intents", content=INTENT)
    assert (response.status_code, response.json()["reason"]) == (503, "INTERNAL")
    assert response.json()["context_pins"] == intent_example()["context_pins"]
    assert "secret" not in response.text


@pytest.mark.parametrize("key", ["zz", KEY[:8], KEY.upper(), KEY + "0", KEY[:-1] + "%0A"])
async def test_a_run_is_named_by_its_whole_key(builds: FakeBuilds, key: str) -> None:
    async with client_of(builds) as http:
        response = await http.get(f"/v0/build_runs/{key}")
    assert (response.status_code, response.json()["reason"]) == (400, "INVALID_FIELD")
    assert builds.asked == 0


@pytest.mark.parametrize("declared", [True, False])
async def test_an_intent_has_a_bound_of_its_own(builds: FakeBuilds, declared: bool) -> None:
    async def pieces(content: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(content), 50_000):
            yield content[at : at + 50_000]

    limit = HttpPolicy().max_intent_bytes
    assert limit > HttpPolicy().max_body_bytes
    async with client_of(builds) as http:
        for size, status in [(limit, 200), (limit + 1, 413)]:
            content = INTENT.ljust(size)
            response = await http.post("/v0/build_intents", content=content if declared else pieces(content))
            assert response.status_code == status
    assert response.json() == build_error_examples()[413]
    assert response.headers["connection"] == "close"
    assert builds.asked == 1


async def test_without_a_key_the_body_is_not_read(builds: FakeBuilds) -> None:
    read = []

    async def pieces() -> AsyncIterator[bytes]:
        read.append(True)
        yield INTENT

    async with client_of(builds) as http:
        response = await http.post("/v0/build_intents", content=pieces(), headers={"authorization": ""})
        assert (response.status_code, response.headers["connection"]) == (401, "close")
        assert not read
        response = await http.post("/v0/build_intents", content=INTENT, headers=BEARER)
        assert response.status_code == 200


@dataclass
class Service:
    """Answers over HTTP with what a function says, and keeps what it was asked."""

    answers: list[ContractError | dict[str, Any]]
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, ContractError):
            return httpx.Response(status_of(answer), content=canonical_bytes(answer.wire()))
        return httpx.Response(200, content=canonical_bytes(answer))


def _with_sync(service: Service, method: str, argument: Any) -> BuildRun:
    with OfpClient("http://service", transport=httpx.MockTransport(service), sleep=lambda seconds: None) as ofp:
        run: BuildRun = getattr(ofp, method)(argument)
        return run


def _with_async(service: Service, method: str, argument: Any) -> BuildRun:
    async def pause(seconds: float) -> None:
        pass

    async def ask() -> BuildRun:
        async with AsyncOfpClient("http://service", transport=httpx.MockTransport(service), sleep=pause) as ofp:
            run: BuildRun = await getattr(ofp, method)(argument)
            return run

    return asyncio.run(ask())


Asked = Callable[[Service, str, Any], BuildRun]
both_clients = pytest.mark.parametrize("asked", [_with_sync, _with_async])


@both_clients
def test_clients_submit_models_and_mappings(asked: Asked) -> None:
    service = Service([run_example()] * 3)
    for intent in (parse_intent(intent_example()), intent_example()):
        run = asked(service, "submit_intent", intent)
        assert (run.run_key, run.state) == (KEY, RunState.QUEUED)
    assert asked(service, "build_run", KEY) == run
    cancelled = asked(Service([run_example() | {"state": "FAILED", "refusal": CANCELLED}]), "cancel_build", KEY)
    assert cancelled.refusal == Refusal.model_validate(CANCELLED)
    assert [request.url.path for request in service.requests] == ["/v0/build_intents"] * 2 + [f"/v0/build_runs/{KEY}"]
    assert parse_intent(json.loads(service.requests[0].content)) == parse_intent(json.loads(service.requests[1].content))


@both_clients
def test_clients_try_again_what_may_pass_and_nothing_else(asked: Asked) -> None:
    down, refused = unavailable(Reason.STORE_DOWN, "down"), invalid(Reason.INTENT_REFUSED, "INVALID_INTENT (scope): no")
    service = Service([down, down, run_example()])
    assert asked(service, "submit_intent", intent_example()).run_key == KEY
    assert len({request.content for request in service.requests}) == 1
    for method, argument, errors, tries in [
        ("submit_intent", intent_example(), [down] * 9, 3),
        ("submit_intent", intent_example(), [refused], 1),
        ("build_run", KEY, [not_found(Reason.UNKNOWN_BUILD_RUN, "who?")], 1),
        ("cancel_build", KEY, [not_found(Reason.UNKNOWN_BUILD_RUN, "who?")], 1),
    ]:
        service = Service([*errors])
        with pytest.raises(ContractError) as caught:
            asked(service, method, argument)
        assert caught.value.wire() == errors[0].wire()
        assert len(service.requests) == tries


@both_clients
def test_clients_do_not_believe_the_run_of_another_request(asked: Asked) -> None:
    other = parse_intent({**intent_example(), "dataset_name": "another"})
    for method, argument, answer in [
        ("submit_intent", other, run_example()),
        ("build_run", "0" * 64, run_example()),
        ("build_run", "0" * 64, run_example() | {"run_key": "0" * 64}),
        ("submit_intent", intent_example(), run_example() | {"run_key": "0" * 64}),
        ("submit_intent", intent_example(), {"kind": "ofp_health"}),
    ]:
        with pytest.raises(AnswerNotTrusted):
            asked(Service([answer]), method, argument)


def test_the_snippet_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "intents.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    (tmp_path / "intent.json").write_bytes(INTENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OFP_API_TOKEN", "a-key")
    over_fake = partial(OfpClient, transport=httpx.MockTransport(Service([run_example()] * 2)))
    monkeypatch.setattr("ofp_platform.client.OfpClient", over_fake)
    exec(compile(found[1], "docs/intents.md", "exec"), {})
    assert capsys.readouterr().out == f"{KEY} QUEUED\n"


@both_clients
@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, b"bytes"])
def test_what_json_has_no_form_for_is_not_sent(asked: Asked, value: object) -> None:
    service = Service([])
    with pytest.raises(ContractError) as caught:
        asked(service, "submit_intent", {**intent_example(), "note": value})
    assert caught.value.reason is Reason.INVALID_FIELD
    assert service.requests == []
