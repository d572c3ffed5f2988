"""Features of entities: online in every way of reading, rebuilt from both streams, and the brute force, to the byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.offline.parity.parity import ParityRuns
from ofp_platform.online.serving.async_reader import AsyncReader, ReadSettings
from ofp_platform.storage.postgres import Pool, asyncpg_arguments, open_pool
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.offline.parity_record import ParityOutcome, UncheckableReason
from ofp_platform_tests.online.answered import answered
from ofp_platform_tests.oracle import fold, graph
from ofp_platform_tests.oracle.rebuilt import parity, replayed, runs_of, snapshot_anchor
from ofp_platform_tests.oracle.resolved_plane import ResolvedPlane
from ofp_platform_tests.oracle.small_plane import payment
from ofp_platform_tests.oracle.strategies import ACCOUNTS, MERCHANTS, SECOND, START, World, worlds

KEYS = [*(("account", name) for name in (*ACCOUNTS, "a-9")), *(("merchant", name) for name in MERCHANTS)]


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


@st.composite
def links(draw: st.DrawFn) -> list[graph.SaidLink]:
    """Links of both key types, no two of one effective time."""
    made = []
    for number in range(draw(st.integers(0, 8))):
        key_type, ids = draw(st.sampled_from((("account", (*ACCOUNTS, "a-9")), ("account", ACCOUNTS), ("merchant", MERCHANTS))))
        member, canonical = draw(st.lists(st.sampled_from(ids), min_size=2, max_size=2, unique=True))
        at = START + draw(st.integers(-2, 30)) * SECOND + number
        made.append(
            graph.SaidLink(key_type, member, canonical, at, bytes([number]), draw(st.sampled_from((True, True, True, False))))
        )
    return made


def groups_of(plane: ResolvedPlane) -> list[tuple[str, str]]:
    """All groups that need no context of the request."""
    return [(one["name"], one["version"]) for one in plane.plane.content["groups"] if not one["request"]]


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(worlds(partitions=("0000", "0001")), links(), st.data())
def test_served_and_rebuilt_are_what_the_brute_force_says(
    pool: Pool, tmp_path_factory: pytest.TempPathFactory, world: World, said: list[graph.SaidLink], data: st.DataObject
) -> None:
    made = ResolvedPlane(pool, partitions=2, chunk_events=3, span_chunks=2, tail_bytes=data.draw(st.sampled_from((0, 200))))
    plane = made.plane
    plane.load(world.records)
    plane.drain(sizes=iter((2, 3, 5, 50)))
    cut = data.draw(st.integers(0, len(said)))
    served = []
    for part in (said[:cut], said[cut:]):
        made.link(part)
        for _ in range(2):
            keys = data.draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True))
            as_of = START + data.draw(st.integers(10, 32)) * SECOND
            groups = [
                group
                for group in groups_of(made)
                if any(group[0] == one["name"] and one["key_type"] in {k for k, _ in keys} for one in plane.content["groups"])
            ]
            chosen = data.draw(st.lists(st.sampled_from(groups), min_size=1, unique=True))
            types = {one["key_type"] for one in plane.content["groups"] if (one["name"], one["version"]) in chosen}
            keys = [key for key in keys if key[0] in types]
            try:
                served.append(made.check(keys, chosen, as_of))
            except fold.BehindHorizon:
                with pytest.raises(ContractError) as caught:
                    plane.reader.answer(plane.request(keys, chosen, as_of))
                assert caught.value.reason is Reason.AS_OF_BEFORE_HORIZON
    run = replayed(plane, tmp_path_factory.mktemp("replay") / "fold", registry=plane.registry)
    runs = ParityRuns(plane.log.stream_name, plane.pins, runs_of(plane, run).runs, made.context())
    results = parity(map(snapshot_anchor, served), runs, served)
    assert [(result.outcome, result.detail) for result in results] == [(ParityOutcome.MATCH, None)] * len(served)


def ring(made: ResolvedPlane) -> None:
    """Payments of three accounts, of which two belong to the third from a second on, one of them again not."""
    made.plane.append(
        [payment(f"e-{number}", number * SECOND, account_id=f"a-{number % 3 + 1}", amount=number) for number in range(9)]
    )
    made.plane.drain()
    made.link(
        [
            graph.SaidLink("account", "a-2", "a-1", START + 4 * SECOND, b"1", True),
            graph.SaidLink("account", "a-3", "a-2", START + 6 * SECOND, b"2", True),
            graph.SaidLink("account", "a-2", "a-1", START + 8 * SECOND, b"3", False),
        ]
    )


def test_a_mule_ring_is_seen_from_when_it_is_known(pool: Pool) -> None:
    made = ResolvedPlane(pool)
    ring(made)

    def pairs(account: str, second: int) -> int:
        answer = made.check([("account", account)], [("whole", "v1"), ("ratios", "v2")], START + second * SECOND)
        body = json.loads(answer.body)
        by_group = {one["group_name"]: one["features"] for one in body["snapshot"]["by_key"][0]["by_group"]}
        return by_group["whole"]["a_pairs"]

    alone, both, three = (pairs("a-1", second) for second in (3, 5, 7))
    assert alone < both < three
    assert pairs("a-3", 7) == three
    assert pairs("a-1", 8) < three  # it is a ring of two others now


def test_the_event_loop_gives_the_same_bytes(pool: Pool, module_dsn: str) -> None:
    made = ResolvedPlane(pool, chunk_events=2, span_chunks=2, tail_bytes=0)
    ring(made)
    plane = made.plane

    async def ask(cache_bytes: int) -> None:
        async with asyncpg.create_pool(**asyncpg_arguments(module_dsn), min_size=1, max_size=2) as connections:
            settings = ReadSettings(cache_bytes=cache_bytes, large_bytes=1 if cache_bytes else 1 << 20)
            reader = AsyncReader(
                connections, plane.projection_id, plane.evaluator, plane.limits, graph=made.graph, settings=settings
            )
            reader.listening()
            for keys in ([("account", "a-1")], [("account", "a-3"), ("account", "a-9"), ("merchant", "m-1")]):
                groups = [group for group in groups_of(made) if keys[-1][0] == "merchant" or group[0] != "shop"]
                for second in (3, 5, 7, 9):
                    body = plane.request(keys, groups, START + second * SECOND)
                    answer = await answered(reader, body)
                    made.check(keys, groups, START + second * SECOND, answer)
                    assert answer.body == plane.reader.answer(body).body
            unlinked = [("ratios", "v2")]
            assert (
                b'"graph_version":null'
                in (await answered(reader, plane.request([("account", "a-1")], unlinked, START + 7 * SECOND))).body
            )

    asyncio.run(ask(0))
    asyncio.run(ask(1 << 20))


def test_without_a_graph_a_resolved_group_is_not_guessed(pool: Pool) -> None:
    made = ResolvedPlane(pool)
    plane = made.plane
    request = plane.request([("account", "a-1")], [("whole", "v1")], START)
    with pytest.raises(ContractError, match="nobody has folded the context stream") as caught:
        plane.reader.answer(request)
    assert (caught.value.reason, caught.value.retryable) == (Reason.IEG_DOWN, True)
    assert plane.reader.answer(plane.request([("account", "a-1")], [("ratios", "v2")], START)).missing == 1
    plane.reader._graph = made.graph.__class__(None, 10)
    with pytest.raises(ContractError, match="the profile names no context_stream"):
        plane.reader.answer(request)


def test_an_entity_that_is_too_large_is_refused_by_name(pool: Pool) -> None:
    made = ResolvedPlane(pool, most_members=2)
    ring(made)
    made.check([("account", "a-1")], [("whole", "v1")], START + 5 * SECOND)
    with pytest.raises(ContractError, match="the entity of account a-1 has more than 2 members") as caught:
        made.plane.reader.answer(made.plane.request([("account", "a-1")], [("whole", "v1")], START + 7 * SECOND))
    assert caught.value.reason is Reason.TOO_MANY_MEMBERS


def test_a_version_that_the_stream_does_not_give_is_uncheckable(pool: Pool, tmp_path: Path) -> None:
    made = ResolvedPlane(pool)
    ring(made)
    answer = made.check([("account", "a-1")], [("whole", "v1")], START + 7 * SECOND)
    run = replayed(made.plane, tmp_path / "fold", registry=made.plane.registry)
    whole = made.context()
    none = ContextReplay(whole.stream_name, whole.ends.model_copy(update={"partitions": ()}), ())
    other = ContextReplay("another", whole.ends, whole.links)
    fewer = ContextReplay(whole.stream_name, whole.ends, whole.links[:1])
    expected = {
        None: "no context stream is at hand",
        none: "the context stream does not reach it",
        other: "the links at hand are of another",
    }
    for context, words in expected.items():
        (result,) = parity(
            [snapshot_anchor(answer)],
            ParityRuns(made.plane.log.stream_name, made.plane.pins, runs_of(made.plane, run).runs, context),
            [answer],
        )
        assert (result.outcome, result.reason) == (ParityOutcome.UNCHECKABLE, UncheckableReason.GRAPH_VERSION_UNKNOWN)
        assert words in str(result.detail)
    # links that were lost are a mismatch, and shown
    (result,) = parity(
        [snapshot_anchor(answer)],
        ParityRuns(made.plane.log.stream_name, made.plane.pins, runs_of(made.plane, run).runs, fewer),
        [answer],
    )
    assert result.outcome is ParityOutcome.MISMATCH
    assert result.differences
