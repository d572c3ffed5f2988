"""One HTTP/1.1 connection: httptools parses, an ordinary request is answered within the event loop's turn that read it.

A request that the application takes directly costs no task, no scope and no messages: its body is collected here, and where the
answer needs no store it is written at once. Every other request is an ordinary one of ASGI. Requests of one connection are
answered in their order, one at a time; what a client may hold is bounded in bytes and in seconds.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import unquote_to_bytes

import httptools
from starlette.types import Message, Receive, Scope, Send
from uvicorn.server import ServerState

from ofp_platform.api.connection_places import ConnectionLimits, Places, peer_of
from ofp_platform.api.deadlines import Deadlines
from ofp_platform.api.refusals import Headers
from ofp_platform.api.request_body import too_late
from ofp_platform.api.tls import ClientCertificate
from ofp_platform.vocabulary.errors import ContractError

LOGGER = logging.getLogger("ofp.http")
_HEAD_BYTES = 65_536
_BODY_AHEAD_BYTES = 65_536  # of a body that the application has not asked for yet
_IN_A_ROW = 8  # answers of one connection before others have their turn
_ASGI = {"version": "3.0", "spec_version": "2.4"}
_DISCONNECTED: Message = {"type": "http.disconnect"}
_REQUEST_LINE = re.compile(rb"([A-Z]{1,32}) (/[!-~]*) HTTP/1\.[01]\r\n")
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Reply(NamedTuple):
    """Status, headers (with content-length) and body of an answer."""

    status: int
    headers: Headers
    content: bytes


class DirectApplication(Protocol):
    """An ASGI application that takes some requests without ASGI.

    `max_body_bytes` and `body_timeout_seconds` bound the body of a request that is taken directly. `vital_targets` are answered
    in the reserved lane, too.
    """

    @property
    def vital_targets(self) -> frozenset[bytes]: ...

    @property
    def max_body_bytes(self) -> int: ...

    @property
    def body_timeout_seconds(self) -> float: ...

    def takes(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        server: tuple[str, int] | None,
        certificate: ClientCertificate | None,
    ) -> Any:
        """Who asks, where a request with this head may be given to `reply`, else None; one that would be refused for its head
        need not be. `server`: the address that was connected to."""
        ...

    def reply(self, caller: Any, headers: Headers, body: bytes) -> Reply | Awaitable[Reply]:
        """The answer, at once where it needs nothing that is waited for. Raises nothing."""
        ...

    def no_place(self) -> Reply:
        """The answer where every place for a connection is taken."""
        ...

    def show_places(self, places: Places[Any]) -> None:
        """Look there from now on to tell how many places are taken."""
        ...

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]: ...


@dataclass(slots=True, eq=False)
class _Request:
    """A request as far as it has arrived. `cut`: its body ended before it was whole; `late`: it is not waited for longer."""

    method: bytes
    target: bytes
    version: str
    headers: Headers
    keep_alive: bool
    caller: Any = None
    direct: bool = False
    expects: bool = False
    whole: bool = False
    cut: bool = False
    answered: bool = False
    late: ContractError | None = None
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    waiter: asyncio.Future[None] | None = None

    def take(self) -> bytes:
        """The bytes that arrived since the last call."""
        parts = self.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self.size = 0
        return body

    def wake(self) -> None:
        """Let `_Exchange.receive` look again."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


def _address(name: tuple[Any, ...] | None) -> tuple[str, int] | None:
    return (name[0], name[1]) if name else None


class Front:
    """Everything that the connections of one worker share: the application, their places, and how long each may take."""

    def __init__(self, application: DirectApplication, limits: ConnectionLimits | None = None) -> None:
        limits = limits or ConnectionLimits()
        self.application = application
        self.places: Places[HttpConnection] = Places(limits)
        application.show_places(self.places)
        self.heads: Deadlines[HttpConnection] = Deadlines(limits.head_seconds, HttpConnection.head_is_late)
        self.bodies: Deadlines[HttpConnection] = Deadlines(application.body_timeout_seconds, HttpConnection.body_is_late)
        self.unread: Deadlines[HttpConnection] = Deadlines(limits.unread_seconds, HttpConnection.answer_is_unread)

    def connection(self, *, server_state: ServerState, **_settings: object) -> HttpConnection:
        """A connection's protocol, as uvicorn asks for it."""
        return HttpConnection(self, server_state)


class HttpConnection(asyncio.Protocol):
    """The protocol of one connection.

    `_receiving` is the request whose head is whole and whose body is not, `_active` the one that is being answered (they may be
    the same), `_queue` holds those after it. Nothing is parsed once `_deaf`.
    """

    def __init__(self, front: Front, server_state: ServerState) -> None:
        self._front = front
        self._application = front.application
        self._server_state = server_state
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._receiving: _Request | None = None
        self._active: _Request | None = None
        self._queue: deque[_Request] = deque()
        self._proceeding = False
        self._in_a_row = 0
        self._has_place = True
        self._deaf = self._ended = self._stopping = False
        self._reading_paused = self._writing_paused = False
        self._refusal = 0  # status for what is no HTTP, once everything before it is answered
        self._in_head = False
        self._head_bytes = self._fed_bytes = 0
        self._is_midway = False  # in these bytes another head came before
        self._target = b""
        self._headers: Headers = []
        self._length = b""
        self._is_plain = True
        self._expects = False

    # ---- the connection --------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        self._transport = cast(asyncio.Transport, transport)
        # not known any more once the client is gone
        self._client = _address(transport.get_extra_info("peername"))
        self._server = _address(transport.get_extra_info("sockname"))
        self._scheme = "http" if transport.get_extra_info("sslcontext") is None else "https"
        certificate = transport.get_extra_info("peercert")
        self._certificate = ClientCertificate.of(certificate) if certificate else None
        self._server_state.connections.add(self)  # type: ignore[arg-type]
        front = self._front
        self._transport.set_write_buffer_limits(high=front.places.limits.unread_bytes)
        self._has_place, in_the_way = front.places.enter(self, peer_of(self._client[0]) if self._client else "")
        front.heads.watch(self)
        if in_the_way is not None:
            in_the_way.give_way()

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell whoever waits for the body, and forget the rest."""
        self._server_state.connections.discard(self)
        self._deaf = self._ended = True
        del self._parser  # which refers to this object
        front = self._front
        front.places.leave(self)
        for deadlines in (front.heads, front.bodies, front.unread):
            deadlines.forget(self)
        self._queue.clear()
        for request in (self._active, self._receiving):
            if request is not None:
                request.cut = True
                request.wake()
        self._receiving = None

    def shutdown(self) -> None:
        """Answer what is being asked, then close."""
        self._stopping = True
        if self._active is None and not self._queue:
            self._close()

    def eof_received(self) -> bool:
        """The client sends nothing more: it still gets its answers."""
        self._stopping = self._deaf = True
        self._cut_receiving()
        return not self._ended and (self._active is not None or bool(self._queue))

    def pause_writing(self) -> None:
        """The client does not read: nothing more is answered until it does."""
        self._writing_paused = True
        self._front.unread.watch(self)

    def resume_writing(self) -> None:
        """It reads again."""
        self._writing_paused = False
        if not self._ended:
            self._front.unread.forget(self)
        self._proceed_soon()

    def head_is_late(self) -> None:
        """No whole head came in time, or nothing at all."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._close()

    def body_is_late(self) -> None:
        """A body that is collected here did not come in time: the application says so."""
        request = self._active
        if request is not None:
            request.late = too_late(self._application.body_timeout_seconds)
            self._start(request)

    def answer_is_unread(self) -> None:
        """The client took too long to read."""
        self._transport.abort()

    def give_way(self) -> None:
        """Leave the reserved lane to a newer connection: with an answer where nothing else was, or is being, written."""
        if self._ended or self._active is not None or self._transport.get_write_buffer_size():
            self._transport.abort()
            return
        self._write_no_place()
        self._close()

    def _write_no_place(self) -> None:
        status, headers, content = self._application.no_place()
        lines = [_STATUS_LINES[status]]
        for name, value in (*self._server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        self._transport.write(b"".join((*lines, b"\r\n", content)))

    def _close(self) -> None:
        self._deaf = self._ended = True
        self._front.heads.forget(self)
        self._front.unread.watch(self)  # what is written is still sent, but not for ever
        self._transport.close()

    # ---- receiving -------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse; what is whole is answered within."""
        if self._deaf:
            return
        self._in_a_row = 0
        self._fed_bytes = len(data)
        self._is_midway = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # the request was taken as an ordinary one, and its answer ends the connection
        except httptools.HttpParserInvalidMethodError:
            self._take_unknown_method(data)
        except httptools.HttpParserError:
            self._take_broken()
        if self._in_head and not self._deaf:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._refuse_soon(431)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        self._head_bytes = 0
        self._target = b""
        self._headers = []
        self._length = b""
        self._is_plain = True
        self._expects = False

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; what follows a chunked body is not looked at."""
        if not self._in_head:
            return
        name = name.lower()
        if name == b"content-length":
            self._length = value
        elif name == b"transfer-encoding":
            self._is_plain = False
        elif name == b"expect":
            self._is_plain = False
            self._expects = value.lower() == b"100-continue"
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """A head is whole: the request begins, or waits for those before it."""
        if self._deaf:
            return
        self._in_head = False
        self._is_midway = True
        parser, headers, target = self._parser, self._headers, self._target
        if self._head_bytes + self._fed_bytes > _HEAD_BYTES:
            size = len(target) + sum(len(name) + len(value) for name, value in headers)
            if size > _HEAD_BYTES:
                self._refuse_soon(431)
                return
        self._front.heads.forget(self)
        version = parser.get_http_version()
        keep_alive = version == "1.1" and parser.should_keep_alive() and not parser.should_upgrade()
        request = _Request(parser.get_method(), target, version, headers, keep_alive)
        request.expects = self._expects
        application = self._application
        if not self._has_place:
            request.keep_alive = False
            if target not in application.vital_targets:
                self._active = self._receiving = request
                self._write(request, application.no_place())
                return
        if self._is_plain and self._length.isdigit() and len(self._length) < 10:
            is_small = int(self._length) <= application.max_body_bytes
            if is_small:
                request.caller = application.takes(request.method, target, headers, self._server, self._certificate)
            request.direct = request.caller is not None
        self._receiving = request
        if self._active is None and not self._queue and not self._writing_paused and self._in_a_row < _IN_A_ROW:
            self._begin(request)
        else:
            self._queue.append(request)
            self._proceed_soon()
            self._pace()

    def on_body(self, body: bytes) -> None:
        """A part of a body; of a request that is answered already it is dropped."""
        request = self._receiving
        if request is None or request.answered or self._deaf:
            return
        request.parts.append(body)
        request.size += len(body)
        if not request.direct:
            request.wake()
            self._pace()

    def on_message_complete(self) -> None:
        """A request is whole."""
        request, self._receiving = self._receiving, None
        if request is None or self._deaf:
            return
        request.whole = True
        if request.answered or request is not self._active:
            return
        if request.direct:
            self._front.bodies.forget(self)
            self._reply(request)
        else:
            request.wake()

    def _cut_receiving(self) -> None:
        """The body that is arriving will not be whole: whoever answers the request says so."""
        request, self._receiving = self._receiving, None
        if request is None or request.answered:
            return
        request.cut = True
        request.keep_alive = False
        if request is self._active and request.direct:
            self._front.bodies.forget(self)
            self._start(request)
        else:
            request.direct = False
            request.wake()

    def _take_broken(self) -> None:
        """Bytes that cannot be parsed broke a body, or are no request."""
        if self._deaf:
            return
        if self._receiving is not None and not self._receiving.answered:
            self._deaf = True
            self._cut_receiving()
        else:
            self._refuse_soon(400)

    def _take_unknown_method(self, data: bytes) -> None:
        """The parser knows no such method; a well-formed request line goes to the application, which refuses it in words."""
        line = _REQUEST_LINE.match(data)
        if self._deaf or line is None or self._is_midway or self._active is not None or self._queue:
            self._take_broken()
            return
        self._deaf = True
        self._in_head = False
        self._front.heads.forget(self)
        request = _Request(line[1], line[2], "1.1", [], keep_alive=False)
        request.cut = True
        self._active = request
        self._start(request)

    def _pace(self) -> None:
        """Read no more while requests wait, or more of a body than is asked for."""
        receiving = self._receiving
        is_full = bool(self._queue) or (
            receiving is not None and not receiving.answered and not receiving.direct and receiving.size > _BODY_AHEAD_BYTES
        )
        if is_full != self._reading_paused and not self._transport.is_closing():
            self._reading_paused = is_full
            if is_full:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # ---- answering -------------------------------------------------------------------------------------------------------

    def _begin(self, request: _Request) -> None:
        self._active = request
        if not request.direct:
            self._start(request)
        elif request.whole:
            self._reply(request)
        else:
            self._front.bodies.watch(self)

    def _start(self, request: _Request) -> None:
        """Answer by ASGI."""
        request.direct = False
        self._run(self._answer_by_asgi(request))

    def _run(self, answering: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(answering)
        tasks = self._server_state.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _reply(self, request: _Request) -> None:
        reply = self._application.reply(request.caller, request.headers, request.take())
        if isinstance(reply, Reply):
            self._in_a_row += 1
            self._write(request, reply)
        else:
            self._run(self._reply_later(request, reply))

    async def _reply_later(self, request: _Request, reply: Awaitable[Reply]) -> None:
        self._write(request, await reply)

    async def _answer_by_asgi(self, request: _Request) -> None:
        exchange = _Exchange(self, request)
        try:
            await self._application(self._scope(request), exchange.receive, exchange.send)
        except Exception as error:
            LOGGER.error("unexpected %s of the application", type(error).__name__)
        finally:
            if not request.answered:
                self._close()

    def _scope(self, request: _Request) -> dict[str, Any]:
        raw_path, _, query = request.target.partition(b"?")
        if not raw_path.startswith(b"/"):  # a proxy's form of it: with the host
            raw_path = b"/" + raw_path.partition(b"://")[2].partition(b"/")[2]
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": request.version,
            "method": request.method.decode("ascii"),
            "scheme": self._scheme,
            "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": request.headers,
            "client": self._client,
            "server": self._server,
            "certificate": self._certificate,
        }

    def send_continue(self) -> None:
        """Tell a client that waits with its body to send it."""
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def body_is_taken(self) -> None:
        """There is room for more of the body."""
        self._pace()

    def write_reply(self, request: _Request, reply: Reply) -> None:
        """Write an answer that came by ASGI."""
        self._write(request, reply)

    def _write(self, request: _Request, reply: Reply) -> None:
        if request.answered:
            raise RuntimeError("a request is answered once")
        request.answered = True
        self._active = None
        if self._ended or self._transport.is_closing():
            return
        status, headers, content = reply
        lines = [_STATUS_LINES[status]]
        for name, value in (*self._server_state.default_headers, *headers):
            if name == b"connection":  # the application knows one option only: close
                request.keep_alive = False
            else:
                lines += (name, b": ", value, b"\r\n")
        if self._stopping and not self._queue:
            request.keep_alive = False
        lines.append(b"\r\n" if request.keep_alive else b"connection: close\r\n\r\n")
        if request.method != b"HEAD":
            lines.append(content)
        self._transport.write(b"".join(lines))
        if not request.keep_alive:
            self._end(request.whole or request.cut)
        elif self._queue or self._refusal:
            self._proceed_soon()
        else:
            self._front.heads.watch(self)
            self._pace()

    def _end(self, nothing_follows: bool) -> None:
        """Close after the last answer; while the client is still sending, what comes is dropped first.

        A socket that is closed with unread bytes resets the connection, and the client may lose the answer.
        """
        self._queue.clear()
        self._refusal = 0
        if nothing_follows or not self._transport.can_write_eof():
            self._close()
            return
        self._deaf = self._ended = True
        self._transport.write_eof()
        self._pace()
        self._front.heads.watch(self)

    def _refuse_soon(self, status: int) -> None:
        """Say that it is no request, after the answers that are owed."""
        self._deaf = True
        self._refusal = status
        self._front.heads.forget(self)
        if self._active is None and not self._queue:
            self._refuse()

    def _refuse(self) -> None:
        status, self._refusal = self._refusal, 0
        self._transport.write(_STATUS_LINES[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self._end(nothing_follows=False)

    def _proceed_soon(self) -> None:
        """Go on with what waits in a turn of its own: others have theirs meanwhile."""
        if not self._proceeding and not self._ended:
            self._proceeding = True
            self._loop.call_soon(self._proceed)

    def _proceed(self) -> None:
        self._proceeding = False
        if self._ended or self._active is not None or self._writing_paused:
            return
        if self._queue:
            request = self._queue.popleft()
            self._pace()
            self._begin(request)
        elif self._refusal:
            self._refuse()


class _Exchange:
    """The two ends of one request under ASGI. The answer comes in one piece: this service has no other."""

    def __init__(self, connection: HttpConnection, request: _Request) -> None:
        self._connection = connection
        self._request = request
        self._read = False
        self._status = 0
        self._headers: Headers = []

    async def receive(self) -> Message:
        """The body as it comes, then that the client is gone.

        Raises:
            ContractError: the body took too long.
        """
        request = self._request
        if request.expects and not request.parts and not request.whole:
            request.expects = False
            self._connection.send_continue()
        while True:
            if request.late is not None:
                raise request.late
            if request.whole and not self._read:
                self._read = True
                return {"type": "http.request", "body": request.take(), "more_body": False}
            if request.parts and not self._read:
                body = request.take()
                self._connection.body_is_taken()
                return {"type": "http.request", "body": body, "more_body": True}
            if request.cut:
                return _DISCONNECTED
            request.waiter = asyncio.get_running_loop().create_future()
            await request.waiter

    async def send(self, message: Message) -> None:
        """The head, then the body in one piece."""
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message["headers"])
            return
        if message.get("more_body", False):
            raise NotImplementedError("no answer of this service comes in pieces")
        self._connection.write_reply(self._request, Reply(self._status, self._headers, message.get("body", b"")))
