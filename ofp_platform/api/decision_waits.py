"""Waits for the plane's decisions on events: many requests, one connection that listens, and one look for all that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from ofp_platform.vocabulary.errors import ContractError, Reason, unavailable
from ofp_platform.vocabulary.position import Basis

Answer = TypeVar("Answer")
_MOST_WAITING = 512
_LOOK_SECONDS = 0.5
_PENDING = "the event is admitted, and not decided on yet; send it again, as it is, for the same decision"


class DecisionsStream(Protocol):
    """The stream on which decisions are told; a log is one."""

    def ends(self) -> Basis:
        """Behind the newest decision."""
        ...

    def wait(self, basis: Basis, timeout_seconds: float) -> bool:
        """Until there is one behind the basis, at most so long."""
        ...


class DecisionWaits:
    """`look` gives the decisions that there are on these events, `words_of` turns what either raises into an answer."""

    def __init__(
        self,
        stream: Callable[[], DecisionsStream],
        look: Callable[[Sequence[str]], Mapping[str, bytes]],
        words_of: Callable[[Exception], ContractError],
        seconds: float = 10.0,
    ) -> None:
        self._stream = stream
        self._look = look
        self._words_of = words_of
        self._seconds = seconds
        self._waiting: dict[str, set[asyncio.Future[bytes]]] = {}
        self._follower: asyncio.Task[None] | None = None
        # one listens, the other looks for who came while it does
        self._threads = ThreadPoolExecutor(2, "decision-waits")

    async def decision_on(self, event_id: str) -> bytes:
        """The decision on an event that is in the log, as it is stored.

        Raises:
            ContractError: DECISION_PENDING: it does not come in time; OVERLOADED; what `words_of` makes of an outage.
        """
        if sum(map(len, self._waiting.values())) >= _MOST_WAITING:
            raise unavailable(Reason.OVERLOADED, f"{_MOST_WAITING} events wait to be decided on; try again")
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        # first it waits, then it is looked for: what is decided in between is found by one of the two
        self._waiting.setdefault(event_id, set()).add(future)
        try:
            async with asyncio.timeout(self._seconds):
                self._tell(await self._in_thread(lambda: self._look([event_id])))
                if not future.done() and (self._follower is None or self._follower.done()):
                    self._follower = asyncio.create_task(self._follow())
                return await future
        except TimeoutError:
            raise unavailable(Reason.DECISION_PENDING, _PENDING) from None
        finally:
            self._forget(event_id, future)

    async def close(self) -> None:
        """Let nobody wait any longer."""
        if self._follower is not None:
            self._follower.cancel()
        self._fail(unavailable(Reason.DECISION_PENDING, _PENDING))
        await asyncio.to_thread(self._threads.shutdown)

    async def _follow(self) -> None:
        """Look, and look again behind each new decision, until nobody waits."""
        try:
            stream = await self._in_thread(self._stream)
            while self._waiting:
                ends = await self._in_thread(stream.ends)
                event_ids = list(self._waiting)
                self._tell(await self._in_thread(lambda ids=event_ids: self._look(ids)))  # type: ignore[misc]
                if self._waiting:
                    await self._in_thread(lambda basis=ends: stream.wait(basis, _LOOK_SECONDS))  # type: ignore[misc]
        except Exception as error:  # whoever waits is told: nobody else would be
            self._fail(error)

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Exception as error:
            raise self._words_of(error) from error

    def _tell(self, decisions: Mapping[str, bytes]) -> None:
        for event_id, decision in decisions.items():
            for future in self._waiting.get(event_id, ()):
                if not future.done():
                    future.set_result(decision)
            self._waiting.pop(event_id, None)

    def _fail(self, error: Exception) -> None:
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        self._waiting.clear()

    def _forget(self, event_id: str, future: asyncio.Future[bytes]) -> None:
        futures = self._waiting.get(event_id)
        if futures is None:
            return
        futures.discard(future)
        if not futures:
            del self._waiting[event_id]
