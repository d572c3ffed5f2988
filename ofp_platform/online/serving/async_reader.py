"""get_features from an event loop: from the cache where it holds every key, else by one statement; always on one basis.

A request is answered without leaving the event loop when the cache holds its keys at its head. The head only moves forward, and
nothing is served from it that is older than what was served before (`_floor`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import asyncpg

from ofp_platform.identity.graph_state import READ_LINKS, link_arguments, read_links
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.kernel.windows import EventsMissing
from ofp_platform.online.serving.causal_read import (
    Incarnations,
    Partitions,
    has_reached,
    not_reached,
    reaches,
    refuse_foreign,
    refuse_lost,
)
from ofp_platform.online.serving.evaluation import Evaluator, KeyState, StoredChunk, StoredState, refine
from ofp_platform.online.serving.key_cache import Head, KeyCache
from ofp_platform.online.serving.plain_question import QuestionReader
from ofp_platform.online.serving.reader import UNOBSERVED, PostureReader
from ofp_platform.online.serving.resolved_question import NO_GRAPH, Graph, ResolvedQuestion
from ofp_platform.online.serving.state_statement import (
    NOTHING_HELD,
    READ_SHARDS,
    READ_STATE,
    SPLIT_LOOK_SECONDS,
    SPLIT_SECONDS,
    SplitEpoch,
    read_all,
    read_arguments,
    statement_after,
)
from ofp_platform.online.serving.value_memory import LEAST_CHUNKS, KeyValues, ValuesOfKeys
from ofp_platform.online.state.touched_keys import READ_SINCE, TouchedKeys
from ofp_platform.registry.question import Question
from ofp_platform.storage.notices import LOOK_SECONDS
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.errors import Reason, unavailable
from ofp_platform.vocabulary.profile import Limits

_RELEASE_SECONDS = 1.0  # for a connection whose statement was given up: then it is closed
_LARGE_AT_ONCE = 2
_PACKED_TO_DECODED = 4  # about how many times larger events are when they are decoded
_NEWEST = 2**62  # no commit is after it: only the head is asked for
Read = TypeVar("Read")
logger = logging.getLogger(__name__)
# (the one of no host that `target_session_attrs` accepts, as in a failover, is of a class of its own)
STORE_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.TargetServerAttributeNotMatched,
    OSError,
    TimeoutError,
)


@dataclass(frozen=True)
class ReadSettings:
    """Bounds of the reading: at most so many `statements` under way, each with so many questions; `cache_bytes` of decoded state
    (0: no cache); decoded events of more than `large_bytes` are evaluated in a thread.

    A store that is there and silent is given up after `store_seconds`; who waits for a basis looks every `look_seconds`; an epoch
    that only some key shards have applied is waited for `split_seconds`.
    """

    statements: int = 2
    questions_a_statement: int = 32
    cache_bytes: int = 0
    large_bytes: int = 1 << 20
    store_seconds: float = 3.0
    look_seconds: float = LOOK_SECONDS
    split_seconds: float = SPLIT_SECONDS


_SETTINGS = ReadSettings()


class AsyncReader:
    """Serves one projection from an event loop, over asyncpg.

    Questions that arrive while enough statements are under way are read together by the next one: under load a statement's
    cost is shared, alone nobody waits. With a cache, whoever listens to the projection's commits says so: `listening` once the
    subscription stands, `moved` at each notice, `deaf` as soon as the subscription does not stand. A notice comes after its
    commit and may be lost with the process that would send it: who waits for a basis looks without one too, and `follow` is to be
    called every now and then.

    What takes longer than others should wait for is decoded and evaluated in a thread (a whole window walks over every event in
    it, but for chunks and spans whose values are held: see `value_memory`).
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        projection_id: int,
        evaluator: Evaluator,
        limits: Limits,
        posture: PostureReader = lambda: UNOBSERVED,
        partitions: Partitions | None = None,
        incarnations: Incarnations | None = None,
        *,
        graph: Graph = NO_GRAPH,
        settings: ReadSettings = _SETTINGS,
    ) -> None:
        self._graph = graph
        self._pool = pool
        self._projection_id = projection_id
        self.evaluator = evaluator
        self._limits = limits
        self._posture = posture
        self._partitions = partitions
        self._incarnations = incarnations
        self._store_seconds = settings.store_seconds
        self._look_seconds = settings.look_seconds
        self._split_seconds = settings.split_seconds
        self._statement = READ_STATE
        self._questions = QuestionReader(evaluator.registry, evaluator.pins, limits)
        self._next_commit = asyncio.Event()
        self._free_statements = settings.statements
        self._most = settings.questions_a_statement
        self._waiting: deque[tuple[Question, asyncio.Future[StoredState | SplitEpoch]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._caching = settings.cache_bytes > 0
        self._large_bytes = settings.large_bytes
        self._threads = ThreadPoolExecutor(_LARGE_AT_ONCE, "large answers")
        self.cache: KeyCache[KeyState] = KeyCache(settings.cache_bytes)
        self._values = ValuesOfKeys(settings.cache_bytes // 2)
        self._hears = False
        self._following: asyncio.Task[None] | None = None
        self._behind = False
        self._floor = -1  # the newest version that was answered from

    # ---- following the commits -------------------------------------------------------------------------------------------

    def moved(self) -> None:
        """The projection committed: wake the requests that wait for a basis, and move the cache on."""
        self._next_commit.set()
        self._next_commit = asyncio.Event()
        self.follow()

    def listening(self) -> None:
        """From now on every commit is told by `moved`: the cache may be filled."""
        self._hears = True
        self.follow()

    def deaf(self) -> None:
        """A notice may have been missed: nothing is served from the cache until `listening`."""
        self._hears = False
        self.cache.lose()

    def follow(self) -> None:
        """Bring the cache to the store's head, now; harmless when it is there."""
        if not self._caching or not self._hears:
            return
        self._behind = True
        if self._following is None:
            self._following = asyncio.create_task(self._follow())

    async def followed(self) -> None:
        """Return when the cache has followed everything that was told so far."""
        while self._following is not None:
            await asyncio.wait([self._following])

    async def _follow(self) -> None:
        try:
            while self._behind and self._hears:
                self._behind = False
                await self._advance()
        except Exception as error:
            # what it holds is followed no more: requests go to the store until the next attempt, which comes within a second
            self.cache.lose()
            if not is_transient(error):
                logger.exception("the cache could not be brought to the store's head")
        finally:
            self._following = None

    async def _advance(self) -> None:
        cache, floor = self.cache, self._floor
        epoch, at = cache.epoch, cache.head
        rows = await self._fetch(READ_SINCE, self._projection_id, _NEWEST if at is None else at.version)
        if cache.epoch != epoch or not self._hears:
            self._behind = True  # it was emptied meanwhile: what this statement saw may be from before
            return
        if not rows:
            cache.lose()
            return
        head = Head(rows[0][0], rows[0][1], rows[0][2])
        if head.version < floor:
            self._floor = head.version  # read after that answer, and older: the store was put back
        if at is None:
            cache.start(head)
        else:
            cache.advance(head, [(row[3], TouchedKeys(row[4], row[5])) for row in rows if row[3] is not None])

    # ---- answering -------------------------------------------------------------------------------------------------------

    def answer(self, body: bytes) -> Answer | Awaitable[Answer]:
        """The answer to the bytes of a request: at once where the cache holds its keys, else awaited from the store.

        Raises:
            ContractError: every refusal of the contract; the awaitable raises it too.
        """
        question = self._questions.read(body)
        if self.evaluator.registry.resolves and (keys := question.keys_to_resolve):
            return self._answer_resolved(question, keys)
        head = self.cache.head
        if head is None or head.version < self._floor or not _has_reached(head, question):
            return self._answer_from_store(question)
        cached_keys = [(key, self.cache.get(key)) for key in question.keys]
        cached_states = [state for _, state in cached_keys if state is not None]
        if len(cached_states) < len(cached_keys):
            return self._answer_from_both(question, head, cached_keys) if cached_states else self._answer_from_store(question)
        if self._is_large(cached_states):
            return self._answer_apart(question, head, cached_states)
        try:
            return self.evaluator.answer_from(question, head.basis, head.watermark, cached_states, self._posture())
        except EventsMissing:  # a large key was read for other instants: only some of its events are held
            return self._answer_from_store(question)

    async def _answer_resolved(self, question: Question, keys: list[tuple[str, str]]) -> Answer:
        """From the store always: the links first, then the state of all members, both as they stand now."""
        pins = question.request.context_pins
        arguments = link_arguments(self._graph.demand(pins), pins, keys)
        links = read_links(await self._await_store(self._fetch(READ_LINKS, *arguments), question))
        resolved = ResolvedQuestion.of(question, self._graph, links, pins)
        reading = resolved.reading
        state = await self._await_store(self._read(reading, is_whole=bool(reading.whole_keys)), question)
        packed_bytes = sum(len(chunk.block or b"") for chunks in state.chunks for chunk in chunks)
        answer_arguments = self.evaluator, state, self._posture()
        if packed_bytes * _PACKED_TO_DECODED > self._large_bytes:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, resolved.answer, *answer_arguments)
        else:
            answer = resolved.answer(*answer_arguments)
        self._floor = max(self._floor, state.version)
        return answer

    def _is_large(self, keys: Sequence[KeyState]) -> bool:
        return sum([key.decoded_bytes for key in keys]) > self._large_bytes

    async def _answer_apart(self, question: Question, head: Head, keys: Sequence[KeyState]) -> Answer:
        try:
            return await self._evaluate(question, head.basis, head.watermark, keys)
        except EventsMissing:
            return await self._answer_from_store(question)

    async def _evaluate(self, question: Question, basis: str, watermark: int | None, keys: Sequence[KeyState]) -> Answer:
        arguments = question, basis, watermark, keys, self._posture()
        if not self._is_large(keys):
            return self.evaluator.answer_from(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.evaluator.answer_from, *arguments)

    async def _answer_from_both(
        self, question: Question, head: Head, cached_keys: Sequence[tuple[tuple[str, str], KeyState | None]]
    ) -> Answer:
        missing = tuple([key for key, state in cached_keys if state is None])
        epoch = self.cache.epoch
        some = await self._await_store(self._shared_read(replace(question, keys=missing)), question)
        if some.version == head.version:
            read = iter(await self._keep(missing, some, epoch))
            states = [state or next(read) for _, state in cached_keys]
            with contextlib.suppress(EventsMissing):
                return await self._make_answer(question, some, states)
        return await self._answer_from_store(question)

    async def _answer_from_store(self, question: Question) -> Answer:
        epoch = self.cache.epoch
        state = await self._await_store(self._read(question), question)
        try:
            return await self._make_answer(question, state, await self._keep(question.keys, state, epoch))
        except EventsMissing:  # a row of whose values it was thought that they are held is another by now
            pass
        epoch = self.cache.epoch
        state = await self._await_store(self._read(question), question)
        with contextlib.suppress(EventsMissing):
            return await self._make_answer(question, state, await self._keep(question.keys, state, epoch, is_refined=False))
        state = await self._await_store(self._read(question, is_whole=True), question)
        chunks_of_keys = [[chunk for chunk in chunks if not chunk.is_mark] for chunks in state.chunks]
        arguments = question.keys, chunks_of_keys, state.chunks, [None] * len(question.keys)
        states = await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, *arguments)
        return await self._make_answer(question, state, states)

    async def _make_answer(self, question: Question, state: StoredState, keys: Sequence[KeyState]) -> Answer:
        answer = await self._evaluate(question, state.basis, state.watermark, keys)
        self._floor = max(self._floor, state.version)
        return answer

    async def _await_store(self, reading: Awaitable[Read], question: Question) -> Read:
        try:
            return await reading
        except STORE_ERRORS as error:
            if not is_transient(error):
                raise
            pins = question.request.context_pins
            raise unavailable(Reason.STORE_DOWN, "the state store does not answer", pins) from None

    async def _keep(
        self, keys: Sequence[tuple[str, str]], read: StoredState, epoch: int, *, is_refined: bool = True
    ) -> list[KeyState]:
        """Decode what was read, and hold it where the cache stands at the same version.

        `epoch`: that of the cache before the reading; `is_refined`: together with what the cache holds.
        """
        cache = self.cache
        same = is_refined and cache.head is not None and cache.head.version == read.version
        chunks_of_keys: list[Sequence[StoredChunk]] = []
        memories: list[KeyValues | None] = []
        packed_bytes = 0
        for key, reading in zip(keys, read.chunks, strict=True):
            chunks: Sequence[StoredChunk] = [chunk for chunk in reading if not chunk.is_mark]
            blocks = [len(chunk.block) for chunk in chunks if chunk.block is not None]
            memories.append(self._memory(key, len(blocks)) if self._hears and epoch == cache.epoch else None)
            cached_state = cache.get(key) if same else None
            if cached_state is not None and cached_state.chunks:
                chunks = refine(cached_state.chunks, chunks)
            chunks_of_keys.append(chunks)
            packed_bytes += sum(blocks)
        arguments = keys, chunks_of_keys, read.chunks, memories
        if packed_bytes * _PACKED_TO_DECODED > self._large_bytes:
            states = await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, *arguments)
        else:
            states = self._decode(*arguments)
        for key, state in zip(keys, states, strict=True):
            cache.put(read.version, key, state)  # which looks at the version itself: it may stand elsewhere by now
        self._values.fit()
        return states

    def _memory(self, key: tuple[str, str], blocks: int) -> KeyValues | None:
        """The memory of the key's values, begun where it would save a reading as many blocks."""
        if not self._caching:
            return None
        self._values.at(self.cache.epoch)
        memory = self._values.get(key)
        if memory is None and blocks >= LEAST_CHUNKS:
            subjects = self.evaluator.subjects(key[0])
            memory = self._values.begin(key, subjects) if subjects else None
        return memory

    def _decode(
        self,
        keys: Sequence[tuple[str, str]],
        chunks_of_keys: Sequence[Sequence[StoredChunk]],
        readings: Sequence[Sequence[StoredChunk]],
        memories: Sequence[KeyValues | None],
    ) -> list[KeyState]:
        states = []
        for key, chunks, reading, memory in zip(keys, chunks_of_keys, readings, memories, strict=True):
            # another thread learns the same key: this one does without
            if memory is None or not memory.learning.acquire(blocking=False):
                states.append(self.evaluator.key_state(key[0], chunks))
                continue
            try:
                states.append(self.evaluator.key_state(key[0], chunks, memory))
                memory.learn(reading)
            finally:
                memory.learning.release()
        return states

    async def _read(self, question: Question, *, is_whole: bool = False) -> StoredState:
        next_commit = self._next_commit
        state = await self._shared_read(question, is_whole=is_whole)
        if await self._has_reached(state, question):
            return state
        await asyncio.to_thread(refuse_foreign, state.basis, question.request, self._partitions, self._incarnations)
        wait_ms = self._limits.at_least_basis_wait_ms
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait_ms / 1000
        while True:
            try:
                async with asyncio.timeout(min(self._look_seconds, deadline - clock())):
                    await next_commit.wait()
            except TimeoutError:  # a notice may be lost, so it looks without one too
                if clock() >= deadline:
                    await asyncio.to_thread(refuse_lost, question.request, self._incarnations)
                    raise not_reached(question.request, wait_ms) from None
            next_commit = self._next_commit
            state = await self._shared_read(question, is_whole=is_whole)
            if await self._has_reached(state, question):
                return state

    async def _has_reached(self, state: StoredState, question: Question) -> bool:
        if has_reached(state.basis, question.request):
            return True
        if self._incarnations is None or not reaches(state.basis, question.request):
            return False
        # the place is reached, in another incarnation than the position names: whether they share it, the log knows
        return await asyncio.to_thread(has_reached, state.basis, question.request, self._incarnations)

    async def _shared_read(self, question: Question, *, is_whole: bool = False) -> StoredState:
        state = await self._read_once(question, is_whole=is_whole)
        if isinstance(state, StoredState):
            return state
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._split_seconds
        while isinstance(state, SplitEpoch):
            if clock() >= deadline:
                raise state.refusal(self._split_seconds, question.request.context_pins)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SPLIT_LOOK_SECONDS):
                    await self._next_commit.wait()
            state = await self._read_once(question, is_whole=is_whole)
        return state

    async def _read_once(self, question: Question, *, is_whole: bool = False) -> StoredState | SplitEpoch:
        if is_whole:
            return (await self._query([question], NOTHING_HELD))[0]
        if self._free_statements and not self._waiting:
            self._free_statements -= 1
            try:
                return (await self._query([question]))[0]
            finally:
                self._free_statements += 1
                self._next()
        turn: asyncio.Future[StoredState | SplitEpoch] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, turn))
        return await turn

    def _next(self) -> None:
        if self._waiting and self._free_statements:
            self._free_statements -= 1
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]
            task = asyncio.create_task(self._answer_together(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer_together(self, batch: list[tuple[Question, asyncio.Future[StoredState | SplitEpoch]]]) -> None:
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

    def _held_rows(self, questions: Sequence[Question]) -> Sequence[Sequence[int]]:
        """The first times of chunks and spans whose values are held, for `read_arguments`."""
        if not self._caching or not self._hears:
            return NOTHING_HELD
        self._values.at(self.cache.epoch)
        held_rows: list[list[int]] = [[] for _ in NOTHING_HELD]
        for question in questions:
            for key in question.keys:
                memory = self._values.get(key)
                if memory is not None and not self.evaluator.needs_events(question, key[0]):
                    for times, more in zip(held_rows, memory.held_rows(list(self.evaluator.edges(question))), strict=True):
                        times.extend(more)
        return held_rows

    async def _query(
        self, questions: list[Question], held_rows: Sequence[Sequence[int]] | None = None
    ) -> list[StoredState | SplitEpoch]:
        held_rows = self._held_rows(questions) if held_rows is None else held_rows
        arguments = read_arguments(
            self._projection_id, self.evaluator, questions, newer=self._caching, held_rows=held_rows, marks=self._caching
        )
        statement = self._statement
        try:
            rows = await self._fetch(statement, *arguments)
            if not rows and statement is READ_STATE:
                statement = READ_SHARDS
                rows = await self._fetch(statement, *arguments)
        except TimeoutError:
            while self._waiting:  # their turn would only come to the same
                _, turn = self._waiting.popleft()
                if not turn.done():
                    turn.set_exception(TimeoutError("the state store is silent"))
            raise
        self._statement = statement_after(statement, rows)
        return read_all(statement, rows, questions)

    async def _fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """The rows; a store that is silent is a TimeoutError, in time."""
        async with asyncio.timeout(self._store_seconds):
            connection = await self._pool.acquire()
            try:
                rows: list[Any] = await connection.fetch(statement, *arguments)
                return rows
            finally:
                await self._pool.release(connection, timeout=_RELEASE_SECONDS)


def _has_reached(head: Head, question: Question) -> bool:
    positions = question.request.at_least_basis
    return not positions or all(head.parsed_basis.contains(position) for position in positions)
