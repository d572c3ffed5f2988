"""The signed webhook: an intent as a message of Standard Webhooks, whose id is the idempotency key."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from ofp_platform.actions.ports import Done, NotDone, Refused, Report, Unknown
from ofp_platform.actions.webhook_signature import SecretFault, parse_secret, signed_headers
from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.loop.action import ActionIntent
from ofp_platform.vocabulary.loop.action_policy import KEY_PLACE, ActionPolicy, Webhook
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

DONE, NOT_DONE, UNKNOWN = "done", "not_done", "unknown"
"""What a status URL answers, as `{"status": "done"}`."""
_MOST_ANSWER_BYTES = 65_536
_MOST_TIMEOUTS = 4  # of one request: who claims an intent leaves twice as many
_CONNECTED = "connection.connect_tcp.complete"
# nothing was sent: there was no connection
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
_TRY_AGAIN = frozenset({425, 429})
_MAYBE_DONE = frozenset({408, 409})


class WebhookUnusable(Exception):
    """A webhook of the action policy cannot be used; the text says why."""


@dataclass(frozen=True)
class SignedWebhook:
    """One webhook. `now`: microseconds since the epoch. A 2xx is done; 425 and 429 are not done; 5xx, 408, 409 and a connection
    that breaks say nothing; every other answer is a refusal.
    """

    webhook: Webhook
    secret: bytes
    client: httpx.Client
    now: Callable[[], int]

    @property
    def can_find(self) -> bool:
        """Whether it has a status URL."""
        return self.webhook.status_url is not None

    def execute(self, intent: ActionIntent) -> Report:
        """Post it; see `Executor.execute`."""
        message = {"type": f"action.{intent.action_type}", "timestamp": intent.at_utc, "data": intent.wire()}
        body = jcs_bytes(message)
        headers = {"content-type": "application/json", "idempotency-key": intent.idempotency_key}
        try:
            status, _ = self._ask("POST", self.webhook.url, intent.idempotency_key, headers, body)
        except _NOT_SENT as error:
            return NotDone(f"no connection: {type(error).__name__}")
        except httpx.HTTPError as error:
            return Unknown(f"no answer: {type(error).__name__}")
        if 200 <= status < 300:
            return Done(f"HTTP {status}")
        if status in _TRY_AGAIN:
            return NotDone(f"HTTP {status}")
        return Unknown(f"HTTP {status}") if status >= 500 or status in _MAYBE_DONE else Refused(f"HTTP {status}")

    def find(self, key: str) -> Done | NotDone | Unknown:
        """Ask the status URL; see `Executor.find`. Anything but a clear answer is `Unknown`, a 404 too."""
        if self.webhook.status_url is None:
            return Unknown("the webhook has no status URL")
        try:
            status, body = self._ask("GET", self.webhook.status_url.replace(KEY_PLACE, key), key, {}, b"")
            answer = orjson.loads(body) if status == 200 else None
        except (httpx.HTTPError, orjson.JSONDecodeError) as error:
            return Unknown(f"its status URL gives no answer: {type(error).__name__}")
        status_word = answer.get("status") if isinstance(answer, dict) else None
        if status_word == DONE:
            return Done("its status URL says done")
        if status_word == NOT_DONE:
            return NotDone("its status URL says not done")
        return Unknown(
            "its status URL does not know" if status_word == UNKNOWN else f"its status URL: HTTP {status} without a status"
        )

    def _ask(self, method: str, url: str, key: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Status and body of an answer; of a body that is long, or comes slowly, its beginning. The connection is cut behind
        `_MOST_TIMEOUTS`: each read has a timeout of its own, and whoever sends byte by byte never reaches one.
        """
        signature = signed_headers(self.secret, key, self.now() // MICROS_PER_SECOND, body)
        timeout = self.webhook.timeout_ms / 1_000
        deadline = time.monotonic() + timeout
        sent_headers = {**headers, **signature, "accept-encoding": "identity"}
        with (
            _cut_behind(_MOST_TIMEOUTS * timeout) as extensions,
            self.client.stream(
                method, url, headers=sent_headers, content=body, timeout=timeout, extensions=extensions
            ) as response,
        ):
            answer = b""
            for part in response.iter_bytes():
                answer += part
                if len(answer) > _MOST_ANSWER_BYTES or time.monotonic() > deadline:
                    break
            return response.status_code, answer[:_MOST_ANSWER_BYTES]


@contextmanager
def _cut_behind(seconds: float) -> Iterator[dict[str, Any]]:
    """Extensions of a request whose connection ends behind that time, from now on, wherever it is."""
    is_over = threading.Event()
    connections: list[socket.socket] = []

    def cut() -> None:
        is_over.set()
        for connection in connections:
            with suppress(OSError):  # it ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    def trace(event_name: str, content: Mapping[str, Any]) -> None:
        if event_name == _CONNECTED:
            # another handle of the connection: TLS takes the socket over
            connections.append(content["return_value"].get_extra_info("socket").dup())
            if is_over.is_set():
                cut()

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield {"trace": trace}
    finally:
        timer.cancel()
        for connection in connections:
            connection.close()


@contextmanager
def open_webhooks(
    policy: ActionPolicy, environment: Mapping[str, str], now: Callable[[], int]
) -> Iterator[dict[str, SignedWebhook]]:
    """Inside the context the webhooks of a policy, by name. `environment`: has their secrets.

    Raises:
        WebhookUnusable: a secret is missing, or is none.
    """
    secrets = {name: _secret(name, webhook, environment) for name, webhook in policy.webhooks.items()}
    # neither proxies nor redirects: a message goes where the policy says. And a connection for each request: on one that is used
    # again, a second answer to the request before is taken for the answer to this one
    alone = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(follow_redirects=False, trust_env=False, limits=alone) as client:
        yield {name: SignedWebhook(webhook, secrets[name], client, now) for name, webhook in policy.webhooks.items()}


def _secret(name: str, webhook: Webhook, environment: Mapping[str, str]) -> bytes:
    text = environment.get(webhook.secret_variable, "")
    if not text:
        raise WebhookUnusable(f"webhook {name}: its secret is to be in the environment variable {webhook.secret_variable}")
    try:
        return parse_secret(text)
    except SecretFault as fault:
        raise WebhookUnusable(f"webhook {name}: {webhook.secret_variable}: {fault}") from None
