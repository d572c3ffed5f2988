"""An ASGI application under RSGI, Granian's own protocol: a request crosses between its threads and Python fewer times.

Only what this service uses of ASGI is here: requests with a body, answers in one piece, and the lifespan.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from granian.rsgi import HTTPProtocol, ProtocolClosed, ProtocolError, Scope  # type: ignore[attr-defined]
from starlette.types import ASGIApp, Message

LOGGER = logging.getLogger("ofp.http")
_ASGI = {"version": "3.0", "spec_version": "2.4"}
_DISCONNECTED: Message = {"type": "http.disconnect"}


class OnRsgi:
    """Runs an ASGI application for a Granian worker."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._lifespan: _Lifespan | None = None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the application.

        Raises:
            SystemExit: it cannot start; why is in the log.
        """
        self._lifespan = _Lifespan(self._app)
        loop.run_until_complete(self._lifespan.start())

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop it."""
        if self._lifespan is not None:
            loop.run_until_complete(self._lifespan.stop())

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """One request."""
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in scope.headers.items()]
        exchange = _Exchange(protocol, whole=any(name == b"content-length" for name, _ in headers))
        await self._app(_asgi_scope(scope, headers), exchange.receive, exchange.send)


def _asgi_scope(scope: Scope, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": scope.http_version,
        "method": scope.method,
        "scheme": scope.scheme,
        "path": scope.path,
        "query_string": scope.query_string.encode("latin-1"),
        "root_path": "",
        "headers": headers,
        "client": _address(scope.client),
        "server": _address(scope.server),
    }


def _address(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdecimal() else None


class _Exchange:
    """The two ends of one request. `whole`: the body's length was declared, so that it may be taken in one piece."""

    def __init__(self, protocol: HTTPProtocol, whole: bool) -> None:
        self._protocol = protocol
        self._whole = whole
        self._pieces: Any = None
        self._read = False
        self._status = 0
        self._headers: list[tuple[str, str]] = []

    async def receive(self) -> Message:
        """The body, then that the client is gone."""
        try:
            if self._read:
                await self._protocol.client_disconnect()
                return _DISCONNECTED
            if self._whole:
                self._read = True
                return {"type": "http.request", "body": await self._protocol(), "more_body": False}
            if self._pieces is None:
                self._pieces = aiter(self._protocol)
            try:
                return {"type": "http.request", "body": await anext(self._pieces), "more_body": True}
            except StopAsyncIteration:
                self._read = True
                return {"type": "http.request", "body": b"", "more_body": False}
        except (ProtocolClosed, ProtocolError):
            self._read = True
            return _DISCONNECTED

    async def send(self, message: Message) -> None:
        """The head, then the body in one piece."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"]]
            return
        if message.get("more_body", False):
            raise NotImplementedError("no answer of this service comes in pieces")
        self._protocol.response_bytes(self._status, self._headers, message.get("body", b""))


class _Lifespan:
    """The application's start and end, told to it as ASGI does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        scope = {"type": "lifespan", "asgi": _ASGI, "state": {}}
        self._task = asyncio.create_task(self._run(scope))
        await self._told.put({"type": "lifespan.startup"})
        answer = await self._answers.get()
        if answer["type"] == "lifespan.startup.failed":
            LOGGER.error(answer.get("message", ""))
            raise SystemExit(1)

    async def stop(self) -> None:
        await self._told.put({"type": "lifespan.shutdown"})
        await self._answers.get()
        if self._task is not None:
            await self._task

    async def _run(self, scope: dict[str, Any]) -> None:
        await self._app(scope, self._told.get, self._answers.put)
        await self._answers.put({"type": "lifespan.ended"})  # at once by an application that knows of no lifespan
