"""Questions to the plane's service from a loop of its own, on connections that stay open: of what a question cost the decider
through a general client in threads, most was that client (docs/decisions/0101-the-pace-of-the-loop.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, cast

import httptools
import httpx
import uvloop

from ofp_platform.client import ReceivedFeatures, ServiceUnreachable
from ofp_platform.client.answer import HASH_HEADER, features_in, refusal_in
from ofp_platform.client.question import request_body
from ofp_platform.vocabulary.serving import GetFeaturesRequest

_PATH = "/v0/get_features"
_HASH_HEADER = HASH_HEADER.encode()
_MOST_BYTES = 16 << 20
T = TypeVar("T")


class _Response(NamedTuple):
    status: int
    stated_hash: str | None
    body: bytes


class _Lost(Exception):
    """The connection ended before the whole answer. `was_used`: something of the answer had come."""

    def __init__(self, words: str, was_used: bool) -> None:
        super().__init__(words)
        self.was_used = was_used


class _Connection(asyncio.Protocol):
    """One connection with at most one question on its way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[_Response] | None = None
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._size = 0
        self._stated_hash: str | None = None
        self._has_begun = False

    @property
    def is_open(self) -> bool:
        """Whether another question can be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: bytes) -> _Response:
        """The response to the bytes of a request. Whoever is cancelled meanwhile leaves no connection behind.

        Raises:
            _Lost: the service ended it, or answered what is no HTTP.
        """
        if self._transport is None or self._transport.is_closing():
            raise _Lost("the connection is closed", was_used=False)
        self._begin()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._answer = None

    def close(self) -> None:
        """End it now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._has_begun = True
        self._size += len(data)
        try:
            if self._answer is None or self._size > _MOST_BYTES:
                raise httptools.HttpParserError("bytes that nobody asked for")
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lose(f"no answer of HTTP: {error}")
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lose(type(error).__name__ if error else "the service closed the connection")

    def _lose(self, words: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(_Lost(words, self._has_begun))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if name.lower() == _HASH_HEADER:
            self._stated_hash = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if not self._parser.should_keep_alive():
            self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(_Response(self._parser.get_status_code(), self._stated_hash, b"".join(self._parts)))


class PlaneQuestions:
    """Asks one service, as whoever holds `token`. All of it runs in a loop of its own: `run` is how to get there.

    There are as many connections as questions at once; the caller bounds both them and the time of each.
    """

    def __init__(self, base_url: str, token: str | None) -> None:
        url = httpx.URL(base_url)
        self._is_tls = url.scheme == "https"
        self._host, self._port = url.host, url.port or (443 if self._is_tls else 80)
        self._tls = httpx.create_ssl_context(trust_env=False) if self._is_tls else None
        lines = [
            f"POST {url.raw_path.decode().rstrip('/')}{_PATH} HTTP/1.1",
            f"host: {url.netloc.decode()}",
            "content-type: application/json",
            *([] if token is None else [f"authorization: Bearer {token}"]),
            "content-length: ",
        ]
        self._head = "\r\n".join(lines).encode("latin-1")
        self._free: list[_Connection] = []
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of work that asks."""
        return self._runner.run(work)

    async def ask(self, request: GetFeaturesRequest) -> ReceivedFeatures:
        """The answer to a request made with `make_request`; cancelled, it leaves nothing behind.

        Raises:
            ContractError: a refusal. ServiceUnreachable: no answer. AnswerNotTrusted: one that is none.
        """
        body = request_body(request)
        response = await self._send(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        if response.status != 200:
            raise refusal_in(response.status, response.body)
        return features_in(response.body, response.stated_hash)

    async def _send(self, request: bytes) -> _Response:
        while True:
            connection = self._free.pop() if self._free else None
            is_new = connection is None
            try:
                connection = connection or await self._open()
                response = await connection.exchange(request)
            except OSError as error:
                raise ServiceUnreachable(f"POST {_PATH}: {type(error).__name__}") from error
            except _Lost as error:
                # a service closes what nobody used for a while, and may do so just when it is used again
                if is_new or error.was_used:
                    raise ServiceUnreachable(f"POST {_PATH}: {error}") from error
                continue
            if connection.is_open:
                self._free.append(connection)
            return response

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        return connection

    async def _close(self) -> None:
        while self._free:
            self._free.pop().close()
        await asyncio.sleep(0)  # a turn, in which the transports end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        self._runner.run(self._close())
        self._runner.close()
