"""Builds asked for over HTTP: intents go into the run ledger, runs are read from it. Nothing is built here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import orjson
import psycopg

from ofp_platform.api.service import MayRead
from ofp_platform.offline.requests.intent_file import Intent, read_intent
from ofp_platform.offline.runs.run_ledger import RunLedger, RunOfOldForm, UnknownRun
from ofp_platform.storage.postgres import DatabaseUnavailable, Pool, open_pool
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.build_run import BuildRun
from ofp_platform.vocabulary.profile import BuildLimits

# all of it happens in threads, which the online plane needs too: builds are few, and must not take them all
_MOST_AT_ONCE = 4
# shorter than what a client waits by default: it is told of an outage, and tries again
_CONNECT_SECONDS = 1.0


def _down() -> ContractError:
    return unavailable(Reason.STORE_DOWN, "the run ledger does not answer; the same request may be sent again, and is one run")


def _as_contract_error(refusal: BuildRefused) -> ContractError:
    return invalid(Reason.INTENT_REFUSED, str(refusal))


def _unknown_run() -> ContractError:
    return not_found(Reason.UNKNOWN_BUILD_RUN, "no run has this key; the answer to a submitted intent names its run")


def _intent(body: bytes) -> Intent:
    try:
        is_object = isinstance(orjson.loads(body), dict)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise invalid(Reason.MALFORMED_JSON, f"the body is not JSON: {where}") from None
    if not is_object:
        raise _as_contract_error(BuildRefused(BuildReason.INVALID_INTENT, "an intent is an object: fields and their values"))
    try:
        return read_intent(body.decode())
    except BuildRefused as refusal:
        raise _as_contract_error(refusal) from None


class BuildRequests:
    """A BuildPort over the run ledger of one database, which is connected to at the first request.

    A few requests are answered at a time, the others wait. `answer_seconds` bounds a request's wait: for its place, and for a
    database that took it and does not answer. `most_waiting` and `most_waiting_bytes` bound what waits: more than a ledger
    answers in that time, and more than a client sends that is in order. `limits`: those of an intent.
    """

    def __init__(
        self,
        dsn: str,
        *,
        limits: BuildLimits | None = None,
        answer_seconds: float = 5.0,
        most_waiting: int = 512,
        most_waiting_bytes: int = 64 << 20,
    ) -> None:
        self._dsn = dsn
        self._limits = limits
        self._answer_seconds = answer_seconds
        self._most_waiting = most_waiting
        self._most_waiting_bytes = most_waiting_bytes
        self._pool: Pool | None = None
        self._opening = threading.Lock()
        self._under_way: set[asyncio.Task[bytes]] = set()
        self._places = asyncio.Semaphore(_MOST_AT_ONCE)
        self._waiting = 0
        self._waiting_bytes = 0

    async def submit(self, body: bytes, submitted_by: str, may_read: MayRead) -> bytes:
        """See BuildPort."""
        return await self._off_the_loop(lambda: self._submit(body, submitted_by, may_read), len(body))

    async def cancel(self, run_key: str, actor: str, may_read: MayRead, submitter: str | None) -> bytes:
        """See BuildPort."""
        return await self._off_the_loop(lambda: self._cancel(run_key, actor, may_read, submitter), len(run_key))

    async def run(self, run_key: str, may_read: MayRead) -> bytes:
        """See BuildPort."""
        return await self._off_the_loop(lambda: self._show(run_key, may_read), len(run_key))

    async def close(self) -> None:
        """Wait for what is under way, and disconnect."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._answer_seconds)
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)
            self._pool = None

    async def _off_the_loop(self, work: Callable[[], bytes], size: int) -> bytes:
        if self._waiting >= self._most_waiting or (self._waiting and self._waiting_bytes + size > self._most_waiting_bytes):
            raise unavailable(Reason.OVERLOADED, f"{self._waiting} requests about builds wait to be answered; try again")
        try:
            async with asyncio.timeout(self._answer_seconds):
                await self._place(size)
                task = asyncio.create_task(asyncio.to_thread(work))
                self._under_way.add(task)
                task.add_done_callback(self._on_task_end)
                return await asyncio.shield(task)
        except (TimeoutError, DatabaseUnavailable, psycopg.Error) as error:
            if not is_transient(error):
                raise
            raise _down() from None

    async def _place(self, size: int) -> None:
        self._waiting += 1
        self._waiting_bytes += size
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
            self._waiting_bytes -= size

    def _on_task_end(self, task: asyncio.Task[bytes]) -> None:
        # a thread cannot be stopped: it keeps its place until it ends, whoever still waits for it
        self._under_way.discard(task)
        self._places.release()
        if not task.cancelled():
            task.exception()  # nobody may be left to ask for it

    def _submit(self, body: bytes, submitted_by: str, may_read: MayRead) -> bytes:
        intent = _intent(body).model_copy(update={"submitted_by": submitted_by})
        if not may_read(intent.context_pins):
            run_id = intent.context_pins.run_id
            raise not_found(Reason.UNKNOWN_RUN, f"run {run_id} with these pins is not known here", intent.context_pins)
        try:
            return _wire(self._ledger().submit(intent))
        except BuildRefused as refusal:
            raise _as_contract_error(refusal) from None

    def _cancel(self, run_key: str, actor: str, may_read: MayRead, submitter: str | None) -> bytes:
        run = self._readable_run(run_key, may_read)
        if submitter is not None and run.intent.submitted_by != submitter:
            raise invalid(Reason.FORBIDDEN, "another principal submitted this run: only one with the scope operate cancels it")
        return _wire(self._ledger().cancel(run_key, actor))

    def _show(self, run_key: str, may_read: MayRead) -> bytes:
        return _wire(self._readable_run(run_key, may_read))

    def _readable_run(self, run_key: str, may_read: MayRead) -> BuildRun:
        try:
            run = self._ledger().show(run_key)
        except (UnknownRun, RunOfOldForm):  # whose run one of an old form is, cannot be read
            raise _unknown_run() from None
        if not may_read(run.intent.context_pins):
            raise _unknown_run()
        return run

    def _ledger(self) -> RunLedger:
        if not self._opening.acquire(timeout=_CONNECT_SECONDS):
            raise _down()
        try:
            if self._pool is None:
                self._pool = open_pool(self._dsn, max_size=_MOST_AT_ONCE, timeout_seconds=_CONNECT_SECONDS)
            return RunLedger(self._pool, self._limits)
        finally:
            self._opening.release()


def _wire(run: BuildRun) -> bytes:
    return run.model_dump_json(exclude_none=True).encode()
