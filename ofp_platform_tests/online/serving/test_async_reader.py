"""Answers from the cache, held byte for byte against answers from the store at the same basis."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.online.projecting.projector import Projector
from ofp_platform.online.serving.async_reader import AsyncReader, ReadSettings
from ofp_platform.online.state import touched_keys
from ofp_platform.online.state.key_shards import shard_of
from ofp_platform.online.state.touched_keys import KEPT_VERSIONS, MOST_MARKS
from ofp_platform.storage.postgres import Pool, asyncpg_arguments, open_pool
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform_tests.online.answered import answered
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.small_shards import set_shards, shards_of
from ofp_platform_tests.oracle.strategies import SECOND, START

GROUPS = [("ratios", "v2"), ("shop", "v1")]
LATE = 60 * SECOND  # no request of a world is behind its horizon
NUMBERS = itertools.count()
ACCOUNTS, SHOPS = 3, 2


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn) as opened:
        yield opened


class World:
    """A plane with few events a chunk, a set of requests, and what the store answered to each at every basis."""

    def __init__(self, pool: Pool) -> None:
        self.plane = SmallPlane(
            pool, f"cache-{next(NUMBERS)}", partitions=1, chunk_events=4, span_chunks=2, allowed_lateness=LATE
        )
        self.projector: Projector = self.plane.projector()
        self.requests = [
            self.plane.request([("account", f"a-{account}"), ("merchant", f"m-{shop}")], GROUPS, START + second * SECOND)
            for account in range(ACCOUNTS)
            for shop in range(SHOPS)
            for second in (5, 12, 30)
        ]
        self.order: dict[str, int] = {}
        self.wanted: list[dict[bytes, bytes]] = []
        self.commit(0)

    def commit(self, *seconds: int) -> None:
        """Payments at these seconds; one commit; then ask the store everything."""
        events = [
            payment(
                f"e-{next(NUMBERS)}",
                second * SECOND,
                account_id=f"a-{number % ACCOUNTS}",
                merchant_id=f"m-{number % SHOPS}",
                amount=number % 97,
            )
            for second in seconds
            for number in [next(NUMBERS)]
        ]
        self.plane.append(events)
        assert self.projector.apply_available(max_records=1_000) is not None
        self.wanted.append({request: self.plane.reader.answer(request).body for request in self.requests})
        self.order[basis_of(self.wanted[-1][self.requests[0]])] = len(self.wanted) - 1

    def version_of(self, request: bytes, body: bytes) -> int:
        """Which commit an answer is of; it is the store's own answer at that basis."""
        version = self.order[basis_of(body)]
        assert body == self.wanted[version][request]
        return version


def basis_of(body: bytes) -> str:
    return orjson.dumps(orjson.loads(body)["provenance"]["input_basis"]).decode()


@asynccontextmanager
async def cached(world: World, dsn: str, cache_bytes: int, **settings: int) -> AsyncIterator[AsyncReader]:
    """A reader with a cache, which the test itself tells of commits."""
    async with asyncpg.create_pool(**asyncpg_arguments(dsn), min_size=1, max_size=3) as own:
        plane = world.plane
        chosen = ReadSettings(cache_bytes=cache_bytes, **settings)
        reader = AsyncReader(own, plane.projection_id, plane.evaluator, plane.limits, settings=chosen)
        try:
            yield reader
        finally:
            await reader.followed()


STEPS: st.SearchStrategy[tuple[str, list[int]]] = st.one_of(
    st.tuples(st.just("commit"), st.lists(st.integers(0, 29), min_size=1, max_size=12)),
    st.tuples(st.just("ask"), st.lists(st.integers(0, ACCOUNTS * SHOPS * 3 - 1), min_size=1, max_size=12)),
    st.tuples(st.sampled_from(["moved", "listening", "deaf", "gap", "any key"]), st.just([])),
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=5, max_size=20), cache_bytes=st.sampled_from([6_000, 1 << 22]))
def test_the_cache_answers_as_the_store_did_at_the_same_basis(
    pool: Pool, dsn: str, steps: list[tuple[str, list[int]]], cache_bytes: int
) -> None:
    world = World(pool)

    async def run() -> None:
        newest = 0
        async with cached(world, dsn, cache_bytes) as reader:
            reader.listening()
            for step, numbers in steps:
                if step == "commit":
                    await asyncio.to_thread(world.commit, *numbers)
                elif step == "ask":
                    # together, and with whatever the step before left under way
                    asked = [world.requests[number] for number in numbers]
                    answers = await asyncio.gather(*(answered(reader, request) for request in asked))
                    versions = [world.version_of(*pair) for pair in zip(asked, (a.body for a in answers), strict=True)]
                    assert min(versions) >= newest
                    newest = max(versions)
                elif step in ("gap", "any key"):
                    change = "DELETE FROM ofp.commit_touched" if step == "gap" else "UPDATE ofp.commit_touched SET marks = NULL"
                    with pool.connection() as connection:
                        connection.execute(change)
                else:
                    getattr(reader, step)()
            reader.deaf()
            reader.listening()
            await reader.followed()
            for _ in range(2):
                for request in world.requests:
                    assert world.version_of(request, (await answered(reader, request)).body) == len(world.wanted) - 1
            assert reader.cache.nbytes <= cache_bytes

    asyncio.run(run())


async def test_with_key_shards_each_answer_is_of_one_epoch_while_they_commit(pool: Pool, dsn: str) -> None:
    """Asked all the time, also between the commits of one epoch, with a cache that follows and with one that hears late."""
    world = World(pool)
    set_shards(world.plane, 3)
    pairs: list[tuple[bytes, bytes]] = []
    with shards_of(world.plane, dsn, 3) as world.projector:
        async with cached(world, dsn, 1 << 22) as reader:
            reader.listening()
            for number in range(8):
                commit = asyncio.create_task(asyncio.to_thread(world.commit, number, number + 1, 29))
                while not commit.done():
                    answers = await asyncio.gather(*(answered(reader, request) for request in world.requests))
                    pairs += zip(world.requests, (answer.body for answer in answers), strict=True)
                await commit
                if number % 2:
                    reader.moved()
            await reader.followed()
            for _ in range(2):
                for request in world.requests:
                    assert world.version_of(request, (await answered(reader, request)).body) == 8
            assert len(reader.cache) == ACCOUNTS + SHOPS
    versions = [world.version_of(*pair) for pair in pairs]
    assert len(set(versions)) > 2


async def test_a_request_whose_shards_stay_apart_is_refused_in_time(pool: Pool, dsn: str) -> None:
    world = World(pool)
    world.commit(1, 2, 3)
    set_shards(world.plane, 2)
    async with cached(world, dsn, 0, split_seconds=0) as reader:
        assert world.version_of(world.requests[0], (await answered(reader, world.requests[0])).body) == 1
        with pool.connection() as connection:
            connection.execute("UPDATE ofp.projection_shard SET version = version + 1")
        keys = [("account", f"a-{account}") for account in range(ACCOUNTS)]
        assert {shard_of(*key, 2) for key in keys} == {0, 1}
        with pytest.raises(ContractError, match="key shard 0 did not apply epoch 4 within 0 s") as caught:
            await answered(reader, world.plane.request(keys, GROUPS[:1], START))
        assert caught.value.reason is Reason.PROJECTION_BEHIND


@pytest.mark.parametrize("most_marks", [MOST_MARKS, 0])
async def test_a_key_is_read_once_and_again_when_a_commit_touched_it(
    pool: Pool, dsn: str, most_marks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(touched_keys, "MOST_MARKS", most_marks)
    world = World(pool)
    async with cached(world, dsn, 1 << 22) as reader:
        reader.listening()
        await reader.followed()
        epoch = reader.cache.epoch
        statements = watch(reader)
        request = world.requests[0]
        for _ in range(3):
            await answered(reader, request)
        assert len(statements) == 1
        world.commit(1, 2, 3)
        assert world.version_of(request, (await answered(reader, request)).body) == 0  # nobody told it yet
        reader.moved()
        await reader.followed()
        for _ in range(3):
            assert world.version_of(request, (await answered(reader, request)).body) == 1
        assert len(statements) == 2
        assert reader.cache.epoch == epoch  # it was never emptied


class Held:
    """A function of the evaluator that goes on when it is told to: nobody could tell it if the loop waited for it."""

    def __init__(self, compute: Callable[..., Any]) -> None:
        self._compute = compute
        self._loop = asyncio.get_running_loop()
        self._go_on = threading.Event()
        self.begun = asyncio.Event()
        self.was_told: list[bool] = []

    def __call__(self, *arguments: Any) -> Any:
        self._loop.call_soon_threadsafe(self.begun.set)
        self.was_told.append(self._go_on.wait(10))
        return self._compute(*arguments)

    def go_on(self) -> None:
        self._go_on.set()


@pytest.mark.parametrize("name", ["key_state", "answer_from"])
async def test_what_takes_long_is_computed_beside_the_loop(
    pool: Pool, dsn: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    world = World(pool)
    world.commit(*range(ACCOUNTS * SHOPS))  # so that every key has events
    async with cached(world, dsn, 1 << 22, large_bytes=0) as reader:
        reader.listening()
        await reader.followed()
        held = Held(getattr(reader.evaluator, name))
        with monkeypatch.context() as patched:
            patched.setattr(reader.evaluator, name, held)
            waiting = asyncio.create_task(answered(reader, world.requests[0]))
            await held.begun.wait()
            held.go_on()
            assert world.version_of(world.requests[0], (await waiting).body) == 1
        assert set(held.was_told) == {True}
        for request in world.requests[:4]:  # some keys are in the cache by now, some are not
            assert world.version_of(request, (await answered(reader, request)).body) == 1


async def test_only_the_keys_that_are_missing_are_read(pool: Pool, dsn: str) -> None:
    world = World(pool)
    async with cached(world, dsn, 1 << 22) as reader:
        reader.listening()
        await reader.followed()
        statements = watch(reader)
        for request in world.requests[0:1] + world.requests[3:4]:  # another merchant, the same account and instant
            await answered(reader, request)
        assert [sum(len(question.keys) for question in questions) for questions in statements] == [2, 1]


async def test_more_commits_than_are_kept_empty_the_cache(pool: Pool, dsn: str) -> None:
    world = World(pool)
    async with cached(world, dsn, 1 << 22) as reader:
        reader.listening()
        await reader.followed()
        await answered(reader, world.requests[0])
        assert len(reader.cache) == 2
        with pool.connection() as connection:
            connection.execute("UPDATE ofp.projection SET version = version + %s", (KEPT_VERSIONS + 1,))
        reader.moved()
        await reader.followed()
        assert len(reader.cache) == 0
        assert reader.cache.head is not None


async def test_a_basis_ahead_of_the_cache_is_read_from_the_store(pool: Pool, dsn: str) -> None:
    world = World(pool)
    async with cached(world, dsn, 1 << 22) as reader:
        reader.listening()
        await reader.followed()
        world.commit(1)
        keys = [("account", "a-0"), ("merchant", "m-0")]
        stream = world.plane.row().basis.stream_name
        newest = [{"stream_name": stream, "partition_id": "0000", "offset": 1}]
        ahead = world.plane.request(keys, GROUPS, START + 5 * SECOND, at_least_basis=newest)
        assert world.version_of(world.requests[0], (await answered(reader, ahead)).body) == 1
        # and from now on nothing older is served, although the cache has not followed
        assert world.version_of(world.requests[1], (await answered(reader, world.requests[1])).body) == 1


async def test_nothing_is_served_from_a_cache_that_hears_nothing(pool: Pool, dsn: str) -> None:
    world = World(pool)
    async with cached(world, dsn, 1 << 22) as reader:
        reader.listening()
        await reader.followed()
        await answered(reader, world.requests[0])
        reader.deaf()
        world.commit(1)
        assert world.version_of(world.requests[0], (await answered(reader, world.requests[0])).body) == 1
        with pool.connection() as connection:
            connection.execute("DELETE FROM ofp.projection")
        with pytest.raises(ContractError) as caught:
            await answered(reader, world.requests[0])
        assert caught.value.reason is Reason.STORE_DOWN


@pytest.mark.parametrize("seed", range(3))
async def test_beside_a_projector_that_commits_all_the_time(pool: Pool, dsn: str, seed: int) -> None:
    world = World(pool)
    choice = random.Random(seed)
    served: list[tuple[bytes, bytes]] = []
    async with cached(world, dsn, choice.choice([20_000, 1 << 22])) as reader:
        listener = await asyncpg.connect(**asyncpg_arguments(dsn))
        await listener.add_listener("ofp_projection", lambda *_: reader.moved())
        reader.listening()
        done = asyncio.Event()

        async def commit() -> None:
            for _ in range(25):
                await asyncio.to_thread(world.commit, *(choice.randrange(30) for _ in range(4)))
            done.set()

        async def ask(requests: random.Random) -> None:
            last: list[str] = []
            while not done.is_set():
                request = requests.choice(world.requests)
                body = (await answered(reader, request)).body
                served.append((request, body))
                last.append(basis_of(body))
                await asyncio.sleep(0)  # a hit never leaves the loop: let the notices in
            await done.wait()
            orders = [world.order[basis] for basis in last]
            assert orders == sorted(orders)  # one client never sees time go back

        try:
            await asyncio.gather(commit(), *(ask(random.Random(seed * 10 + client)) for client in range(4)))
        finally:
            await listener.close()
    assert len({world.version_of(*pair) for pair in served}) > 5


def watch(reader: AsyncReader) -> list[Any]:
    """The questions of every statement from now on."""
    seen: list[Any] = []
    query = reader._query

    async def watched(questions: Any) -> Any:
        seen.append(questions)
        return await query(questions)

    reader._query = watched  # type: ignore[method-assign]
    return seen
