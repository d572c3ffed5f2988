"""The producer: batches, retries under one key, back-pressure, and no event without a receipt or a reason."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import pytest

from ofp_platform.client import (
    AnswerNotTrusted,
    BatchPolicy,
    EventSender,
    Producer,
    ProducerClosed,
    RetryPolicy,
    ServiceUnreachable,
)
from ofp_platform.vocabulary.admission_receipt import RecordReceipt
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, unavailable
from ofp_platform_tests.api.keys import principal, principals_variable
from ofp_platform_tests.api.test_ingress_app import payment
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.oracle.simulated_log import PINS, write_profile

Step = Exception | ContractError | str
SHORT = RetryPolicy(attempts=4)


class Door:
    """Answers the given steps, then every batch with a receipt for each record; keeps what came."""

    def __init__(self, *steps: Step) -> None:
        self.steps = list(steps)
        self.batches: list[list[Any]] = []
        self.keys: list[str] = []
        self.hold = threading.Event()
        self.hold.set()
        self.asked = threading.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        assert self.hold.wait(30)
        assert request.headers["content-type"] == "application/x-ndjson"
        records = [json.loads(line) for line in gzip.decompress(request.content).splitlines()]
        self.keys.append(request.headers["idempotency-key"])
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, ContractError):
            return httpx.Response(503 if step.retryable else 400, content=canonical_bytes(step.wire()))
        if isinstance(step, Exception):
            raise step
        if isinstance(step, str):
            return httpx.Response(200, content=step.encode())
        self.batches.append(records)
        outcome = {"outcome": "ADMIT", "position": {"stream_name": "s", "partition_id": "0000", "offset": 1}}
        receipts = [{"place": place, "event_id": row["event_id"], **outcome} for place, row in enumerate(records)]
        head = {"kind": "admission_answer", "contract_version": "v0", "context_pins": PINS, "batch_id": 1, "repeated": False}
        return httpx.Response(200, json={**head, "receipts": receipts})

    def sender(self, pauses: list[float] | None = None) -> EventSender:
        sleep = (lambda _: None) if pauses is None else pauses.append
        transport = httpx.MockTransport(self)
        return EventSender("http://door", transport=transport, retries=SHORT, sleep=sleep, chance=lambda: 0.0)


def events(count: int) -> list[dict[str, Any]]:
    return [{"event_id": f"e-{number}"} for number in range(count)]


def ids(futures: list[Future[RecordReceipt]]) -> list[str | None]:
    return [future.result(timeout=30).event_id for future in futures]


def test_events_go_in_batches_and_each_future_has_its_own_receipt() -> None:
    door = Door()
    with Producer(door.sender(), BatchPolicy(records=4, linger_seconds=5)) as producer:
        futures = [producer.send(event) for event in events(10)]
        assert ids(futures[:8]) == [f"e-{number}" for number in range(8)]
    assert ids(futures) == [f"e-{number}" for number in range(10)]  # what waited was sent when it was closed
    assert [len(batch) for batch in door.batches] == [4, 4, 2]
    assert len(set(door.keys)) == 3


def test_flush_waits_for_what_was_given() -> None:
    door = Door()
    with Producer(door.sender(), BatchPolicy(records=100, linger_seconds=0)) as producer:
        futures = [producer.send(event) for event in events(5)]
        producer.flush()
        assert all(future.done() for future in futures)


@pytest.mark.parametrize(
    "loss", [httpx.ReadTimeout("late"), httpx.ConnectError("gone"), unavailable(Reason.RATE_EXCEEDED, "slow")]
)
def test_a_batch_is_sent_again_as_it_was_under_one_key(loss: Exception) -> None:
    door, pauses = Door(loss, loss), list[float]()
    with Producer(door.sender(pauses)) as producer:
        future = producer.send({"event_id": "e"})
        assert future.result(timeout=30).event_id == "e"
    assert (len(door.keys), len(set(door.keys)), len(door.batches)) == (3, 1, 1)
    assert len(pauses) == 2
    assert pauses[1] > pauses[0] > 0


def test_what_cannot_be_sent_is_told_by_its_futures_and_by_flush() -> None:
    door = Door(*[httpx.ConnectError("gone")] * 4, invalid(Reason.FORBIDDEN, "no scope"))
    producer = Producer(door.sender(), BatchPolicy(records=1))
    first, second, third = (producer.send(event) for event in events(3))
    with pytest.raises(ServiceUnreachable):
        first.result(timeout=30)
    with pytest.raises(ContractError, match="no scope"):
        second.result(timeout=30)
    assert third.result(timeout=30).event_id == "e-2"
    with pytest.raises(ServiceUnreachable):
        producer.flush()
    producer.flush()  # it is told once
    producer.close()
    assert len(door.keys) == 6
    with pytest.raises(ProducerClosed):
        producer.send({"event_id": "late"})


def test_an_answer_that_is_none_is_no_receipt() -> None:
    for text in ("{}", "nonsense"):
        with Door(text).sender() as sender, pytest.raises(Exception, match=r"answer|admission|contract|JSON") as caught:
            sender.send(events(1))
        assert type(caught.value).__name__ == "AnswerNotTrusted"


def test_a_full_producer_waits_and_says_when_it_waited_too_long() -> None:
    door = Door()
    door.hold.clear()
    producer = Producer(door.sender(), BatchPolicy(records=1, most_waiting=2))
    futures = [producer.send(event) for event in events(1)]
    assert door.asked.wait(30)  # it is being sent, and two more may wait
    futures += [producer.send(event) for event in events(2)]
    with pytest.raises(TimeoutError, match="2 events wait to be sent"):
        producer.send({"event_id": "more"}, timeout_seconds=0.01)
    door.hold.set()
    producer.close()
    assert all(future.result(timeout=30) for future in futures)


def test_an_event_that_is_no_json_is_refused_at_once_and_alone() -> None:
    door = Door()
    with Producer(door.sender(), BatchPolicy(records=2, linger_seconds=5)) as producer:
        first = producer.send({"event_id": "1"})
        with pytest.raises(TypeError):
            producer.send({"event_id": object()})
        second = producer.send({"event_id": "2"})
        assert ids([first, second]) == ["1", "2"]


def test_receipts_that_are_not_one_for_each_are_not_trusted() -> None:
    position = {"stream_name": "s", "partition_id": "0000", "offset": 1}
    head = {"kind": "admission_answer", "contract_version": "v0", "context_pins": PINS, "batch_id": 1, "repeated": False}
    answer = json.dumps({**head, "receipts": [{"place": 0, "outcome": "ADMIT", "position": position}]})
    with Door(answer).sender() as sender, pytest.raises(AnswerNotTrusted, match="1 receipts came for 2 records"):
        sender.send(events(2))


def test_a_producer_whose_thread_ended_tells_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door()
    door.hold.clear()
    producer = Producer(door.sender(), BatchPolicy(records=1))
    first = producer.send({"event_id": "1"})
    assert door.asked.wait(30)

    def broken(_batch: object) -> None:
        raise MemoryError

    monkeypatch.setattr(producer, "_send", broken)
    second, third = producer.send({"event_id": "2"}), producer.send({"event_id": "3"})
    door.hold.set()
    assert first.result(timeout=30).event_id == "1"
    for future in (second, third):
        with pytest.raises(MemoryError):
            future.result(timeout=30)
    with pytest.raises(ProducerClosed):
        producer.send({"event_id": "4"})


def test_policies_that_cannot_be_are_refused() -> None:
    for wrong in ({"records": 0}, {"records": 10_001}, {"most_waiting": 0}, {"linger_seconds": -1.0}):
        with pytest.raises(ValueError, match="a batch has 1 to 10,000 records"):
            BatchPolicy(**wrong)  # type: ignore[arg-type]


def test_a_real_door_admits_what_producers_send_side_by_side(dsn: str, tmp_path: Path) -> None:
    key, till = principal("till", ["events:write"])
    profile = str(write_profile(tmp_path))
    with principals_variable(till) as variables:
        environment = {"OFP_HOME": str(tmp_path), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": profile, **variables}
        command = [sys.executable, "-m", "ofp_platform.cli.main", "ingress", "serve", "--port", "0", "--workers", "2"]
        with subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert "serving at http://127.0.0.1:" in line, line
                url = line.partition("serving at ")[2].strip()
                outcomes = Counter(
                    receipt.outcome.value for receipt in _sent_by_two(url, key, [payment(f"e-{number}") for number in range(700)])
                )
                assert outcomes == {"ADMIT": 700, "DUPLICATE": 700}
                assert httpx.get(f"{url}/health", trust_env=False).json()["state"] == "GREEN"
                assert call("world", "make", "w", "--payments", "300", **environment).code == 0
                assert call("world", "seal", "w", **environment).code == 0
                streamed = call("world", "stream", "w", "--url", url, "--token", key, "--json", **environment)
                assert json.loads(streamed.out)["ADMIT"] > 300, streamed
                refused = call("world", "stream", "w", "--url", url, "--token", key, "--as-arrived", **environment)
                assert "leave one out" in refused.refused()
                balance = call("ingress", "reconcile", **environment)
                assert "balances to the unit" in balance.out, balance
                batches = json.loads(call("ingress", "receipts", "--json", **environment).out)
                assert {batch["producer"] for batch in batches} == {"till"}
            finally:
                process.terminate()
                assert process.wait(60) == 0


def _sent_by_two(url: str, key: str, envelopes: list[dict[str, Any]]) -> list[RecordReceipt]:
    futures: list[Future[RecordReceipt]] = []

    def send() -> None:
        with Producer(EventSender(url, token=key), BatchPolicy(records=50)) as producer:
            futures.extend([producer.send(envelope) for envelope in envelopes])

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [future.result(timeout=30) for future in futures]
