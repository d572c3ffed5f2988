"""The signed webhook against the receiver, and against answers and silences of every kind."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx
import orjson
import pytest

from ofp_platform.actions.ports import Done, NotDone, Refused, Report, Unknown
from ofp_platform.actions.webhook import SignedWebhook, WebhookUnusable, open_webhooks
from ofp_platform.actions.webhook_signature import parse_secret, verify
from ofp_platform.cli.demo.webhook_receiver import HOOK_PATH, STATUS_PATH, WebhookReceiver, serving
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.action import ActionIntent, ActionOrigin, OriginKind, WebhookTarget
from ofp_platform.vocabulary.loop.action_policy import ActionPolicy, Webhook

SECRET = f"whsec_{'A' * 32}"
PINS = ContextPins(scenario_id="acts", run_id="acts", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
INTENT = ActionIntent.create(
    origin=ActionOrigin(origin_kind=OriginKind.DECISION, reference="d-1"),
    action_type="notify_decision",
    target=WebhookTarget(webhook="cases"),
    context_pins=PINS,
    actor="decider",
    policy_rev=f"1.{'0' * 64}",
    at_utc="2026-02-01T00:00:00Z",
)


def now() -> int:
    return time.time_ns() // 1_000


def policy(address: str, **changed: object) -> ActionPolicy:
    webhook = {"url": address + HOOK_PATH, "status_url": f"{address}{STATUS_PATH}{{key}}", "secret_variable": "SECRET", **changed}
    entry = {"actor": "decider", "action_type": "notify_decision", "scope": "cases"}
    return ActionPolicy.model_validate({"revision": 1, "allow_list": [entry], "webhooks": {"cases": webhook}})


def test_a_message_is_signed_and_done_once() -> None:
    receiver = WebhookReceiver(parse_secret(SECRET))
    with serving(receiver) as address, open_webhooks(policy(address), {"SECRET": SECRET}, now) as webhooks:
        webhook = webhooks["cases"]
        assert webhook.can_find
        assert webhook.find(INTENT.idempotency_key) == NotDone("its status URL says not done")
        assert webhook.execute(INTENT) == webhook.execute(INTENT) == Done("HTTP 200")
        assert webhook.find(INTENT.idempotency_key) == Done("its status URL says done")
    assert receiver.messages == {
        INTENT.idempotency_key: {"type": "action.notify_decision", "timestamp": INTENT.at_utc, "data": INTENT.wire()}
    }


def test_a_receiver_that_does_not_trust_the_signature() -> None:
    receiver = WebhookReceiver(parse_secret(f"whsec_{'B' * 32}"))
    with serving(receiver) as address, open_webhooks(policy(address), {"SECRET": SECRET}, now) as webhooks:
        assert webhooks["cases"].execute(INTENT) == Refused("HTTP 401")
        assert webhooks["cases"].find(INTENT.idempotency_key) == Unknown("its status URL: HTTP 401 without a status")
    with serving(receiver) as address, open_webhooks(policy(address), {"SECRET": f"whsec_{'B' * 32}"}, lambda: 0) as webhooks:
        assert webhooks["cases"].execute(INTENT) == Refused("HTTP 401")  # signed long ago
    assert receiver.messages == {}


def test_a_receiver_answers_about_the_key_that_was_signed_alone() -> None:
    receiver = WebhookReceiver(parse_secret(SECRET))
    with serving(receiver) as address:
        other = policy(address, status_url=f"{address}{STATUS_PATH}x{{key}}", url=f"{address}/elsewhere")
        with open_webhooks(other, {"SECRET": SECRET}, now) as webhooks:
            assert webhooks["cases"].find("a") == Unknown("its status URL: HTTP 404 without a status")
            assert webhooks["cases"].execute(INTENT) == Refused("HTTP 404")
        large = httpx.post(address + HOOK_PATH, content=b"x" * 1_000_001)
        assert large.status_code == 413


def test_nobody_is_there() -> None:
    with open_webhooks(policy("http://127.0.0.1:1"), {"SECRET": SECRET}, now) as webhooks:
        assert webhooks["cases"].execute(INTENT) == NotDone("no connection: ConnectError")
        assert webhooks["cases"].find("a") == Unknown("its status URL gives no answer: ConnectError")


@contextmanager
def dripping(most: int) -> Iterator[str]:
    """The address of a server that answers a header at a time, `most` of them a while apart, and then that it is done."""
    is_over = threading.Event()

    def answer(listener: socket.socket) -> None:
        with suppress(OSError), listener.accept()[0] as connection:  # until the other side is gone
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            for number in range(most):
                is_over.wait(0.02)
                connection.sendall(b"x-%d: y\r\n" % number)
            connection.sendall(b'content-length: 18\r\n\r\n{"status": "done"}')
            while connection.recv(65_536):  # the rest of the request, until it closes
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        threads.submit(answer, listener)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        is_over.set()


def test_who_answers_byte_by_byte_holds_nobody() -> None:
    with dripping(300) as address, open_webhooks(policy(address, timeout_ms=50), {"SECRET": SECRET}, now) as webhooks:
        report = webhooks["cases"].execute(INTENT)
    assert isinstance(report, Unknown)
    assert report.reason.startswith("no answer: ")
    with dripping(300) as address, open_webhooks(policy(address, timeout_ms=50), {"SECRET": SECRET}, now) as webhooks:
        assert isinstance(webhooks["cases"].find("a"), Unknown)
    with dripping(3) as address, open_webhooks(policy(address, timeout_ms=60_000), {"SECRET": SECRET}, now) as webhooks:
        assert webhooks["cases"].execute(INTENT) == Done("HTTP 200")


@dataclass
class Answering:
    """A transport that answers as it is told."""

    answer: Callable[[httpx.Request], httpx.Response]

    def webhook(self, status_url: str | None = "http://there/{key}") -> SignedWebhook:
        webhook = Webhook(url="http://there/", secret_variable="SECRET", status_url=status_url)
        client = httpx.Client(transport=httpx.MockTransport(self.answer))
        return SignedWebhook(webhook, parse_secret(SECRET), client, lambda: 5_000_000)


@pytest.mark.parametrize(
    ("status", "report"),
    [
        (200, Done("HTTP 200")),
        (202, Done("HTTP 202")),
        (302, Refused("HTTP 302")),
        (400, Refused("HTTP 400")),
        (404, Refused("HTTP 404")),
        (408, Unknown("HTTP 408")),
        (409, Unknown("HTTP 409")),
        (425, NotDone("HTTP 425")),
        (429, NotDone("HTTP 429")),
        (500, Unknown("HTTP 500")),
        (503, Unknown("HTTP 503")),
    ],
)
def test_each_answer_says_what_it_says(status: int, report: Report) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status, headers={"location": "http://elsewhere/"})

    assert Answering(answer).webhook().execute(INTENT) == report
    (request,) = seen
    assert request.headers["idempotency-key"] == request.headers["webhook-id"] == INTENT.idempotency_key
    assert verify(parse_secret(SECRET), request.headers, request.content, 5) == INTENT.idempotency_key


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectTimeout("x"), NotDone),
        (httpx.ConnectError("x"), NotDone),
        (httpx.ReadTimeout("x"), Unknown),
        (httpx.WriteError("x"), Unknown),
        (httpx.RemoteProtocolError("x"), Unknown),
    ],
)
def test_each_silence_says_whether_something_was_sent(error: Exception, kind: type) -> None:
    def silent(_: httpx.Request) -> httpx.Response:
        raise error

    assert isinstance(Answering(silent).webhook().execute(INTENT), kind)
    assert isinstance(Answering(silent).webhook().find("a"), Unknown)


@pytest.mark.parametrize(
    ("status", "body", "report"),
    [
        (200, b'{"status": "done"}', Done("its status URL says done")),
        (200, b'{"status": "not_done"}', NotDone("its status URL says not done")),
        (200, b'{"status": "unknown"}', Unknown("its status URL does not know")),
        (200, b'{"status": "DONE"}', Unknown("its status URL: HTTP 200 without a status")),
        (200, b'["done"]', Unknown("its status URL: HTTP 200 without a status")),
        (200, b"done", Unknown("its status URL gives no answer: JSONDecodeError")),
        (404, b'{"status": "not_done"}', Unknown("its status URL: HTTP 404 without a status")),
        (
            200,
            b'{"status": "done", "more": "' + b"x" * 70_000 + b'"}',
            Unknown("its status URL gives no answer: JSONDecodeError"),
        ),
    ],
)
def test_only_a_clear_word_counts(status: int, body: bytes, report: Report) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://there/a"
        return httpx.Response(status, content=body)

    assert Answering(answer).webhook().find("a") == report


def test_a_webhook_without_a_status_url_cannot_be_asked() -> None:
    webhook = Answering(lambda _: httpx.Response(200)).webhook(status_url=None)
    assert (webhook.can_find, webhook.find("a")) == (False, Unknown("the webhook has no status URL"))


@pytest.mark.parametrize(("environment", "words"), [({}, "environment variable SECRET"), ({"SECRET": "hush"}, "whsec_")])
def test_a_secret_that_is_not_there(environment: dict[str, str], words: str) -> None:
    with pytest.raises(WebhookUnusable, match=words) as fault, open_webhooks(policy("http://127.0.0.1:1"), environment, now):
        pass
    assert "hush" not in str(fault.value)


def test_bodies_are_the_same_at_each_attempt() -> None:
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(500)

    webhook = Answering(answer).webhook()
    webhook.execute(INTENT)
    webhook.execute(INTENT)
    assert bodies[0] == bodies[1]
    assert orjson.loads(bodies[0])["data"]["idempotency_key"] == INTENT.idempotency_key
