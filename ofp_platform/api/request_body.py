"""Reads a request body within bounds of size and time."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive

from ofp_platform.api.deadlines import Deadlines
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid


def too_large(limit: int) -> ContractError:
    """The refusal of a body above the limit."""
    return invalid(Reason.BODY_TOO_LARGE, f"the body is larger than {limit} bytes")


def _cut_short() -> ContractError:
    return invalid(Reason.BODY_INCOMPLETE, "the body ended before it was whole")


def too_late(seconds: float) -> ContractError:
    """The refusal of a body that did not arrive in time."""
    return invalid(Reason.BODY_INCOMPLETE, f"the body did not arrive within {seconds:g} s")


class BodyReader:
    """Reads bodies of at most `limit` bytes that arrive within `timeout_seconds`."""

    def __init__(self, limit: int, timeout_seconds: float) -> None:
        self.limit = limit
        self.timeout_seconds = timeout_seconds
        self._deadlines: Deadlines[asyncio.Task[Any]] = Deadlines(timeout_seconds, self._expire)
        self._expired: set[asyncio.Task[Any]] = set()

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
        self._deadlines.watch(task)
        try:
            body = await self._receive_all(receive)
        except asyncio.CancelledError:
            if task not in self._expired:
                raise
            task.uncancel()
            raise too_late(self.timeout_seconds) from None
        finally:
            self._deadlines.forget(task)
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

    def _expire(self, task: asyncio.Task[Any]) -> None:
        self._expired.add(task)
        task.cancel()
