"""Readers of Kinesis that come now and then, while shards fall silent, expire, split and merge: each reads all, or refuses."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_log import ArchivedLog
from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.port import PartitionVanished, PositionTrimmed
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.log.shard_evidence import StoredEvidence
from ofp_platform.log.span_records import ReplayGap
from ofp_platform.online.projecting import read_ahead
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.position import Basis, make_basis
from ofp_platform_tests.log.conftest import FakeKinesis
from ofp_platform_tests.oracle.strategies import PINS
from ofp_platform_tests.torture.random_worlds.store import WorldStore
from ofp_platform_tests.torture.random_worlds.world import World

_SAFE = timedelta(hours=22)
"""A reader that was at the head so long ago goes on, whatever happened: the stream keeps records for 24 hours."""

_PARENT_GONE = ("put", "reshard", "half a day", "put", "other", "half a day")
"""Steps behind which a parent is gone and its children are kept, with evidence about how they began."""

_QUIET = ("put", "read", "other", "half a day", "other", "half a day", "other", "read")
"""Steps behind which a shard was quiet for longer than its retention, and somebody saw that it was."""


@dataclass
class _Reader:
    """A stream, what was put into it, and how far somebody read it. `absent`: for longer than is safe, at some time."""

    client: FakeKinesis
    name: str
    basis: Basis
    at_head: datetime
    put: dict[str, datetime] = field(default_factory=dict)
    read: list[str] = field(default_factory=list)
    absent: bool = False
    has_half_archive: bool = False


def silences(store: WorldStore, world: World, folder: Path, counts: Counter[str]) -> tuple[object, object]:
    """How a reader fared, and how it had to: the events that it read, or "refused"."""
    rng = random.Random(f"silences {world.seed}")
    client, name = FakeKinesis(), f"silent-{world.seed}"
    archive = Archive(ObjectStore(f"file://{folder}"), name)
    log = _open(store, client, name, rng.randint(1, 2))
    reader, other = (_Reader(client, name, make_basis(name, {}), client.now) for _ in range(2))
    has_archive = rng.random() < 0.4
    longest = rng.choice((10, 20, 30, 30))
    steps = rng.choices(("put", "put", "pass", "pass", "read", "other", "reshard", "restart", "archive"), k=rng.randint(4, 12))
    if rng.random() < 0.7:
        place = rng.randint(0, len(steps) // 2)
        steps[place:place] = rng.choice((_PARENT_GONE, _QUIET))
    for step in steps:
        match step:
            case "put":
                _put(rng, log, reader)
            case "pass":
                client.pass_time(hours=rng.randint(1, longest))
                client.expire_iterators()  # Kinesis keeps them for five minutes
            case "half a day":
                client.pass_time(hours=13)
                client.expire_iterators()
            case "reshard":
                counts["resharded under readers"] += 1
                _reshard(rng, client)
            case "restart":
                log = _open(store, client, name, 1)
            case "other":
                _read(log, archive, other)  # what it sees of the shards is evidence for the first
            case "archive" if has_archive and not reader.has_half_archive:
                _archive(store, log, archive, reader, rng.choice((1, 3)))
            case "read":
                if not _read(log, archive, reader):
                    return _judged(reader, counts, is_refused=True)
    return _judged(reader, counts, is_refused=not _read(_open(store, client, name, 1), archive, reader))


def _open(store: WorldStore, client: FakeKinesis, name: str, shards: int) -> KinesisLog:
    evidence = StoredEvidence(store.pool, name)
    some: Any = client
    return KinesisLog.create(some, name, shards, "payload.a", sleep=lambda _: None, evidence=evidence)


def _put(rng: random.Random, log: KinesisLog, reader: _Reader) -> None:
    count = len(reader.put)
    envelopes = [
        {
            "event_id": f"e-{number:04d}",
            "event_type": "payment",
            "schema_version": "1",
            "ts_utc": "2024-05-01T10:00:00Z",
            **PINS,
            "payload": {"a": f"a-{rng.randrange(9)}"},
        }
        for number in range(count, count + rng.randint(1, 4))
    ]
    receipt = log.append(envelopes)
    assert not receipt.refusals, receipt.refusals[0]
    reader.put |= {str(envelope["event_id"]): reader.client.now for envelope in envelopes}


def _reshard(rng: random.Random, client: FakeKinesis) -> None:
    alive = sorted((shard.low, shard.shard_id) for shard in client.shards.values() if not shard.closed)
    if len(alive) > 1 and rng.random() < 0.4:
        place = rng.randrange(len(alive) - 1)
        client.merge(alive[place][1], alive[place + 1][1])
    else:
        client.split(rng.choice(alive)[1])


def _archive(store: WorldStore, log: KinesisLog, archive: Archive, reader: _Reader, segment_records: int) -> None:
    """Archive all of the log; an archive that fell behind the retention refuses, and stays as it is."""
    try:
        archive_up_to(OffsetRanges(store.pool, log, segment_records), archive, log.ends())
    except (PositionTrimmed, PartitionVanished, ReplayGap):
        reader.has_half_archive = True


def _read(log: KinesisLog, archive: Archive, reader: _Reader) -> bool:
    """Read to the head; whether that was possible."""
    reader.absent |= reader.client.now - reader.at_head > _SAFE
    source = ArchivedLog(log, lambda: archive)
    try:
        while batches := read_ahead.read_batches(source, read_ahead.ReadRequest(reader.basis, 100))[0]:
            for batch in batches:
                reader.read += batch.event_ids
            parts = {**reader.basis.by_partition(), **{batch.partition_id: batch.next for batch in batches}}
            reader.basis = make_basis(reader.name, parts)
    except (PositionTrimmed, PartitionVanished):
        return False
    reader.at_head = reader.client.now
    return True


def _judged(reader: _Reader, counts: Counter[str], *, is_refused: bool) -> tuple[object, object]:
    everything = sorted(reader.put)
    outcome: object = "refused" if is_refused else sorted(reader.read)
    counts["readers of Kinesis"] += 1
    counts["readers refused"] += is_refused
    counts["readers that went on"] += reader.absent and not is_refused
    if not reader.absent:
        return outcome, everything
    if is_refused:
        # an absent reader may be refused where nothing can be proved; which events are lost then, nobody could tell
        return outcome, "refused"
    return outcome, everything
