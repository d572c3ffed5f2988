"""Streamers that are killed while they send a sealed world through the door, until one of them has nothing left to send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from ofp_platform.cli.files.run_door import door_of
from ofp_platform.ingress.batches import BatchReceipt
from ofp_platform.ingress.committing_door import CommittingDoor
from ofp_platform.ingress.gate import Passed
from ofp_platform.ingress.receipt_block import PlacedAt
from ofp_platform.ingress.reconciliation import reconcile_ingress
from ofp_platform.online.plane import Plane
from ofp_platform.simulation.payments import PaymentSimulation
from ofp_platform.storage.objects import open_objects
from ofp_platform.vocabulary.position import place
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.world import streamer
from ofp_platform.world.makers import payments_world
from ofp_platform.world.world_store import open_world, seal_world, write_world
from ofp_platform_tests.torture.kills.check import Checked
from ofp_platform_tests.torture.kills.victim_pool import Kill, VictimPool, killed_until_done
from ofp_platform_tests.torture.kills.world import World

POINTS = ("ingress.appended", "ingress.recorded", "ingress.after_commit")
SEALED = "killed"
_BATCH_RECORDS = 25
_PAGE = 5_000


def with_sealed_world(world: World, stream_name: str, folder: Path, payments: int, seed: int) -> Profile:
    """The profile of a run of its own, with a stream of its own and a sealed world of payments in an object store of its own."""
    folder.mkdir()
    pins = world.profile.context_pins.model_copy(update={"run_id": stream_name})
    update = {"stream_name": stream_name, "context_pins": pins, "object_store_url": f"file://{folder / 'objects'}"}
    profile = world.profile.model_copy(update=update)
    objects = open_objects(profile)
    made = payments_world(PaymentSimulation(pins, payments=payments, seed=seed))
    write_world(objects, SEALED, made.maker, made.outputs)
    seal_world(objects, SEALED)
    return profile


def stream_world(profile: Profile, dsn: str) -> int:
    """Send what is not sent yet, a few records at a time; how many rows were sent in all."""
    with Plane.open(profile, dsn, max_connections=3) as plane:
        return stream_through(plane, door_of(plane).admit)


def stream_world_torn(profile: Profile, dsn: str) -> int:
    """The same, through a door that commits the records before their receipts: the negative control."""
    with Plane.open(profile, dsn, max_connections=3) as plane:
        whole = door_of(plane)
        assert isinstance(whole, CommittingDoor)
        torn = TornDoor(whole.pool, whole.traffic, whole.context, whole.objects, whole.gate, whole.run_number)
        return stream_through(plane, torn.admit)


def stream_through(plane: Plane, admit: Callable[..., BatchReceipt]) -> int:
    """Send what is not sent yet of the sealed world through a door; how many rows were sent in all."""

    def send(envelopes: Sequence[Mapping[str, Any]], admitted_at: Sequence[int] | None) -> Mapping[str, int]:
        return Counter(one.outcome.value for one in admit(envelopes, "streamer", admitted_at).outcomes)

    pace = streamer.Pace(0, lambda: 0.0, lambda _: None)
    sealed = open_world(plane.objects, SEALED)
    pins = plane.profile.context_pins
    streaming = streamer.Streamer(sealed, pins, plane.pool, send, pace, as_arrived=True, batch_records=_BATCH_RECORDS)
    return streaming.run().rows


class TornDoor(CommittingDoor):
    """Appends records in a transaction of their own, and writes their receipts in another one."""

    def _append(
        self, connection: psycopg.Connection[Any], new: dict[int, Passed], admitted_at: Sequence[int] | None
    ) -> dict[int, PlacedAt]:
        with self.pool.connection() as other, other.transaction():
            return super()._append(other, new, admitted_at)


def kill_streamers(
    world: World, victim_pool: VictimPool, folder: Path, payments: int, rng: Random, name: str = "killed-ingress"
) -> tuple[Counter[str], Checked]:
    """Stream a world by streamers that are killed; what killed them how often, and what was checked after every few of them."""
    profile = with_sealed_world(world, name, folder, payments, rng.randrange(1_000))
    kills: Counter[str] = Counter()
    checked = Checked()
    for kills in killed_until_done(victim_pool, stream_world, profile, world.dsn, points=POINTS, most_passages=4, rng=rng):
        if sum(kills.values()) % 10 == 0:
            check_ingress(profile, world.dsn, checked)
    check_ingress(profile, world.dsn, checked, is_done=True)
    return kills, checked


def check_without_guard(world: World, victim_pool: VictimPool, folder: Path) -> Checked:
    """The same check of a door that commits the records first."""
    profile = with_sealed_world(world, "torn-ingress", folder, 300, 0)
    victim_pool.run(stream_world_torn, profile, world.dsn, kill=Kill("ingress.recorded", 2))
    victim_pool.run(stream_world_torn, profile, world.dsn)
    checked = Checked()
    check_ingress(profile, world.dsn, checked, is_done=True)
    return checked


def check_ingress(profile: Profile, dsn: str, checked: Checked, *, is_done: bool = False) -> None:
    """Receipts balance, and agree with the log record by record; at the end each event of the world is in it, once."""
    with Plane.open(profile, dsn, max_connections=3) as plane:
        class_map = door_of(plane).class_map
        with plane.pool.connection() as connection:
            result = reconcile_ingress(connection, profile.context_pins, class_map, plane.log, None)
        checked.compare("receipts", (result.differing, result.differences), (0, []), plane.log.stream_name)
        in_log: Counter[tuple[str, str]] = Counter()
        for part in plane.log.ends().partitions:
            at = plane.log.position_kind.start(part.partition_id)
            while place(at) < place(part):
                batch = plane.log.read(part.partition_id, at, _PAGE)
                in_log.update(zip(batch.event_types, batch.event_ids, strict=True))
                at = batch.next
        expected = _events_of(profile)
        names = in_log if not is_done else expected
        checked.compare("events of a world", in_log, Counter(dict.fromkeys(names, 1)), plane.log.stream_name)


def _events_of(profile: Profile) -> set[tuple[str, str]]:
    """What of the world can be admitted: it has no event of a type that the pack does not know."""
    events: set[tuple[str, str]] = set()
    for table in open_world(open_objects(profile), SEALED).events("payments"):
        rows = table.select(["event_type", "event_id", "other_run"]).to_pylist()
        events |= {(row["event_type"], row["event_id"]) for row in rows if row["other_run"] is None}
    return events
