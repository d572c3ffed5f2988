"""Reads a request body within bounds of size and time."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive

from ofp_platform.vocabulary.errors import ContractError, Reason, invalid


def too_large(limit: int) -> ContractError:
    """The refusal of a body above the limit."""
    return invalid(Reason.BODY_TOO_LARGE, f"the body is larger than {limit} bytes")


def _cut_short() -> ContractError:
    return invalid(Reason.BODY_INCOMPLETE, "the body ended before it was whole")


class BodyReader:
    """Reads bodies of at most `limit` bytes that arrive within `timeout_seconds`.

    One timer watches all readers: a timer each, as `asyncio.timeout` sets, costs 15 to 20 µs a request, as much as all the
    rest of the service. As every reader has the same timeout, the oldest is the first to expire.
    """

    def __init__(self, limit: int, timeout_seconds: float) -> None:
        self.limit = limit
        self.timeout_seconds = timeout_seconds
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, receive: Receive, content_length: bytes | None) -> bytes:
        """The whole body. `declared` is the content-length header, None for a chunked body.

        Raises:
            ContractError: BODY_TOO_LARGE (by its declared length before a byte is read), BODY_INCOMPLETE (late or cut short).
        """
        length = -1
        if content_length is not None:
            if not content_length.isdigit() or len(content_length) > 18:
                raise invalid(Reason.BODY_INCOMPLETE, "content-length is not a length")
            length = int(content_length)
            if length > self.limit:
                raise too_large(self.limit)
        task = asyncio.current_task()
        assert task is not None  # a coroutine that is being awaited has one
        self._watch(task)
        try:
            body = await self._receive_all(receive)
        except asyncio.CancelledError:
            if task not in self._expired:
                raise
            task.uncancel()
            raise invalid(Reason.BODY_INCOMPLETE, f"the body did not arrive within {self.timeout_seconds:g} s") from None
        finally:
            self._deadlines.pop(task, None)
            self._expired.discard(task)
        if length not in (-1, len(body)):
            raise _cut_short()
        return body

    async def _receive_all(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _cut_short()
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > self.limit:
                raise too_large(self.limit)
            if not message.get("more_body", False):
                return b"".join((*parts, part)) if parts else part
            parts.append(part)

    def _watch(self, task: asyncio.Task[Any]) -> None:
        loop = asyncio.get_running_loop()
        self._deadlines[task] = loop.time() + self.timeout_seconds
        if self._timer is None:
            self._timer = loop.call_later(self.timeout_seconds, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task, deadline in self._deadlines.items():
            if deadline > now:
                self._timer = loop.call_at(deadline, self._sweep, loop)
                return
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
        self._timer = None
