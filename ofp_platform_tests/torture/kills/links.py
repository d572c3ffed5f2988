"""Projectors of links that are killed while they fold a context stream, until one of them finds nothing left to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from ofp_platform.identity.context_events import read_context
from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.identity.entities import LinkEvent
from ofp_platform.identity.graph_projector import GraphProjector, GraphReceipt
from ofp_platform.identity.graph_state import GraphRow, apply_records, find_graph
from ofp_platform.log.port import EventLog
from ofp_platform.online.plane import Plane
from ofp_platform.storage.crash_points import CRASH_POINTS, crash_point
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import place
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.simulated_log import PINS
from ofp_platform_tests.torture.kills.check import Checked
from ofp_platform_tests.torture.kills.victim_pool import Kill, VictimPool, killed_until_done
from ofp_platform_tests.torture.kills.world import World

POINTS = tuple(name for name in CRASH_POINTS if name.startswith("graph."))
_PAGE = 5_000
_START = 1_767_225_600_000_000
_SECOND = 1_000_000
_RECORDS_A_COMMIT = 7


def with_links(world: World, stream_name: str, links: int, rng: Random) -> Profile:
    """The profile of a world with a context stream of its own, which is filled: with copies, unlinks, and what is refused."""
    profile = world.profile.model_copy(update={"context_stream": stream_name})
    with Plane.open(profile, world.dsn, max_connections=2) as plane:
        receipt = plane.context_log(create=True).append(list(_envelopes(links, rng)), lambda _: _START + 10**6 * _SECOND)
        assert not receipt.refusals
    return profile


def _envelopes(links: int, rng: Random) -> Iterator[dict[str, Any]]:
    for number in range(links):
        member, canonical = rng.sample(range(links // 3 + 2), 2)
        payload = {
            "key_type": "account",
            "member": f"account-{member}",
            "canonical": f"account-{canonical}",
            "effective_time_utc": format_time(_START + rng.randrange(10**5) * _SECOND),
        }
        kind = "identity_link" if rng.random() < 0.8 else "identity_unlink"
        head = {"event_id": f"link-{number}", "event_type": kind, "schema_version": "1", "ts_utc": format_time(_START)}
        envelope = {**head, **PINS, "payload": payload}
        if rng.random() < 0.05:
            envelope["payload"] = {**payload, "canonical": payload["member"]}  # a circle of one
        if rng.random() < 0.03:
            envelope = {**envelope, "run_id": "another"}
        yield from [envelope] * rng.choice((1, 1, 1, 2))


def fold_links(profile: Profile, dsn: str) -> int:
    """Fold all that the context stream holds, a few records at a time; the version of the graph."""
    with open_pool(dsn, max_size=2) as pool, Plane.open(profile, dsn, max_connections=2) as plane:
        return _folded(GraphProjector(pool, plane.context_log(), profile.context_pins, profile.clock_skew_us))


def fold_links_torn(profile: Profile, dsn: str) -> int:
    """The same, by a projector that commits the basis before the links: the negative control."""
    with open_pool(dsn, max_size=2) as pool, Plane.open(profile, dsn, max_connections=2) as plane:
        return _folded(TornProjector(pool, plane.context_log(), profile.context_pins, profile.clock_skew_us))


def _folded(projector: GraphProjector) -> int:
    while projector.apply_available(_RECORDS_A_COMMIT) is not None:
        pass
    return projector.graph().version


class TornProjector(GraphProjector):
    """Moves the basis in a transaction of its own, and adds the links of it in another one."""

    def _apply(self, graph: GraphRow, max_records: int) -> GraphReceipt | None:
        parts = dict(graph.basis.by_partition())
        for info in self.log.partitions():
            start = parts.get(info.partition_id) or self.log.position_kind.start(info.partition_id)
            batch = self.log.read(info.partition_id, start, max_records)
            if place(batch.next) == place(start):
                continue
            moved = graph.basis.model_copy(
                update={"partitions": tuple(part for _, part in sorted({**parts, info.partition_id: batch.next}.items()))}
            )
            with self.pool.connection() as connection:
                apply_records(connection, graph, moved, {}, len(batch) + len(batch.unreadable))
            crash_point("graph.after_commit")
            graph = self.graph()
            links = {info.partition_id: [read_context(batch, self.pins, self.clock_skew_us)]}
            with self.pool.connection() as connection:
                return GraphReceipt(len(batch), apply_records(connection, graph, graph.basis, links, 0), graph.version)
        return None


def kill_graph_projectors(world: World, victim_pool: VictimPool, links: int, rng: Random) -> tuple[Counter[str], Checked]:
    """Fold the links by projectors that are killed; what killed them how often, and what was checked after every few of them."""
    profile = with_links(world, "killed-links", links, rng)
    kills: Counter[str] = Counter()
    checked = Checked()
    for kills in killed_until_done(victim_pool, fold_links, profile, world.dsn, points=POINTS, most_passages=4, rng=rng):
        if sum(kills.values()) % 10 == 0:
            _check(profile, world.dsn, checked)
    _check(profile, world.dsn, checked, at_head=True)
    return kills, checked


def check_without_guard(world: World, victim_pool: VictimPool, rng: Random) -> Checked:
    """The same check of a projector that commits the basis first."""
    profile = with_links(world, "torn-links", 60, rng)
    victim_pool.run(fold_links_torn, profile, world.dsn, kill=Kill("graph.after_commit", 2))
    victim_pool.run(fold_links_torn, profile, world.dsn)
    checked = Checked()
    _check(profile, world.dsn, checked, at_head=True)
    return checked


def _check(profile: Profile, dsn: str, checked: Checked, *, at_head: bool = False) -> None:
    """The graph as it stands is what the stream gives up to its basis: links, each once, and the counts of its records."""
    with Plane.open(profile, dsn, max_connections=2) as plane:
        log, pins = plane.context_log(), profile.context_pins
        with plane.pool.connection() as connection:
            graph = find_graph(connection, log.stream_name, pins)
            if graph is None:
                return  # killed before there was one
            rows = connection.execute(
                "SELECT key_type, member, canonical, effective_ts, identity, is_link FROM ofp.entity_link WHERE graph_id = %s",
                (graph.graph_id,),
            ).fetchall()
        stored = Counter(LinkEvent(*row[:4], bytes(row[4]), row[5]) for row in rows)
        context = ContextReplay.read(log, pins, profile.clock_skew_us)
        parts = graph.basis.by_partition()
        known = [link.link for name, link in context.links if name in parts and parts[name].contains(link.offset)]
        checked.compare("links", stored, Counter(set(known)), log.stream_name)
        checked.compare("ledger of links", _counts_of(graph), _counts_in(log, graph, pins, profile.clock_skew_us))
        if at_head:
            checked.compare("ledger of links", graph.basis, log.ends(), "the head")


def _counts_of(graph: GraphRow) -> tuple[int, ...]:
    return graph.records, graph.links + graph.copies, graph.ignored_records, graph.other_run, graph.failures


def _counts_in(log: EventLog, graph: GraphRow, pins: ContextPins, clock_skew_us: int) -> tuple[int, ...]:
    """The same counts, from the stream up to the basis of the graph."""
    counts = [0] * 5
    for part in graph.basis.partitions:
        at = log.position_kind.start(part.partition_id)
        while place(at) < place(part):
            batch = log.read(part.partition_id, at, min(_PAGE, place(part) - place(at)))
            said = read_context(batch, pins, clock_skew_us)
            new = (len(batch) + len(batch.unreadable), len(said.links), said.ignored_records, said.other_run, len(said.failures))
            counts = [count + more for count, more in zip(counts, new, strict=True)]
            at = batch.next
    return tuple(counts)
