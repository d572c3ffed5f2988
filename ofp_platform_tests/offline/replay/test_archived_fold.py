"""A replay folded by several processes is the replay folded by one, whatever it is made of and wherever it breaks."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
from bisect import bisect_right
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_reader import ReplayReader
from ofp_platform.log.archive_segment import SegmentDamaged
from ofp_platform.log.archive_store import Archive, ReceiptDamaged, SegmentMissing
from ofp_platform.log.incarnations import ONE_HISTORY, IncarnationStart, LogHistory
from ofp_platform.log.port import EventLog, PartitionInfo, RecordBatch, RefusalReason, UnreadableRecord
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.log.span_records import ReplayGap
from ofp_platform.offline.replay.archived_fold import FoldSettings, archived_fold
from ofp_platform.offline.replay.candidate_rows import CandidateScope, candidate_scope
from ofp_platform.offline.replay.event_identities import applied_records
from ofp_platform.offline.replay.event_index import EventIndex
from ofp_platform.offline.replay.event_names import EventNames
from ofp_platform.offline.replay.key_shards import event_width, read_shard
from ofp_platform.offline.replay.known_events import FoldedReplay, fold_replay
from ofp_platform.offline.replay.memory_budget import FoldSizes
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_intent import PerEvent
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan, ReplayBasis
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, PositionKind, order, place
from ofp_platform_tests.oracle.fold import Record, time_text
from ofp_platform_tests.oracle.no_ledger import NO_LEDGER
from ofp_platform_tests.oracle.replayed import STREAM, part_basis, record_batches, world_registry
from ofp_platform_tests.oracle.strategies import ACCOUNTS, MERCHANTS, PINS, SECOND, SKEW, START

RUN = ContextPins(**PINS)
PARTITIONS = ("p0", "p1", "p2", "p3")


@dataclass
class SeveralLists:
    """A log of one batch per partition. `position_kind` and `stream_name` as any log has them."""

    whole: dict[str, RecordBatch]
    dense: bool
    stream_name: str = STREAM
    history: LogHistory = ONE_HISTORY

    @property
    def position_kind(self) -> PositionKind:
        return PositionKind(self.offset_kind, has_gaps=not self.dense)

    @property
    def offset_kind(self) -> OffsetKind:
        return OffsetKind.EXCLUSIVE_NEXT if self.dense else OffsetKind.AFTER_SEQUENCE_NUMBER

    def read(self, partition_id: str, basis: PartitionBasis, max_records: int) -> RecordBatch:
        whole = self.whole[partition_id]
        start = bisect_right(whole.offsets, place(basis), key=order)
        stop = min(start + max_records, len(whole))
        behind = self.at(partition_id, stop)
        columns = {name: getattr(whole, name) for name in RecordBatch.__dataclass_fields__}
        parts = {name: column[start:stop] for name, column in columns.items() if name not in ("partition_id", "pins", "next")}
        unreadable = tuple(one for one in whole.unreadable if place(basis) < order(one.offset) <= place(behind))
        return replace(whole, **parts | {"next": behind, "unreadable": unreadable})

    def at(self, partition_id: str, count: int) -> PartitionBasis:
        """The basis of a partition behind that many readable records."""
        whole = self.whole[partition_id]
        if count == len(whole):
            return whole.next
        offset = whole.offsets[count] if self.dense else (whole.offsets[count - 1] if count else "")
        return PartitionBasis(partition_id=partition_id, offset_kind=self.offset_kind, offset=offset)

    def basis(self, counts: dict[str, int]) -> Basis:
        return Basis(stream_name=STREAM, partitions=tuple(self.at(name, counts[name]) for name in sorted(counts)))

    def retention_floor(self) -> Basis:
        return self.basis(dict.fromkeys(self.whole, 0))

    def partitions(self) -> list[PartitionInfo]:
        return [PartitionInfo(name, closed=False) for name in sorted(self.whole)]

    def demand_settled(self) -> None:
        """It loses no record."""

    def accepted_ends(self) -> dict[str, PartitionBasis]:
        return {}

    def demand(self, known_ends: object) -> None:
        """It loses no partition."""


@dataclass
class NoRanges:
    """No range is closed: a partition is archived as one segment up to the basis."""

    log: EventLog
    size: int = 10**6
    pool: Pool = NO_LEDGER

    def closed(self) -> dict[str, Any]:
        return {}


@dataclass
class World:
    """A log, what of it is archived, and the fold of all of it by one process."""

    log: SeveralLists
    archive: Archive
    cut_over: tuple[PartitionBasis, ...]
    scope: CandidateScope | None = None

    @property
    def spans(self) -> tuple[PartitionSpan, ...]:
        counts = {name: len(whole) for name, whole in self.log.whole.items()}
        return ReplayBasis.up_to(self.log.basis(counts)).partitions

    @property
    def reader(self) -> ReplayReader:
        return ReplayReader(cast(EventLog, self.log), self.archive)

    def settings(self, folder: Path) -> FoldSettings:
        return FoldSettings(world_registry().pack, RUN, SKEW, self.log.history, folder, FoldSizes(shards=3), self.scope)

    def alone(self, folder: Path) -> FoldedReplay:
        batches = (batch for span in self.spans for batch in self.reader.batches(span, 7))
        return fold_replay(batches, world_registry(), RUN, SKEW, folder, shards=3, scope=self.scope)

    def together(self, folder: Path, workers: int, least_records: int = 0) -> FoldedReplay | None:
        """None: the processes have nothing to do."""
        replayed = (self.archive, self.spans, self.cut_over, world_registry(), self.settings(folder))
        with archived_fold(*replayed, workers=workers, least_records=least_records) as begun:
            if begun is None:
                assert not folder.exists()
                return None
            return begun.finish(batch for span in begun.remaining_spans for batch in self.reader.batches(span, 7))


def records_of(random_numbers: random.Random, count: int) -> list[Record]:
    """Records with copies in other partitions, ids with several contents, foreign runs, types and broken payloads."""
    numbers, ends, found = random_numbers, dict.fromkeys(PARTITIONS, 0), []
    for _ in range(count):
        payload: dict[str, Any] = {"account_id": numbers.choice(ACCOUNTS), "merchant_id": numbers.choice(MERCHANTS)}
        if numbers.random() < 0.1:
            del payload["account_id"]
        envelope = {
            "event_id": f"e-{numbers.randrange(count // 2)}",
            "event_type": numbers.choice(["report"] * 9 + ["unknown"]),
            "schema_version": "1",
            "ts_utc": time_text(START + numbers.choice([0, 1, 2, 3, 40]) * 10 * SECOND),
            **PINS,
            "payload": payload,
        }
        if numbers.random() < 0.05:
            envelope["run_id"] = "another"
        for _ in range(numbers.choice([1, 1, 2])):
            partition = numbers.choice(PARTITIONS)
            found.append(Record(partition, ends[partition], START + numbers.randrange(40, 60) * SECOND, envelope))
            ends[partition] += 1
    return found


def amendments_of(numbers: random.Random, count: int) -> list[Record]:
    """Payments, and before or behind each, in another partition, the amendments of some of them."""
    ends, found = dict.fromkeys(PARTITIONS, 0), []

    def add(envelope: dict[str, Any]) -> None:
        partition = numbers.choice(PARTITIONS)
        found.append(Record(partition, ends[partition], START + 50 * SECOND, envelope))
        ends[partition] += 1

    for number in range(count):
        payload = {"account_id": numbers.choice(ACCOUNTS), "merchant_id": numbers.choice(MERCHANTS), "unread": 1}
        payload |= {"amount": number, "status": "ok", "shop": "x", "online": True}
        at = time_text(START + numbers.randrange(4) * SECOND)
        payment = {"event_id": f"e-{number}", "event_type": "payment", "schema_version": "1", "ts_utc": at, **PINS}
        envelopes: list[dict[str, Any]] = [{**payment, "payload": payload}]
        for ordinal in range(numbers.choice((0, 0, 1, 2))):
            amends = {
                "event_class": "payment",
                "event_id": f"e-{number}",
                "ts_utc": at,
                "kind": numbers.choice(("void", "replace")),
            }
            own = {"event_id": f"a-{number}-{ordinal}", "ts_utc": time_text(START + (5 + numbers.randrange(9)) * SECOND)}
            envelopes.append({**payment, **own, "amends": amends, "payload": {**payload, "amount": 7}})
        numbers.shuffle(envelopes)
        for envelope in envelopes:
            add(envelope)
    return found


def amending_world(seed: int, folder: Path) -> World:
    return world_of(seed, folder, dense=True, records=amendments_of(random.Random(seed), 60))


def world_of(
    seed: int, folder: Path, *, dense: bool, scope: bool = True, count: int = 150, records: list[Record] | None = None
) -> World:
    numbers = random.Random(seed)
    made = records_of(numbers, count) if records is None else records
    whole = {batch.partition_id: batch for batch in record_batches(made, 10**6, dense=dense)}
    last = whole["p3"]  # its last positions have no readable record
    after = [part_basis("p3", len(last) + more, dense=dense) for more in (1, 2)]
    at = len(last) if dense else after[0].offset
    unreadable = UnreadableRecord(at, RefusalReason.INVALID_ENVELOPE, "no envelope")
    whole["p3"] = replace(last, unreadable=(unreadable,), next=after[0])
    log = SeveralLists(dict(sorted(whole.items())), dense)
    archive = Archive(ObjectStore(str(folder / "objects")), STREAM)
    # one whole, one not at all, one up to somewhere, one up to somewhere in two segments that overlap
    counts = {"p0": len(whole["p0"]), "p2": numbers.randrange(5, len(whole["p2"])), "p3": len(whole["p3"]) - 1}
    planned = {**counts, "p2": counts["p2"] - 4}  # the archive has grown since
    for part in ({**counts, "p3": 5}, counts):
        archive_up_to(cast(OffsetRanges, NoRanges(cast(EventLog, log))), archive, log.basis(part))
    wanted = PerEvent(event_types=["report"]) if scope else None
    candidates = None if wanted is None else candidate_scope(wanted, world_registry(), [*world_registry().groups.values()])
    return World(log, archive, log.basis(planned).partitions, candidates)


def content(found: FoldedReplay) -> dict[str, Any]:
    """Everything that a replay says, without the order that is nobody's."""
    registry = world_registry()
    shards: dict[Any, Any] = {}
    for name, layout in registry.layouts.items():
        for shard in range(found.shards):
            rows = read_shard(found.folder / f"events-{name}", shard, event_width(layout))
            shards[name, shard] = sorted(map(tuple, rows.tolist()))
            events = found.events(registry, name, shard)
            shards[name, shard, "sorted"] = [getattr(events, column).tolist() for column in events.__dataclass_fields__]
    candidates: list[Any] = []
    for path in found.candidate_files if found.scope else ():
        with closing(pa.memory_map(str(path))) as source:
            candidates += map(repr, pa.ipc.open_stream(source).read_all().to_pylist())
    numbers = range(len(found.partitions))
    applied = [row for table in applied_records(found.folder) for row in table.to_pylist()]
    positions = {number: [row["position"] for row in applied if row["partition"] == number] for number in numbers}
    index, names = EventIndex(found, registry), EventNames(found)
    known = index.events("account", [ACCOUNTS[0]], np.array([-(2**62)]), np.array([2**62]))
    parts = {
        number: [end, end.model_copy(update={"offset": 3 if isinstance(end.offset, int) else "30"})]
        for number, end in enumerate(found.ends)
    }
    return {
        "facts": replace(found, folder=Path()),
        "shards": shards,
        "candidates": sorted(candidates),
        "keys": {name: found.key_ids(name) for name in registry.layouts},
        "maxima": [found.maxima(number).tolist() for number in numbers],
        "bounds": [found.bounds(number, parts[number]).tolist() for number in numbers],
        "positions": positions,
        "names": names.refs(known, np.arange(known.matrix.shape[1])),
    }


@pytest.mark.parametrize(
    ("seed", "dense", "scope", "workers"), [(1, True, True, (2, 3)), (2, False, True, (3,)), (3, True, False, (2,))]
)
def test_processes_fold_what_one_folds(tmp_path: Path, seed: int, dense: bool, scope: bool, workers: tuple[int, ...]) -> None:
    world = world_of(seed, tmp_path, dense=dense, scope=scope)
    wanted = content(world.alone(tmp_path / "alone"))
    assert wanted["facts"].anomalies
    assert min(getattr(wanted["facts"], name) for name in ("duplicates", "failed", "other_run", "ignored")) > 0
    assert [positions == sorted(positions) for positions in wanted["positions"].values()] == [True] * len(PARTITIONS)
    for count in workers:
        found = world.together(tmp_path / str(count), count)
        assert found is not None
        assert content(pickle.loads(pickle.dumps(found))) == wanted
        assert sorted(int(path.stem) for path in (found.folder / "records").iterdir()) == list(range(count + 1))


def test_processes_know_the_histories_of_the_log(tmp_path: Path) -> None:
    world = world_of(8, tmp_path, dense=True)
    world.log.history = LogHistory((IncarnationStart("another", {"p0": 3, "p2": 2, "p3": 7}),))
    wanted = content(world.alone(tmp_path / "alone"))
    found = world.together(tmp_path / "together", 2)
    assert found is not None
    assert content(found) == wanted
    assert {end.incarnation for end in found.ends} == {"another", None}


def test_what_is_not_worth_processes_is_left(tmp_path: Path) -> None:
    world = world_of(4, tmp_path, dense=True)
    archived = sum(cast(int, part.offset) for part in world.cut_over)
    assert world.together(tmp_path / "fold", 1) is None
    assert world.together(tmp_path / "fold", 2, archived + 1) is None
    assert replace(world, cut_over=world.cut_over[:1]).together(tmp_path / "fold", 2) is None
    here = replace(world.archive, store=OnlyHere(world.archive.store.url))
    assert replace(world, archive=here).together(tmp_path / "fold", 2) is None


class OnlyHere(ObjectStore):
    def __reduce__(self) -> Any:
        raise TypeError("this store lives in one process")


def damage(world: World, folder: Path, what: str) -> None:
    paths = sorted(path for path in folder.rglob(f"{what}/*") if path.parent.parent.name in ("p2", "p0"))
    for path in paths:
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_the_first_error_by_partition_comes_out_as_it_is(tmp_path: Path) -> None:
    world = world_of(5, tmp_path, dense=True)
    damage(world, tmp_path, "segments")
    with pytest.raises(SegmentDamaged, match="p0/segments"):
        world.together(tmp_path / "segments", 2)
    damage(world, tmp_path, "receipts")
    with pytest.raises(ReceiptDamaged, match="p0/receipts") as caught:
        world.together(tmp_path / "receipts", 2)
    assert any("Traceback" in note for note in caught.value.__notes__)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    world = world_of(6, tmp_path, dense=True)
    for path in tmp_path.rglob("p3/segments/*"):
        path.unlink()
    with pytest.raises(SegmentMissing, match="p3/segments"):
        world.together(tmp_path / "segments", 2)
    for path in tmp_path.rglob("p2/receipts/*"):
        path.unlink()
    with pytest.raises(ReplayGap, match="partition p2"):
        world.together(tmp_path / "receipts", 2)


def children() -> set[int]:
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "spawn_main"], capture_output=True, text=True, check=False)
    return set(map(int, found.stdout.split()))


def test_nothing_is_left_running(tmp_path: Path) -> None:
    world, before = world_of(7, tmp_path, dense=True), children()
    arguments = (world.archive, world.spans, world.cut_over, world_registry())
    with archived_fold(*arguments, world.settings(tmp_path / "left"), workers=2, least_records=0):
        assert len(children() - before) == 2
    assert children() == before
    with archived_fold(*arguments, world.settings(tmp_path / "killed"), workers=2, least_records=0) as begun:
        assert begun is not None
        for pid in children() - before:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="exit code -9"):
            begun.finish([])
    assert children() == before
