"""Questions on connections that stay open: the service's own answers, and whatever else a service may do to a connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from ofp_platform.client import AnswerNotTrusted, AsyncOfpClient, RetryPolicy, ServiceUnreachable, verify
from ofp_platform.decisions.plane_questions import PlaneQuestions
from ofp_platform.decisions.vector_request import vector_request
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform_tests.api.keys import KEY
from ofp_platform_tests.decisions.conftest import Served, make_bundle

CLOSE = b""


@dataclass
class Scripted:
    """A server that answers the questions of each connection with what stands there for it, and then closes it; None: never."""

    by_connection: list[list[bytes | None]]
    address: str = ""
    heads: list[bytes] = field(default_factory=list)
    lost: threading.Event = field(default_factory=threading.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for answer in self.by_connection.pop(0):
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
                if answer is None:
                    await reader.read()
                    self.lost.set()
                    return
                writer.write(answer)
        except asyncio.IncompleteReadError:
            self.lost.set()
        finally:
            writer.close()

    @contextmanager
    def running(self) -> Iterator[Scripted]:
        began, loop = threading.Event(), asyncio.new_event_loop()

        async def main() -> None:
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
            self.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/under/"
            began.set()
            async with server:
                await self.ended.wait()

        self.ended = asyncio.Event()
        thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
        thread.start()
        try:
            assert began.wait(20)
            yield self
        finally:
            loop.call_soon_threadsafe(self.ended.set)
            thread.join(20)
            loop.close()


@pytest.fixture
def request_of(served: Served) -> GetFeaturesRequest:
    bundle = make_bundle("0" * 64)
    events = [event for page in served.reader().pages() for event in page.events]
    request = vector_request(bundle, bundle.groups, events[0], served.profile.context_pins)
    assert request is not None
    return request


def response(body: bytes, *, status: str = "200 OK", headers: tuple[str, ...] = (), chunked: bool = False) -> bytes:
    length = "transfer-encoding: chunked" if chunked else f"content-length: {len(body)}"
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", length, *headers]
    text = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    return "\r\n".join([*lines, "\r\n"]).encode() + text


def answer_of(served: Served, request: GetFeaturesRequest) -> tuple[bytes, str]:
    with PlaneQuestions(served.address, KEY) as questions:
        answer = questions.run(questions.ask(request))
    return answer.body, f"ofp-snapshot-hash: {answer.provenance.feature_snapshot_hash}"


def test_the_service_answers_as_it_answers_the_client(served: Served, request_of: GetFeaturesRequest) -> None:
    async def many(questions: PlaneQuestions) -> set[bytes]:
        answers = await asyncio.gather(*(questions.ask(request_of) for _ in range(20)))
        return {answer.body for answer in answers if verify(answer)}

    with PlaneQuestions(served.address, KEY) as questions:
        [body] = questions.run(many(questions))
        assert questions.run(many(questions)) == {body}  # a later step, on the same connections

    async def by_client() -> bytes:
        async with AsyncOfpClient(served.address, token=KEY, retries=RetryPolicy(attempts=1)) as client:
            return (await client.ask(request_of)).body

    assert asyncio.run(by_client()) == body


def test_a_refusal_is_one_and_needs_a_key(served: Served, request_of: GetFeaturesRequest) -> None:
    unknown = request_of.model_copy(update={"context_pins": request_of.context_pins.model_copy(update={"run_id": "another"})})
    with PlaneQuestions(served.address, KEY) as questions:
        with pytest.raises(ContractError, match="run"):
            questions.run(questions.ask(unknown))
        questions.run(questions.ask(request_of))  # the connection is as good as before
    with PlaneQuestions(served.address, None) as questions, pytest.raises(ContractError):
        questions.run(questions.ask(request_of))


def test_nobody_is_there(request_of: GetFeaturesRequest) -> None:
    with PlaneQuestions("http://127.0.0.1:1", KEY) as questions, pytest.raises(ServiceUnreachable, match="ConnectionRefused"):
        questions.run(questions.ask(request_of))


def test_a_connection_that_was_closed_meanwhile_is_replaced_and_one_that_breaks_is_told(
    served: Served, request_of: GetFeaturesRequest
) -> None:
    body, stated_hash = answer_of(served, request_of)
    good, chunked = response(body, headers=(stated_hash,)), response(body, headers=(stated_hash,), chunked=True)
    closing = response(body, headers=(stated_hash, "connection: close"))
    script = [[good, CLOSE], [chunked], [closing], [good[:-5]], [b"no HTTP at all\r\n\r\n"], [CLOSE], [CLOSE]]
    with Scripted(script).running() as server, PlaneQuestions(server.address, KEY) as questions:
        for _ in range(3):
            assert questions.run(questions.ask(request_of)).body == body
        for words in ("ClientPayloadError", "ClientResponseError", "ServerDisconnectedError"):
            with pytest.raises(ServiceUnreachable, match=words):
                questions.run(questions.ask(request_of))
    assert not server.by_connection  # the last question was asked once more
    assert server.heads[0].startswith(b"POST /under/v0/get_features HTTP/1.1\r\n")
    assert b"authorization: bearer " + KEY.lower().encode() in server.heads[0].lower()


def test_answers_that_are_none(served: Served, request_of: GetFeaturesRequest) -> None:
    body, stated_hash = answer_of(served, request_of)
    other_hash = f"ofp-snapshot-hash: {'0' * 64}"
    script = [
        [response(body), response(body, headers=(other_hash,)), response(body[:-1] + b" ", headers=(stated_hash,))],
        [response(b"{}", status="404 Not Found"), response(b"no", status="502 Bad Gateway")],
    ]
    with Scripted([[*script[0], *script[1]]]).running() as server, PlaneQuestions(server.address, KEY) as questions:
        for _ in range(4):
            with pytest.raises(AnswerNotTrusted):
                questions.run(questions.ask(request_of))
        with pytest.raises(ServiceUnreachable, match="502"):
            questions.run(questions.ask(request_of))


def test_who_waits_no_longer_leaves_no_connection_behind(served: Served, request_of: GetFeaturesRequest) -> None:
    body, stated_hash = answer_of(served, request_of)

    async def impatient(questions: PlaneQuestions, lost: threading.Event) -> None:
        asking = asyncio.create_task(questions.ask(request_of))
        while not server.heads:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(lost.wait, 20)

    script: list[list[bytes | None]] = [[None], [response(body, headers=(stated_hash,))]]
    with Scripted(script).running() as server, PlaneQuestions(server.address, KEY) as questions:
        questions.run(impatient(questions, server.lost))
        assert questions.run(questions.ask(request_of)).body == body  # nobody gets the answer to another question
