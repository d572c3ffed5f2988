"""Streamers that are killed while they publish a sealed world to a Kinesis whose answers get lost behind what it took."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

from botocore.exceptions import ReadTimeoutError

from ofp_platform.cli.files.run_door import door_of
from ofp_platform.ingress.batches import BatchReceipt
from ofp_platform.ingress.publishing_door import PublishingDoor
from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.port import LogUnavailable
from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.torture.kills.check import Checked
from ofp_platform_tests.torture.kills.streamer import check_ingress, stream_through, with_sealed_world
from ofp_platform_tests.torture.kills.victim_pool import Kill, VictimPool, killed_until_done
from ofp_platform_tests.torture.kills.world import World
from ofp_platform_tests.torture.two_of_everything.contenders import CREDENTIALS
from ofp_platform_tests.torture.two_of_everything.stores import moto

POINTS = ("publish.in_flight", "publish.sent", "publish.recorded", "publish.after_commit")
_LATE_SECONDS = 0.3
"""A server in this process is done with the request of a killed one long before."""
_PATIENCE_SECONDS = 60.0
_LOST_EVERY = 7


class LosingClient:
    """A Kinesis client that does not hear the answer to every seventh PutRecords, from a random one on."""

    def __init__(self, client: Any, rng: Random) -> None:
        self._client = client
        self._count = rng.randrange(_LOST_EVERY)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_records(self, **arguments: Any) -> Any:
        """Put them, and say it or not."""
        answer = self._client.put_records(**arguments)
        self._count += 1
        if self._count % _LOST_EVERY == 0:
            raise ReadTimeoutError(endpoint_url="kinesis")
        return answer


class ForgetfulDoor(PublishingDoor):
    """It does not look for what became of a batch: the negative control."""

    def settle(self) -> None:
        """Forget everything that was noted."""
        with self.pool.connection() as connection:
            connection.execute("DELETE FROM ofp.admission_publish_record WHERE run_number = %s", (self.run_number,))
            connection.execute("DELETE FROM ofp.admission_publish WHERE run_number = %s", (self.run_number,))


def publish_world(profile: Profile, dsn: str, seed: int) -> int:
    """Send what is not sent yet, a few records at a time; how many rows were sent in all."""
    return _publish(profile, dsn, seed, forgets=False)


def publish_world_forgetting(profile: Profile, dsn: str, seed: int) -> int:
    """The same, through a door that forgets."""
    return _publish(profile, dsn, seed, forgets=True)


def _publish(profile: Profile, dsn: str, seed: int, *, forgets: bool) -> int:
    os.environ.update(CREDENTIALS)
    with Plane.open(profile, dsn, max_connections=3) as plane:
        door = door_of(plane)
        assert isinstance(door, PublishingDoor)
        log = cast(KinesisLog, door.traffic)
        log._client = LosingClient(log._client, Random(seed))  # type: ignore[assignment]
        if forgets:
            door = ForgetfulDoor(door.pool, door.traffic, door.context, door.objects, door.gate, door.run_number)

        def admit(*arguments: Any) -> BatchReceipt:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while True:
                try:
                    return door.admit(*arguments)
                except LogUnavailable:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_LATE_SECONDS / 6)
                    if not forgets:
                        replace(door.settler, late_seconds=_LATE_SECONDS).settle()

        return stream_through(plane, admit)


@contextmanager
def published_world(world: World, name: str, folder: Path, payments: int, seed: int) -> Iterator[Profile]:
    """The profile of a run whose stream is on a Kinesis of its own."""
    with moto() as (_, endpoint):
        profile = with_sealed_world(world, name, folder, payments, seed)
        update = {"log_kind": "kinesis", "kinesis_endpoint_url": endpoint, "partitions": 2}
        yield profile.model_copy(update=update)


def kill_publishers(
    world: World, victim_pool: VictimPool, folder: Path, payments: int, rng: Random, name: str = "killed-publishers"
) -> tuple[Counter[str], Checked]:
    """Publish a world by streamers that are killed; what killed them how often, and what was checked after every few of them."""
    kills: Counter[str] = Counter()
    checked = Checked()
    with published_world(world, name, folder, payments, rng.randrange(1_000)) as profile:
        arguments = profile, world.dsn, rng.randrange(1_000)
        for kills in killed_until_done(victim_pool, publish_world, *arguments, points=POINTS, most_passages=4, rng=rng):
            if sum(kills.values()) % 10 == 0:
                _check(profile, world.dsn, checked)
        _check(profile, world.dsn, checked, is_done=True)
    return kills, checked


def check_without_guard(world: World, victim_pool: VictimPool, folder: Path) -> Checked:
    """The same check of a door that forgets what it was sending."""
    checked = Checked()
    with published_world(world, "forgotten-publishers", folder, 300, 0) as profile:
        victim_pool.run(publish_world_forgetting, profile, world.dsn, 0, kill=Kill("publish.sent", 2))
        victim_pool.run(publish_world_forgetting, profile, world.dsn, 0)
        _check(profile, world.dsn, checked, is_done=True)
    return checked


def _check(profile: Profile, dsn: str, checked: Checked, *, is_done: bool = False) -> None:
    """Settle what was left behind; then as for any door."""
    with Plane.open(profile, dsn, max_connections=3) as plane:
        door = door_of(plane)
        assert isinstance(door, PublishingDoor)
        settler = replace(door.settler, late_seconds=_LATE_SECONDS)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (settled := settler.settle()).ambiguous_count and time.monotonic() < deadline:
            time.sleep(_LATE_SECONDS / 6)
        checked.compare("left ambiguous", (settled.ambiguous_count, settled.in_flight_count), (0, 0), profile.stream_name)
    check_ingress(profile, dsn, checked, is_done=is_done)
