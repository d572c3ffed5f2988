"""Questions to the plane's service from a loop of its own, on connections that stay open: of what a question cost the decider
through a client in threads, most was that client (docs/decisions/0101-the-pace-of-the-loop.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import httpx
import uvloop

from ofp_platform.client import ReceivedFeatures, ServiceUnreachable
from ofp_platform.client.answer import HASH_HEADER, features_in, refusal_in
from ofp_platform.client.question import request_body
from ofp_platform.vocabulary.serving import GetFeaturesRequest

_PATH = "/v0/get_features"
T = TypeVar("T")


class PlaneQuestions:
    """Asks one service, as whoever holds `token`. All of it runs in a loop of its own: `run` is how to get there.

    There are as many connections as questions at once; the caller bounds both them and the time of each.
    """

    def __init__(self, base_url: str, token: str | None) -> None:
        self._url = base_url.rstrip("/") + _PATH
        self._headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            **({} if token is None else {"authorization": f"Bearer {token}"}),
        }
        self._tls = httpx.create_ssl_context(trust_env=False) if self._url.startswith("https:") else True
        self._session: aiohttp.ClientSession | None = None
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
        try:
            try:
                status, stated_hash, answer = await self._exchange(body)
            except aiohttp.ServerDisconnectedError:
                # a service closes what nobody used for a while, and may do so just when it is used again
                status, stated_hash, answer = await self._exchange(body)
        except aiohttp.ClientError as error:
            name = type(error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error).__name__
            raise ServiceUnreachable(f"POST {_PATH}: {name}") from error
        if status != 200:
            raise refusal_in(status, answer)
        return features_in(answer, stated_hash)

    async def _exchange(self, body: bytes) -> tuple[int, str | None, bytes]:
        """Status, stated hash and body of the response."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        async with self._session.post(self._url, data=body, allow_redirects=False) as response:
            return response.status, response.headers.get(HASH_HEADER), await response.read()

    async def _close(self) -> None:
        if self._session is not None:
            await self._session.close()
        await asyncio.sleep(0)  # a turn, in which the transports end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        self._runner.run(self._close())
        self._runner.close()
