"""Reading: on which basis, how long it waits for one, and what it says while the store is down."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import conninfo, sql
from psycopg_pool import ConnectionPool

from ofp_platform.log.port import LogUnavailable
from ofp_platform.online.serving.async_reader import AsyncReader, ReadSettings
from ofp_platform.online.serving.causal_read import Partitions
from ofp_platform.online.serving.reader import Reader
from ofp_platform.registry.question import Question
from ofp_platform.storage.postgres import Pool, asyncpg_arguments, open_pool
from ofp_platform.vocabulary.errors import ContractError, ErrorCode, Reason
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.profile import Limits
from ofp_platform_tests.online.answered import answered
from ofp_platform_tests.oracle.failover import end_sessions
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND, START

LONG = 60_000
"""Milliseconds: a wait that the test ends itself, and that would fail it if it did not."""
KEYS = [("account", "a-1"), ("merchant", "m-1")]
GROUPS = [("ratios", "v2"), ("shop", "v1")]
AS_OF = START + 3 * SECOND


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, timeout_seconds=5.0) as opened:
        yield opened


def small_plane(pool: Pool, wait_ms: int = 50) -> SmallPlane:
    plane = SmallPlane(pool, "serving", partitions=1, limits=Limits(at_least_basis_wait_ms=wait_ms))
    plane.append([payment(f"e-{number}", number * SECOND) for number in range(3)])
    plane.drain()
    return plane


def wire(*positions: Position) -> list[dict[str, Any]]:
    return [position.model_dump() for position in positions]


def position(offset: int, partition: str = "0000", stream: str = "serving") -> dict[str, Any]:
    return {"stream_name": stream, "partition_id": partition, "offset": offset}


class Watched(Reader):
    """A reader that says when it has looked in vain while listening: from then on only a notice can wake it in time."""

    def __init__(self, plane: SmallPlane) -> None:
        super().__init__(plane.pool, plane.projection_id, plane.evaluator, plane.limits, look_seconds=LONG)
        self.looks = 0
        self.listening = threading.Event()

    def _query(self, connection: psycopg.Connection[Any], question: Question) -> Any:
        state = super()._query(connection, question)
        self.looks += 1
        if self.looks == 2:
            self.listening.set()
        return state


def test_a_basis_that_is_there_is_served_at_once(pool: Pool) -> None:
    plane = small_plane(pool, wait_ms=0)
    answer = plane.reader.answer(plane.request(KEYS, GROUPS, AS_OF, at_least_basis=[position(0), position(2)]))
    assert answer.hash == plane.check(KEYS, GROUPS, AS_OF)  # what was asked of the basis is no part of the hash


def test_a_commit_of_another_process_releases_who_waits_for_it(pool: Pool) -> None:
    plane = small_plane(pool, wait_ms=LONG)
    reader = Watched(plane)
    placed = plane.append([payment("e-3", 2 * SECOND)])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(reader.answer, plane.request(KEYS, GROUPS, AS_OF, at_least_basis=wire(*placed)))
        assert reader.listening.wait(30)
        assert not waiting.done()
        plane.drain()
        answer = waiting.result(30)
    assert answer.hash == plane.check(KEYS, GROUPS, AS_OF)
    assert reader.looks == 3


def test_a_commit_without_a_notice_releases_who_waits_for_it(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = small_plane(pool, wait_ms=LONG)
    monkeypatch.setattr("ofp_platform.online.projecting.projector.send_notice", lambda *_: None)
    placed = plane.append([payment("e-3", 2 * SECOND)])
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(plane.reader.answer, plane.request(KEYS, GROUPS, AS_OF, at_least_basis=wire(*placed)))
        plane.drain()
        assert waiting.result(30).hash == plane.check(KEYS, GROUPS, AS_OF)


def test_a_commit_that_is_not_enough_does_not_release(pool: Pool) -> None:
    plane = small_plane(pool, wait_ms=LONG)
    reader = Watched(plane)
    placed = plane.append([payment("e-3", 2 * SECOND), payment("e-4", 2 * SECOND)])
    projector = plane.projector()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(reader.answer, plane.request(KEYS, GROUPS, AS_OF, at_least_basis=wire(placed[1])))
        assert reader.listening.wait(30)
        assert projector.apply_available(max_records=1) is not None
        assert projector.apply_available(max_records=1) is not None
        answer = waiting.result(30)
    assert answer.hash == plane.check(KEYS, GROUPS, AS_OF)


@pytest.mark.parametrize("missing", [position(3), position(0, partition="0001")])  # without a log to ask, 0001 may be new
@pytest.mark.parametrize("wait_ms", [0, 50])
def test_a_basis_not_reached_in_time_is_unavailable(pool: Pool, missing: dict[str, Any], wait_ms: int) -> None:
    plane = small_plane(pool, wait_ms=wait_ms)
    with pytest.raises(ContractError) as caught:
        plane.reader.answer(plane.request(KEYS, GROUPS, AS_OF, at_least_basis=[position(0), missing]))
    assert (caught.value.code, caught.value.reason) == (ErrorCode.UNAVAILABLE, Reason.BASIS_NOT_REACHED)
    assert caught.value.retryable
    assert str(wait_ms) in caught.value.message
    with pool.connection() as connection:  # the connection went back without its subscription
        assert connection.execute("SELECT pg_listening_channels()").fetchall() == []


FOREIGN = [
    pytest.param(position(0, stream="another"), "at_least_basis.1.stream_name", id="another stream"),
    pytest.param(position(0, partition="0001"), "at_least_basis.1.partition_id", id="no such partition"),
    pytest.param({**position(0), "offset": "0"}, "at_least_basis.1.offset", id="an offset of another kind of log"),
]


@pytest.mark.parametrize(("foreign", "place"), FOREIGN)
def test_a_position_that_no_basis_will_ever_hold_is_an_invalid_request(pool: Pool, foreign: dict[str, Any], place: str) -> None:
    plane = small_plane(pool, wait_ms=LONG)
    reader = Reader(pool, plane.projection_id, plane.evaluator, plane.limits, partitions=lambda: {"0000"})
    with pytest.raises(ContractError) as caught:
        reader.answer(plane.request(KEYS, GROUPS, AS_OF, at_least_basis=[position(0), foreign]))
    assert (caught.value.code, caught.value.reason) == (ErrorCode.INVALID_REQUEST, Reason.INVALID_FIELD)
    assert place in caught.value.message


def unanswered() -> list[str]:
    raise LogUnavailable("no")


@pytest.mark.parametrize("partitions", [lambda: {"0000", "0001"}, unanswered])
def test_a_partition_that_is_new_or_may_be_is_waited_for(pool: Pool, partitions: Any) -> None:
    plane = small_plane(pool)
    reader = Reader(pool, plane.projection_id, plane.evaluator, plane.limits, partitions=partitions)
    with pytest.raises(ContractError) as caught:
        reader.answer(plane.request(KEYS, GROUPS, AS_OF, at_least_basis=[position(0, partition="0001")]))
    assert caught.value.reason is Reason.BASIS_NOT_REACHED


def test_a_projection_that_is_gone_is_unavailable(pool: Pool) -> None:
    plane = small_plane(pool)
    with pool.connection() as connection:
        connection.execute("DELETE FROM ofp.projection")
    with pytest.raises(ContractError) as caught:
        plane.reader.answer(plane.request(KEYS, GROUPS, AS_OF))
    assert caught.value.retryable


@contextmanager
def outage(dsn: str) -> Iterator[None]:
    """The database refuses connections and ends those that it has."""
    database = conninfo.conninfo_to_dict(dsn)["dbname"]
    server = conninfo.make_conninfo(dsn, dbname="postgres", user="postgres")
    allow = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(allow.format(sql.Identifier(str(database)), sql.SQL("false")))
        try:
            end_sessions(connection, str(database))
            yield
        finally:
            connection.execute(allow.format(sql.Identifier(str(database)), sql.SQL("true")))


def refused(reader: Reader, request: bytes) -> ContractError:
    with pytest.raises(ContractError) as caught:
        reader.answer(request)
    return caught.value


def told(reader: Reader, request: bytes) -> str:
    """The hash of an answer, or the reason of its refusal."""
    try:
        return reader.answer(request).hash
    except ContractError as refusal:
        return refusal.reason.value


@pytest.mark.parametrize("at_least", [False, True])
def test_an_outage_is_unavailable_and_over_when_the_store_is_back(dsn: str, at_least: bool) -> None:
    with open_pool(dsn) as pool:
        plane = small_plane(pool)
        before = plane.check(KEYS, GROUPS, AS_OF)
    request = plane.request(KEYS, GROUPS, AS_OF, **({"at_least_basis": [position(2)]} if at_least else {}))
    with open_pool(dsn, timeout_seconds=0.3) as short:
        reader = Reader(short, plane.projection_id, plane.evaluator, plane.limits)
        assert reader.answer(request).hash == before
        with outage(dsn):
            error = refused(reader, request)
            assert (error.code, error.reason) == (ErrorCode.UNAVAILABLE, Reason.STORE_DOWN)
            assert error.retryable
            assert error.context_pins == plane.pins
        for _ in range(200):  # each attempt waits for the pool, which connects again by itself
            said = told(reader, request)
            if said == before:
                break
            assert said == Reason.STORE_DOWN
        assert said == before


def test_a_backend_that_dies_while_a_request_waits_is_unavailable(pool: Pool, dsn: str) -> None:
    plane = small_plane(pool, wait_ms=LONG)
    reader = Watched(plane)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(refused, reader, plane.request(KEYS, GROUPS, AS_OF, at_least_basis=[position(99)]))
        assert reader.listening.wait(30)
        with psycopg.connect(dsn, autocommit=True) as connection:
            end_sessions(connection, str(conninfo.conninfo_to_dict(dsn)["dbname"]))
        assert waiting.result(30).reason is Reason.STORE_DOWN
    plane.check(KEYS, GROUPS, AS_OF)


def test_a_store_that_was_never_there_is_unavailable(pool: Pool) -> None:
    plane = small_plane(pool)
    nowhere: Pool = ConnectionPool(
        "host=127.0.0.1 port=1 dbname=nothing", min_size=0, max_size=1, timeout=0.2, kwargs={"autocommit": True}, open=True
    )
    with nowhere:
        reader = Reader(nowhere, plane.projection_id, plane.evaluator, plane.limits)
        assert refused(reader, plane.request(KEYS, GROUPS, AS_OF)).reason is Reason.STORE_DOWN


# ---- from an event loop ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def async_reader(
    plane: SmallPlane, dsn: str, partitions: Partitions | None = None, **settings: Any
) -> AsyncIterator[AsyncReader]:
    """A reader over a pool of its own, woken as the service wakes it."""
    async with asyncpg.create_pool(**asyncpg_arguments(dsn), min_size=1, max_size=3) as pool:
        chosen = ReadSettings(**settings)
        reader = AsyncReader(pool, plane.projection_id, plane.evaluator, plane.limits, partitions=partitions, settings=chosen)
        listener = await asyncpg.connect(**asyncpg_arguments(dsn))
        await listener.add_listener("ofp_projection", lambda *_: reader.moved())
        try:
            yield reader
        finally:
            await listener.close()


async def async_refused(reader: AsyncReader, request: bytes) -> ContractError:
    with pytest.raises(ContractError) as caught:
        await answered(reader, request)
    return caught.value


async def test_both_readers_give_the_same_bytes(pool: Pool, dsn: str) -> None:
    plane = small_plane(pool)
    async with async_reader(plane, dsn) as reader:
        for keys in (KEYS, [("account", "a-never"), ("merchant", "m-never"), *KEYS]):
            for second in range(-1, 15):
                request = plane.request(keys, GROUPS, START + second * SECOND)
                assert (await answered(reader, request)).body == plane.reader.answer(request).body


async def test_questions_that_are_read_together_are_answered_apart(pool: Pool, dsn: str) -> None:
    plane = small_plane(pool)
    requests = [
        plane.request(keys, groups, START + step * SECOND // 4)
        for step in range(40)
        for keys, groups in ((KEYS, GROUPS), (KEYS[:1], GROUPS[:1]), (KEYS[1:], GROUPS[1:]))
    ]
    wanted = [plane.reader.answer(request).body for request in requests]
    bad = plane.request(KEYS, [("ratios", "v9")], AS_OF)
    for statements, together in ((1, 1), (1, 7), (2, 32)):
        async with async_reader(plane, dsn, statements=statements, questions_a_statement=together) as reader:
            *answers, refusal = await asyncio.gather(
                *(answered(reader, request) for request in requests), answered(reader, bad), return_exceptions=True
            )
            assert [answer.body for answer in answers if not isinstance(answer, BaseException)] == wanted
            assert isinstance(refusal, ContractError)
            cancelled = [asyncio.create_task(answered(reader, request)) for request in requests[:20]]
            await asyncio.sleep(0)
            for task in cancelled[::2]:
                task.cancel()
            outcomes = await asyncio.gather(*cancelled, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
            bodies = [outcome.body for outcome in outcomes[1::2] if not isinstance(outcome, BaseException)]
            assert bodies == wanted[1:20:2]
            assert (await answered(reader, requests[0])).body == wanted[0]


async def test_a_commit_releases_a_request_of_the_event_loop(pool: Pool, dsn: str) -> None:
    plane = small_plane(pool, wait_ms=LONG)
    placed = plane.append([payment("e-3", 2 * SECOND), payment("e-4", 2 * SECOND)])
    projector = plane.projector()
    async with async_reader(plane, dsn) as reader:
        looked = asyncio.Event()
        query = reader._query

        async def watched(questions: list[Question]) -> Any:
            states = await query(questions)
            looked.set()
            return states

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader, "_query", watched)
            waiting = asyncio.create_task(answered(reader, plane.request(KEYS, GROUPS, AS_OF, at_least_basis=wire(placed[1]))))
            for _ in range(2):
                await asyncio.wait_for(looked.wait(), 30)
                looked.clear()
                assert not waiting.done()
                await asyncio.to_thread(projector.apply_available, max_records=1)
            answer = await asyncio.wait_for(waiting, 30)
    assert answer.hash == plane.check(KEYS, GROUPS, AS_OF)


async def test_a_commit_that_nobody_tells_of_releases_a_request_of_the_event_loop(pool: Pool, dsn: str) -> None:
    plane = small_plane(pool, wait_ms=LONG)
    placed = plane.append([payment("e-3", 2 * SECOND)])
    async with asyncpg.create_pool(**asyncpg_arguments(dsn), min_size=1, max_size=3) as asyncpg_pool:
        reader = AsyncReader(asyncpg_pool, plane.projection_id, plane.evaluator, plane.limits)
        waiting = asyncio.create_task(answered(reader, plane.request(KEYS, GROUPS, AS_OF, at_least_basis=wire(*placed))))
        await asyncio.sleep(0)
        await asyncio.to_thread(plane.drain)
        answer = await asyncio.wait_for(waiting, 30)
    assert answer.hash == plane.check(KEYS, GROUPS, AS_OF)


async def test_a_basis_not_reached_in_time_is_unavailable_from_an_event_loop(pool: Pool, dsn: str) -> None:
    plane = small_plane(pool)
    async with async_reader(plane, dsn) as reader:
        error = await async_refused(reader, plane.request(KEYS, GROUPS, AS_OF, at_least_basis=[position(3)]))
        assert error.reason is Reason.BASIS_NOT_REACHED
        assert error.retryable


@pytest.mark.parametrize(("foreign", "place"), FOREIGN)
async def test_a_position_that_no_basis_will_ever_hold_is_invalid_from_an_event_loop(
    pool: Pool, dsn: str, foreign: dict[str, Any], place: str
) -> None:
    plane = small_plane(pool, wait_ms=LONG)
    async with async_reader(plane, dsn, partitions=lambda: {"0000"}, cache_bytes=1 << 20) as reader:
        reader.listening()
        await reader.followed()
        error = await async_refused(reader, plane.request(KEYS, GROUPS, AS_OF, at_least_basis=[position(0), foreign]))
    assert error.reason is Reason.INVALID_FIELD
    assert place in error.message


async def test_an_outage_is_unavailable_and_over_from_an_event_loop(pool: Pool, dsn: str) -> None:
    plane = small_plane(pool)
    request = plane.request(KEYS, GROUPS, AS_OF)
    before = plane.reader.answer(request).hash
    async with asyncpg.create_pool(**asyncpg_arguments(dsn), min_size=1, max_size=3) as own:
        reader = AsyncReader(own, plane.projection_id, plane.evaluator, plane.limits)
        assert (await answered(reader, request)).hash == before
        with outage(dsn):
            errors = await asyncio.gather(*(async_refused(reader, request) for _ in range(10)))
            assert {error.reason for error in errors} == {Reason.STORE_DOWN}
        assert (await answered(reader, request)).hash == before


async def test_a_store_that_is_silent_is_given_up_by_all_who_wait_for_it(pool: Pool, dsn: str) -> None:
    plane = small_plane(pool)
    request = plane.request(KEYS, GROUPS, AS_OF)
    async with async_reader(plane, dsn, statements=1, questions_a_statement=2, store_seconds=0.2) as reader:
        before = (await answered(reader, request)).hash
        with psycopg.connect(dsn) as holder:
            holder.execute("LOCK TABLE ofp.projection")
            async with asyncio.timeout(10):  # one after the other they would take 20 s
                errors = await asyncio.gather(*(async_refused(reader, request) for _ in range(200)))
        assert {error.reason for error in errors} == {Reason.STORE_DOWN}
        async with asyncio.timeout(30):
            while True:
                with suppress(ContractError):
                    assert (await answered(reader, request)).hash == before
                    break


async def test_an_event_loop_finds_no_store_where_there_is_none(pool: Pool) -> None:
    plane = small_plane(pool)
    arguments = asyncpg_arguments("postgresql://somebody@127.0.0.1:1/nothing?sslmode=disable")
    nowhere = asyncpg.create_pool(**arguments, min_size=0, max_size=1)
    async with nowhere:
        reader = AsyncReader(nowhere, plane.projection_id, plane.evaluator, plane.limits)
        assert (await async_refused(reader, plane.request(KEYS, GROUPS, AS_OF))).reason is Reason.STORE_DOWN


@pytest.mark.parametrize(
    ("dsn_text", "arguments"),
    [
        (
            "postgresql://me:secret@db.example:5433/plane",
            {"host": "db.example", "port": "5433", "user": "me", "password": "secret", "database": "plane"},
        ),
        ("host=/run/pg dbname=plane user=me", {"host": "/run/pg", "database": "plane", "user": "me"}),
        ("postgresql://me@/plane?host=/a%20b/pg", {"host": "/a b/pg", "database": "plane", "user": "me"}),
        ("host=db dbname='my plane' sslmode=verify-full", {"host": "db", "database": "my plane", "ssl": "verify-full"}),
        ("dbname=plane connect_timeout=3", {"database": "plane"}),
        (
            "postgresql://me@a:5433,b:5434/plane?target_session_attrs=read-write",
            {
                "host": ["a", "b"],
                "port": [5433, 5434],
                "user": "me",
                "database": "plane",
                "target_session_attrs": "read-write",
            },
        ),
        ("host=a,b dbname=plane", {"host": ["a", "b"], "database": "plane"}),
        ("host=a,b port=,5433 dbname=plane", {"host": ["a", "b"], "port": [5432, 5433], "database": "plane"}),
    ],
)
def test_every_form_of_dsn_means_the_same_to_asyncpg(dsn_text: str, arguments: dict[str, Any]) -> None:
    assert asyncpg_arguments(dsn_text) == arguments
