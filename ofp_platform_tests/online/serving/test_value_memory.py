"""Whole windows from held values are those from the events, byte for byte, whatever a commit changes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import asyncpg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.kernel.partial_aggregates import PartialSubjects
from ofp_platform.kernel.query import CHANGE, LayoutArrays, make_query
from ofp_platform.online.serving import async_reader
from ofp_platform.online.serving.async_reader import AsyncReader, ReadSettings
from ofp_platform.online.serving.evaluation import HeldSubjects, StoredChunk
from ofp_platform.online.serving.state_statement import NOTHING_HELD
from ofp_platform.online.serving.value_memory import KeyValues, ValuesOfKeys
from ofp_platform.online.state.chunk_codec import pack, unpack_many
from ofp_platform.registry.layout import KeyLayout, Measure, Predicate, Slot
from ofp_platform.storage.postgres import Pool, asyncpg_arguments, open_pool
from ofp_platform_tests.online.answered import answered
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND, START

STREAMS = (f"values-{number}" for number in itertools.count())
ROOM = 1 << 24
KEY = ("account", "a-1")


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn) as opened:
        yield opened


class World:
    """One account with many small chunks and spans, and what the store answers to its requests after each commit."""

    def __init__(self, pool: Pool, tail_bytes: int = 640) -> None:
        self.plane = SmallPlane(
            pool, next(STREAMS), partitions=1, chunk_events=3, span_chunks=2, allowed_lateness=60 * SECOND, tail_bytes=tail_bytes
        )
        self.projector = self.plane.projector()
        self.numbers = itertools.count()
        groups = (
            [("every", "v1")],
            [("every", "v1"), ("ratios", "v2")],
            [("texts", "v1")],
            [("whole", "v1")],
            [("lists", "v1")],
            [("lists", "v1"), ("texts", "v1"), ("whole", "v1")],
        )
        self.requests = [
            self.plane.request([KEY], of, START + tenth * SECOND // 10, {"amount": 5} if of[0][0] == "every" else None)
            for of in groups
            for tenth in (280, 290, 300, 301)
        ]

    def commit(self, tenths: list[int]) -> None:
        """Payments at these tenths of a second, and those after them, of a few shops and amounts; one commit."""
        events = []
        for tenth in tenths:
            number = next(self.numbers)
            payload = {"account_id": KEY[1], "shop": f"s{number % 7}", "amount": number % 11}
            payload |= {"online": number % 5 > 1, "status": ("ok", "odd", "no")[number % 3]}
            events.append(payment(f"e-{number}", tenth * SECOND // 10, **payload))
        self.plane.append(events)
        assert self.projector.apply_available(max_records=1_000) is not None

    def wanted(self) -> list[bytes]:
        return [self.plane.reader.answer(request).body for request in self.requests]


async def follow(reader: AsyncReader, world: World, tenths: list[int]) -> None:
    await asyncio.to_thread(world.commit, tenths)
    reader.moved()
    await reader.followed()


async def check(reader: AsyncReader, world: World, order: list[int]) -> None:
    wanted = world.wanted()
    for index in order:
        assert (await answered(reader, world.requests[index])).body == wanted[index]
    together = await asyncio.gather(*(answered(reader, request) for request in world.requests))
    assert [answer.body for answer in together] == wanted


STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 300), min_size=1, max_size=12) | st.just(list(range(200, 300, 5))),
        st.lists(st.integers(0, 23), max_size=6),
        st.sampled_from(["", "", "deaf", "pruned"]),
    ),
    min_size=2,
    max_size=6,
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS, large_bytes=st.sampled_from([0, 1 << 20]), tail_bytes=st.sampled_from([0, 640]), is_one=st.booleans())
def test_answers_from_held_values_are_those_of_the_store(
    pool: Pool, dsn: str, steps: list[tuple[list[int], list[int], str]], large_bytes: int, tail_bytes: int, is_one: bool
) -> None:
    async def run() -> None:
        world = World(pool, tail_bytes)
        world.commit(list(range(0, 300, 4)))
        plane = world.plane
        async with asyncpg.create_pool(**asyncpg_arguments(dsn), min_size=1, max_size=3) as own:
            chosen = ReadSettings(cache_bytes=ROOM, large_bytes=large_bytes, questions_a_statement=1 if is_one else 8)
            reader = AsyncReader(own, plane.projection_id, plane.evaluator, plane.limits, settings=chosen)
            reader.listening()
            await reader.followed()
            for tenths, order, event in steps:
                await check(reader, world, order)
                if event == "deaf":
                    reader.deaf()
                    reader.listening()
                if event == "pruned":
                    tenths = [*tenths, 870]  # the horizon moves
                await follow(reader, world, tenths)
            await check(reader, world, [])
            memory = reader._values.get(KEY)
            assert memory is not None
            assert memory.readings

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(async_reader, "LEAST_CHUNKS", 1)
        asyncio.run(run())


async def statements_of(reader: AsyncReader, request: bytes) -> list[tuple[Any, ...]]:
    """(known, blocks sent) of each statement of state that one request needs."""
    fetch, seen = reader._fetch, []

    async def watched(statement: str, *arguments: Any) -> list[Any]:
        rows = await fetch(statement, *arguments)
        seen.append((arguments[6:9], sum(1 for row in rows if row[7] and not row[8])))
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_fetch", watched)
        await answered(reader, request)
    return seen


@pytest.mark.parametrize("group", ["every", "whole", "lists"])
async def test_a_commit_costs_the_blocks_that_it_wrote(pool: Pool, dsn: str, monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    monkeypatch.setattr(async_reader, "LEAST_CHUNKS", 1)
    world = World(pool, tail_bytes=0)
    world.commit(list(range(0, 290, 2)))
    plane = world.plane
    async with asyncpg.create_pool(**asyncpg_arguments(dsn), min_size=1, max_size=3) as own:
        reader = AsyncReader(own, plane.projection_id, plane.evaluator, plane.limits, settings=ReadSettings(cache_bytes=ROOM))
        reader.listening()
        await reader.followed()
        request = plane.request([KEY], [(group, "v1")], START + 29 * SECOND, {"amount": 5} if group == "every" else None)
        ((known, blocks),) = await statements_of(reader, request)
        assert known == tuple(map(list, NOTHING_HELD))
        assert blocks > 15  # the longest window is ten seconds, three events a chunk
        for _ in range(5):
            await follow(reader, world, [290])
            ((known, after),) = await statements_of(reader, request)
            assert len(known[1]) > 3
            assert len(known[2]) > 0
            assert after < 12  # edges, and the newest
        # a late event changes a chunk under a span whose values are held: told by the rows, read again, and held again
        await follow(reader, world, [221])
        first, second = await statements_of(reader, request)
        assert first[0] != second[0]
        assert second[1] < blocks
        assert (await answered(reader, request)).body == plane.reader.answer(request).body
        await follow(reader, world, [290])
        assert len(await statements_of(reader, request)) == 1
        # a reader that is deaf and hears again knows nothing of the rows
        reader.deaf()
        reader.listening()
        await reader.followed()
        ((known, again),) = await statements_of(reader, request)
        assert known == tuple(map(list, NOTHING_HELD))
        assert again >= blocks


async def test_values_that_are_lost_between_two_readings_are_read_as_events(
    pool: Pool, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the memory says that it holds and does not, an answer comes, and it is the right one."""
    monkeypatch.setattr(async_reader, "LEAST_CHUNKS", 1)
    world = World(pool)
    world.commit(list(range(0, 300, 3)))
    plane = world.plane
    async with asyncpg.create_pool(**asyncpg_arguments(dsn), min_size=1, max_size=3) as own:
        reader = AsyncReader(own, plane.projection_id, plane.evaluator, plane.limits, settings=ReadSettings(cache_bytes=ROOM))
        reader.listening()
        await reader.followed()
        await check(reader, world, [])
        await follow(reader, world, [300])
        memory = reader._values.get(KEY)
        assert memory is not None
        for parts in memory._parts:
            parts.clear()  # its bounds still name them
        await check(reader, world, [0, 5, 9])


def row(first: int, last: int, row_id: int, level: int = 0, tokens: list[int] | None = None) -> StoredChunk:
    block = None
    if tokens is not None:
        times = np.linspace(first, last, len(tokens)).astype(np.int64)
        block = pack(
            np.stack([times, np.ones(len(tokens), np.int64), np.array(tokens, np.int64), np.zeros(len(tokens), np.int64)])
        )
    return StoredChunk(first, last, b"", block, level=level, row_id=row_id)


LAYOUT = KeyLayout("account", False, (Predicate((), ()),), (), ("shop",), (Measure(0, -1),), (Slot(0, 10, 0),))
QUERY = make_query(LayoutArrays.of(LAYOUT), (), [(0, 0)], whole=[(0, CHANGE, 0, 0)])
SUBJECTS = HeldSubjects(np.array([[0, 2]], np.int64), PartialSubjects.of(QUERY))


def taken(memory: KeyValues, reading: list[StoredChunk]) -> list[int]:
    """How many values are known of each row of the reading, -1: none."""
    chunks = [chunk for chunk in reading if not chunk.is_mark]
    matrix, offsets = unpack_many([chunk.block for chunk in chunks if chunk.block is not None], 4)
    held = memory.take(chunks, matrix, offsets)
    memory.learn(reading)
    names, partials = held.names, held.partials
    assert names is not None
    assert partials is not None
    assert ((names.starts[0] >= 0) == (partials.starts[0] >= 0)).all()
    return [int(end - start) if start >= 0 else -1 for start, end in zip(names.starts[0], names.ends[0], strict=True)]


def test_a_row_is_known_by_its_level_first_time_and_writer() -> None:
    memory = KeyValues(SUBJECTS)
    chunks = [row(0, 9, 5, tokens=[1, 1]), row(10, 19, 5, tokens=[2, 3]), row(20, 29, 6, tokens=[3]), row(30, 39, 6, tokens=[4])]
    assert taken(memory, [row(0, 19, 5, -1), *chunks]) == [1, 2, 1, 1]
    assert memory.held_rows([]) == ([20], [0], [])
    assert memory.held_rows([5]) == ([0, 10, 20], [0], [])
    assert memory.held_rows([19]) == ([20], [0], [])  # a window that ends with the span does not open it
    bare = [row(20, 29, 6), row(30, 39, 6)]
    assert taken(memory, [row(0, 19, 5, 1), *bare]) == [3, 1, 1]
    size = memory.nbytes
    # another writer: neither it nor anything under it is known any more
    assert taken(memory, [row(0, 19, 7, 1), *bare]) == [-1, 1, 1]
    assert memory.held_rows([5]) == ([20], [], [])
    assert memory.nbytes < size
    # a span whose parts are not all known is not known
    assert taken(memory, [row(0, 19, 7, -1), row(0, 9, 5), row(10, 19, 8, tokens=[2]), *bare]) == [-1, 1, 1, 1]
    assert memory.held_rows([]) == ([10, 20], [], [])
    # spans of spans
    parts = [row(0, 19, 7, -1), row(0, 9, 8, tokens=[9]), row(10, 19, 8), row(20, 29, 4, -1), *bare]
    assert taken(memory, [row(0, 29, 9, -2), *parts]) == [1, 1, 1, 1]
    assert memory.held_rows([]) == ([], [0, 20], [0])
    assert taken(memory, [row(0, 29, 9, 2), row(30, 39, 6)]) == [3, 1]


def test_the_least_lately_used_goes_and_one_that_is_too_large_alone_is_not_begun_again() -> None:
    def filled(values: ValuesOfKeys, name: str, count: int) -> KeyValues | None:
        memory = values.begin(("account", name), SUBJECTS)
        if memory is not None:
            taken(memory, [row(0, 9, 1, tokens=list(range(count)))])
        values.fit()
        return memory

    values = ValuesOfKeys(60_000)
    values.at(1)
    for name in "abc":
        assert filled(values, name, 500) is not None
        values.get(("account", "a"))
    assert values.get(("account", "a")) is not None
    assert values.get(("account", "b")) is None
    assert filled(values, "large", 50_000) is not None
    assert filled(values, "large", 50_000) is None
    values.at(1)
    assert values.begin(("account", "large"), SUBJECTS) is None
    values.at(2)
    assert values.get(("account", "a")) is None
    grown = values.begin(("account", "large"), SUBJECTS)
    assert grown is not None
    for first in range(0, 50_000, 500):  # it grew over many readings: it begins anew
        taken(grown, [row(first, first + 9, 1, tokens=list(range(first, first + 500)))])
    values.fit()
    assert values.get(("account", "large")) is None
    assert values.begin(("account", "large"), SUBJECTS) is not None
