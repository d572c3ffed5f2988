"""get_features: one statement, one basis, one answer. As a library call (`Reader.answer`) and for servers (`answer_async`)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncpg
import psycopg
from psycopg import Connection, RawCursor
from psycopg_pool import PoolTimeout

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.evaluation import Evaluator, StoredChunk, StoredState
from ofp_platform.online.request import parse_request
from ofp_platform.online.state import KEY_TYPE_CODES
from ofp_platform.registry.question import Question, check_request
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.errors import Reason, unavailable
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GetFeaturesRequest

# One statement is one snapshot of the store: the projection's row and the state of all keys belong to one commit. A key's
# segments are its spans, the chunks of spans that an edge of a window falls into, and the newest chunks, which are under no
# span. A chunk's block is sent only where an edge falls inside it, or where every event is needed (k.whole_after).
READ_STATE = """
SELECT p.version, p.basis, p.watermark, c.ord, c.first_ts, c.last_ts, c.summaries, c.block
FROM ofp.projection AS p
LEFT JOIN LATERAL (
    SELECT k.ord, c.*
    FROM unnest($2::smallint[], $3::text[], $4::bigint[], $6::bigint[])
        WITH ORDINALITY AS k(key_type, key_id, whole_after, as_of, ord)
    CROSS JOIN LATERAL (
        WITH s AS MATERIALIZED (
            SELECT first_ts, last_ts, summaries, last_ts > k.whole_after OR EXISTS (
                SELECT 1 FROM unnest($5::bigint[]) AS e(edge) WHERE e.edge >= first_ts AND e.edge < last_ts
            ) AS opened
            FROM ofp.span
            WHERE projection_id = $1 AND key_type = k.key_type AND key_id = k.key_id COLLATE "C" AND first_ts <= k.as_of
        )
        SELECT first_ts, last_ts, summaries, NULL::bytea AS block FROM s WHERE NOT opened
        UNION ALL
        SELECT c.first_ts, c.last_ts, c.summaries, CASE WHEN c.last_ts > k.whole_after OR EXISTS (
            SELECT 1 FROM unnest($5::bigint[]) AS e(edge) WHERE e.edge >= c.first_ts AND e.edge < c.last_ts
        ) THEN c.block END
        FROM (
            SELECT s.first_ts AS low, s.last_ts AS high FROM s WHERE opened
            UNION ALL
            SELECT coalesce(max(last_ts) + 1, -9223372036854775808), 9223372036854775807 FROM s
        ) AS r
        JOIN ofp.chunk AS c
            ON c.projection_id = $1 AND c.key_type = k.key_type AND c.key_id = k.key_id COLLATE "C"
            AND c.first_ts >= r.low AND c.first_ts <= least(r.high, k.as_of)
    ) AS c
) AS c ON true
WHERE p.projection_id = $1
ORDER BY c.ord, c.first_ts
"""

Posture = Callable[[], Mapping[str, Any]]
QUIET_POSTURE: Mapping[str, Any] = {"state": "GREEN", "reasons": [], "lag_records": None}


def _arguments(projection_id: int, evaluator: Evaluator, questions: Sequence[Question]) -> tuple[Any, ...]:
    key_types: list[int] = []
    key_ids: list[str] = []
    whole_after: list[int] = []
    as_of: list[int] = []
    edges: set[int] = set()
    for question in questions:
        for key_type, key_id in question.keys:
            key_types.append(KEY_TYPE_CODES[key_type])
            key_ids.append(key_id)
            whole_after.append(evaluator.whole_after(question, key_type))
            as_of.append(question.as_of)
        edges |= evaluator.edges(question)  # a chunk across another question's edge is sent for nothing: harmless
    return projection_id, key_types, key_ids, whole_after, list(edges), as_of


def _states(rows: Sequence[Sequence[Any]], questions: Sequence[Question]) -> list[StoredState]:
    """What one statement read, question by question: all of them on one basis."""
    if not rows:
        raise unavailable(Reason.STORE_DOWN, "the projection is gone from the store")
    chunks: list[list[StoredChunk]] = [[] for question in questions for _ in question.keys]
    for _, _, _, place, first_ts, last_ts, summaries, block in rows:
        if place is not None:
            chunks[place - 1].append(StoredChunk(first_ts, last_ts, summaries, block))
    version, basis, watermark = rows[0][0], rows[0][1], rows[0][2]
    states = []
    start = 0
    for question in questions:
        stop = start + len(question.keys)
        states.append(StoredState(version, basis, watermark, chunks[start:stop]))
        start = stop
    return states


def _reached(state: StoredState, request: GetFeaturesRequest) -> bool:
    if not request.at_least_basis:
        return True
    basis = Basis.model_validate_json(state.basis)
    return all(basis.contains(position) for position in request.at_least_basis)


def _not_reached(request: GetFeaturesRequest, waited_ms: int) -> Exception:
    return unavailable(
        Reason.BASIS_NOT_REACHED,
        f"the basis did not reach at_least_basis within {waited_ms} ms",
        request.context_pins,
    )


class Reader:
    """Serves one projection, synchronously. Safe for threads; one pooled connection a call."""

    def __init__(
        self,
        pool: Pool,
        projection_id: int,
        evaluator: Evaluator,
        limits: Limits,
        posture: Posture = lambda: QUIET_POSTURE,
    ) -> None:
        self._pool = pool
        self._projection_id = projection_id
        self._evaluator = evaluator
        self._limits = limits
        self._posture = posture

    def answer(self, request: GetFeaturesRequest | bytes) -> Answer:
        """The answer to a request, or to the bytes of one.

        Raises:
            ContractError: every refusal of the contract.
        """
        if isinstance(request, bytes):
            request = parse_request(request, self._limits)
        question = check_request(request, self._evaluator.registry, self._evaluator.pins, self._limits)
        try:
            state = self._read(question)
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout):
            raise unavailable(Reason.STORE_DOWN, "the state store does not answer", request.context_pins) from None
        return self._evaluator.answer(question, state, self._posture())

    def _read(self, question: Question) -> StoredState:
        wait_ms = self._limits.at_least_basis_wait_ms
        with self._pool.connection() as connection:
            state = self._query(connection, question)
            if _reached(state, question.request):
                return state
            deadline = time.monotonic() + wait_ms / 1000
            connection.execute("LISTEN ofp_projection")
            try:
                while True:
                    # listening comes before looking: a commit in between wakes us
                    state = self._query(connection, question)
                    if _reached(state, question.request):
                        return state
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise _not_reached(question.request, wait_ms)
                    # to its end, never left half-way: the iterator holds the connection's lock
                    for _ in connection.notifies(timeout=left, stop_after=1):
                        pass
            finally:
                if not connection.closed:
                    connection.execute("UNLISTEN ofp_projection")

    def _query(self, connection: Connection[Any], question: Question) -> StoredState:
        with RawCursor(connection) as cursor:
            cursor.execute(READ_STATE, _arguments(self._projection_id, self._evaluator, [question]), binary=True)
            return _states(cursor.fetchall(), [question])[0]


class AsyncReader:
    """Serves one projection from an event loop, over asyncpg.

    Questions that arrive while enough statements are under way are read together by the next one: under load a statement's
    cost is shared, alone nobody waits.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        projection_id: int,
        evaluator: Evaluator,
        limits: Limits,
        posture: Posture = lambda: QUIET_POSTURE,
        *,
        statements: int = 2,
        questions_a_statement: int = 32,
    ) -> None:
        self._pool = pool
        self._projection_id = projection_id
        self.evaluator = evaluator
        self._limits = limits
        self._posture = posture
        self._moved = asyncio.Event()
        self._free_statements = statements
        self._most = questions_a_statement
        self._waiting: deque[tuple[Question, asyncio.Future[StoredState]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def moved(self) -> None:
        """Wake the requests that wait for a basis: the projection committed."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def answer(self, body: bytes) -> Answer:
        """The answer to the bytes of a request.

        Raises:
            ContractError: every refusal of the contract.
        """
        request = parse_request(body, self._limits)
        question = check_request(request, self.evaluator.registry, self.evaluator.pins, self._limits)
        try:
            state = await self._read(question)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            raise unavailable(Reason.STORE_DOWN, "the state store does not answer", request.context_pins) from None
        return self.evaluator.answer(question, state, self._posture())

    async def _read(self, question: Question) -> StoredState:
        moved = self._moved
        state = await self._shared(question)
        if _reached(state, question.request):
            return state
        wait_ms = self._limits.at_least_basis_wait_ms
        deadline = asyncio.get_running_loop().time() + wait_ms / 1000
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await moved.wait()
            except TimeoutError:
                raise _not_reached(question.request, wait_ms) from None
            moved = self._moved
            state = await self._shared(question)
            if _reached(state, question.request):
                return state

    async def _shared(self, question: Question) -> StoredState:
        if self._free_statements and not self._waiting:
            self._free_statements -= 1
            try:
                return (await self._query([question]))[0]
            finally:
                self._free_statements += 1
                self._next()
        turn: asyncio.Future[StoredState] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, turn))
        return await turn

    def _next(self) -> None:
        if self._waiting and self._free_statements:
            self._free_statements -= 1
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
            task = asyncio.create_task(self._answer_together(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer_together(self, batch: list[tuple[Question, asyncio.Future[StoredState]]]) -> None:
        try:
            states = await self._query([question for question, _ in batch])
        except BaseException as error:
            for _, turn in batch:
                if not turn.done():
                    turn.set_exception(error if isinstance(error, Exception) else OSError("the service is stopping"))
            if not isinstance(error, Exception):
                raise
        else:
            for (_, turn), state in zip(batch, states, strict=True):
                if not turn.done():
                    turn.set_result(state)
        finally:
            self._free_statements += 1
            self._next()

    async def _query(self, questions: list[Question]) -> list[StoredState]:
        arguments = _arguments(self._projection_id, self.evaluator, questions)
        async with self._pool.acquire() as connection:
            return _states(await connection.fetch(READ_STATE, *arguments), questions)
