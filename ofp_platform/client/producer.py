"""`Producer`: sends events to the HTTP door in batches, with a receipt for each, and loses none without saying so."""

from __future__ import annotations

import gzip
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self

import httpx
import orjson
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from ofp_platform.client.answer import AnswerNotTrusted, ServiceUnreachable, parse, refused
from ofp_platform.client.client import ClientTls, Token, client_settings
from ofp_platform.client.retries import RetryPolicy
from ofp_platform.vocabulary.admission_receipt import AdmissionAnswer, RecordReceipt
from ofp_platform.vocabulary.errors import ContractError

_HEADERS = {"content-type": "application/x-ndjson", "content-encoding": "gzip"}
PATIENT = RetryPolicy(attempts=8, first_seconds=0.1, longest_seconds=5.0)
"""A producer has more time than a decision: some twenty seconds."""


class ProducerClosed(RuntimeError):
    """The producer was closed: it takes no more events."""


@dataclass(frozen=True)
class BatchPolicy:
    """When a batch is sent: at so many records, or so long after its first. Above `most_waiting` records `send` waits, too."""

    records: int = 1_000
    linger_seconds: float = 0.05
    most_waiting: int = 10_000

    def __post_init__(self) -> None:
        if not 1 <= self.records <= 10_000 or self.most_waiting < 1 or self.linger_seconds < 0:
            raise ValueError("a batch has 1 to 10,000 records, and at least one may wait")


class EventSender:
    """Sends one batch at a time, and again where that may end otherwise. Safe for threads. An event counts once, however often it
    is sent, so a batch of which nobody knows what became is sent again as it was, under the same idempotency key.

    `sleep` (seconds), `chance` (in [0, 1)) and `new_key` drive pauses and keys.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: Token | None = None,
        tls: ClientTls | None = None,
        timeout_seconds: float = 30.0,
        retries: RetryPolicy = PATIENT,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
        new_key: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._http = httpx.Client(**client_settings(base_url, token, timeout_seconds, tls), transport=transport)
        self._retries = retries
        self._sleep = sleep
        self._chance = chance
        self._new_key = new_key

    def send(self, envelopes: Sequence[Mapping[str, Any]]) -> AdmissionAnswer:
        """The receipts of 1 to 10,000 envelopes, in their order.

        Raises:
            ContractError: the batch is refused as a whole, after all tries where it was worth one.
            ServiceUnreachable: no answer after all tries; nothing is known of the batch.
            AnswerNotTrusted: no answer of the contract. TypeError: an envelope cannot be written as JSON; nothing was sent.
        """
        return self.send_lines([orjson.dumps(envelope) for envelope in envelopes])

    def send_lines(self, lines: Sequence[bytes]) -> AdmissionAnswer:
        """The same of envelopes that are JSON texts; raises as `send`."""
        body = gzip.compress(b"".join(line + b"\n" for line in lines), compresslevel=1)
        headers = {**_HEADERS, "idempotency-key": self._new_key()}
        for attempt in Retrying(
            stop=stop_after_attempt(self._retries.attempts),
            wait=self._pause,
            retry=retry_if_exception(_may_pass),
            sleep=self._sleep,
            reraise=True,
        ):
            with attempt:
                answer = parse(AdmissionAnswer, self._post(headers, body).content)
                break
        if len(answer.receipts) != len(lines):
            raise AnswerNotTrusted(f"{len(answer.receipts)} receipts came for {len(lines)} records")
        return answer

    def _post(self, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        try:
            response = self._http.post("/v0/events", headers=dict(headers), content=body)
        except httpx.TransportError as error:
            raise ServiceUnreachable(f"the door does not answer: {type(error).__name__}") from error
        if response.status_code != 200:
            raise refused(response)
        return response

    def _pause(self, state: RetryCallState) -> float:
        return self._retries.pause(state.attempt_number, self._chance())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _may_pass(error: BaseException) -> bool:
    """Unlike a question, a batch is worth another try after any loss: it counts once."""
    return error.retryable if isinstance(error, ContractError) else isinstance(error, ServiceUnreachable)


_Item = tuple[bytes, "Future[RecordReceipt]"]


class Producer:
    """Sends events from a thread of its own, in batches. A context manager: closing it sends what waits.

    with Producer(EventSender("http://127.0.0.1:8100", token=key)) as producer:
        receipt = producer.send(envelope)  # a future
    """

    def __init__(self, sender: EventSender, policy: BatchPolicy | None = None) -> None:
        self._sender = sender
        self._policy = policy or BatchPolicy()
        self._waiting: queue.Queue[_Item | None] = queue.Queue(self._policy.most_waiting)
        self._unanswered = 0
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="ofp-producer", daemon=True)
        self._thread.start()

    def send(self, envelope: Mapping[str, Any], timeout_seconds: float | None = None) -> Future[RecordReceipt]:
        """Give an event to be sent; the future has its receipt, or why there is none. Waits where too many wait already.

        Raises:
            ProducerClosed: see there. TimeoutError: too many waited for all of that time; the event was not taken.
            TypeError: it cannot be written as JSON.
        """
        line = orjson.dumps(envelope)
        future: Future[RecordReceipt] = Future()
        with self._changed:
            if self._is_closed:
                raise ProducerClosed("the producer is closed")
            self._unanswered += 1
        try:
            self._waiting.put((line, future), timeout=timeout_seconds)
        except queue.Full:
            self._answered(1)
            raise TimeoutError(f"{self._policy.most_waiting} events wait to be sent") from None
        if not self._thread.is_alive():  # it ended while this one was given: nobody else would tell
            self._give_up(ProducerClosed("the producer has ended"))
        return future

    def flush(self) -> None:
        """Wait until every event that was given has a receipt.

        Raises:
            the first failure of a batch since the last flush: the futures of its events say the same.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._unanswered)
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Take no more events, send what waits, and end. Raises as `flush`."""
        with self._changed:
            is_first, self._is_closed = not self._is_closed, True
        if is_first:
            self._waiting.put(None)
        self._thread.join()
        self._sender.close()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _run(self) -> None:
        is_open = True
        batch: list[_Item] = []
        try:
            while is_open:
                batch, is_open = self._next_batch()
                if batch:
                    self._send(batch)
        except BaseException as error:  # a defect, or no memory left: whoever waits is told, and whoever comes
            self._give_up(error, batch)

    def _give_up(self, error: BaseException, batch: Sequence[_Item] = ()) -> None:
        """Take no more events, and fail those in hand and those that wait."""
        with self._changed:
            self._is_closed = True
            self._failure = self._failure or error
        items: list[_Item | None] = list(batch)
        while True:
            for item in items:
                if item is not None and not item[1].done():
                    item[1].set_exception(error)
                    self._answered(1)
            try:
                items = [self._waiting.get_nowait()]
            except queue.Empty:
                return

    def _next_batch(self) -> tuple[list[_Item], bool]:
        """The next events that go together; whether others may follow."""
        first = self._waiting.get()
        if first is None:
            return [], False
        batch = [first]
        due = time.monotonic() + self._policy.linger_seconds
        while len(batch) < self._policy.records:
            try:
                following = self._waiting.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                break
            if following is None:
                return batch, False
            batch.append(following)
        return batch, True

    def _send(self, batch: Sequence[_Item]) -> None:
        try:
            answer = self._sender.send_lines([line for line, _ in batch])
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or error
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), receipt in zip(batch, answer.receipts, strict=True):
                future.set_result(receipt)
        self._answered(len(batch))

    def _answered(self, count: int) -> None:
        with self._changed:
            self._unanswered -= count
            self._changed.notify_all()
