"""The fold of a replay: records of a log, in any order of partitions, to the set of events that is known.

One pass, in bounded memory: what a record means is decided by its batch alone (run, skew, router), and everything that needs
other records (copies, anomalies, the order of a key's events) is left to shards on disk. The same rules as the projector's:
`registry.belonging` and `registry.routing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.candidate_rows import CandidateScope, CandidateWriter
from ofp_platform.offline.key_shards import (
    EventShard,
    KeyDigests,
    ShardSpool,
    event_rows,
    event_shard,
    event_width,
    read_shard,
    shard_of,
)
from ofp_platform.registry.apply_failure import ApplyFailureReason
from ofp_platform.registry.belonging import belonging
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.routing import APPLIED, UNKNOWN_TYPE, Router
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import OffsetKind, PartitionBasis, order

Int64s = npt.NDArray[np.int64]
DEFAULT_SHARDS = 16
_IDENTITY_WIDTH = 5  # id high, id low, tie high, tie low, ordinal of the record
_NUMBER_BYTES = 56  # a sparse offset as a big-endian number: 128 digits are less than 2^426
_RECORDS = pa.schema(
    [("event_id", pa.string()), ("event_type", pa.string()), ("partition", pa.int32()), ("position", pa.int64())]
)


@dataclass(frozen=True)
class EventAnomaly:
    """One event id with several contents: where each of its records stands, (partition id, offset)."""

    event_type: str
    event_id: str
    positions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FoldedReplay:
    """What a replay folded to; small itself, the events lie in `folder`. Can be sent to other processes.

    Every record has one fate: `applied` (the events: distinct contents), `duplicates`, `ignored` (a type that the pack does
    not have), `other_run`, `failed` (by reason in `failures`). `watermark`: greatest event time, microseconds.
    `partitions`: names by number, `ends`: the basis behind each. `candidates`: records that may become rows of a
    per-event scope, copies included.
    """

    folder: Path
    registry_digest: str
    shards: int
    partitions: tuple[str, ...]
    ends: tuple[PartitionBasis, ...]
    records: int
    applied: int
    duplicates: int
    ignored: int
    other_run: int
    failures: Mapping[str, int]
    anomalies: tuple[EventAnomaly, ...]
    watermark: int | None
    scope: CandidateScope | None
    candidates: int

    @property
    def failed(self) -> int:
        """Records that could not be applied."""
        return sum(self.failures.values())

    @property
    def candidate_file(self) -> Path:
        """The Arrow stream of the candidates."""
        return self.folder / "candidates.arrow"

    def events(self, registry: CompiledRegistry, key_type: str, shard: int) -> EventShard:
        """The events of one shard of keys."""
        layout = registry.layouts[key_type]
        return event_shard(read_shard(self.folder / f"events-{key_type}", shard, event_width(layout)), layout)

    def key_ids(self, key_type: str) -> list[str]:
        """Every entity of that type that a known event touches, sorted."""
        path = self.folder / f"keys-{key_type}.txt"
        return sorted(set(path.read_text(encoding="ascii").split("\n")) - {""}) if path.exists() else []

    def maxima(self, partition: int) -> Int64s:
        """int64[r, 2]: where the greatest event time of a partition's applied events rises: position (see `EventShard`) of
        the record, and its time in microseconds."""
        path = self.folder / f"maxima-{partition}.bin"
        return (np.fromfile(path, np.int64) if path.exists() else np.empty(0, np.int64)).reshape(-1, 2)

    def offset_text(self, partition: int, position: int) -> str:
        """The offset of the record at a position (see `EventShard`), as text."""
        if self.ends[partition].offset_kind is OffsetKind.EXCLUSIVE_NEXT:
            return str(position)
        with (self.folder / f"offsets-{partition}.bin").open("rb") as file:
            file.seek(position * _NUMBER_BYTES)
            return str(int.from_bytes(file.read(_NUMBER_BYTES), "big"))

    def bounds(self, partition: int, parts: Sequence[PartitionBasis | None]) -> Int64s:
        """int64[n]: `bound` of many bases of one partition (None: nothing of it)."""
        if self.ends[partition].offset_kind is OffsetKind.EXCLUSIVE_NEXT:
            return np.array([0 if part is None else order(part.offset) for part in parts], np.int64)
        path = self.folder / f"offsets-{partition}.bin"
        numbers = np.fromfile(path, f"S{_NUMBER_BYTES}") if path.exists() else np.empty(0, f"S{_NUMBER_BYTES}")
        given = np.array([part is not None and part.offset != "" for part in parts], np.bool_)
        tokens = np.array([_number(0 if part is None else order(part.offset)) for part in parts], f"S{_NUMBER_BYTES}")
        return np.where(given, np.searchsorted(numbers, tokens, side="right"), 0).astype(np.int64)

    def bound(self, part: PartitionBasis) -> int:
        """How far that basis reaches in this replay: a record is before it when its position (see `EventShard`) is less."""
        if part.offset_kind is OffsetKind.EXCLUSIVE_NEXT:
            return order(part.offset)
        if part.partition_id not in self.partitions:
            return 0
        if part.offset == "":
            return 0
        path = self.folder / f"offsets-{self.partitions.index(part.partition_id)}.bin"
        numbers = np.fromfile(path, f"S{_NUMBER_BYTES}")
        token = np.array([_number(order(part.offset))], f"S{_NUMBER_BYTES}")
        return int(np.searchsorted(numbers, token, side="right")[0])


def fold_replay(
    batches: Iterable[RecordBatch],
    registry: CompiledRegistry,
    pins: ContextPins,
    clock_skew_us: int,
    scratch: Path,
    *,
    shards: int = DEFAULT_SHARDS,
    scope: CandidateScope | None = None,
) -> FoldedReplay:
    """Fold the records of a replay, in any interleaving of partitions but each partition in its order.

    `scratch` is a folder that does not exist yet; it is left to the caller to remove. Memory is bounded by the largest batch
    and, for what follows, by the largest shard: about 100 bytes for each record of it.

    Raises:
        ValueError: a partition's records come out of order, or twice.
        FileExistsError: `scratch` exists.
    """
    scratch.mkdir(parents=True)
    fold = _Fold(registry, pins, clock_skew_us, scratch, shards, scope)
    try:
        for batch in batches:
            fold.add(batch)
    finally:
        fold.close()
    applied, duplicates, anomalies = _identities(fold)
    return FoldedReplay(
        folder=scratch,
        registry_digest=registry.digest,
        shards=shards,
        partitions=tuple(fold.partitions),
        ends=tuple(one.end for one in fold.partitions.values()),
        records=fold.counts["records"],
        applied=applied,
        duplicates=duplicates,
        ignored=fold.counts["ignored"],
        other_run=fold.counts["other_run"],
        failures=dict(sorted(fold.failures.items())),
        anomalies=anomalies,
        watermark=fold.watermark,
        scope=scope,
        candidates=0 if fold.candidates is None else fold.candidates.records,
    )


@dataclass
class _Partition:
    """One partition while it is read."""

    number: int
    end: PartitionBasis
    last: int = -1
    records: int = 0
    newest: int = -(2**63)


@dataclass
class _Fold:
    """The state of a fold: counters and open files."""

    registry: CompiledRegistry
    pins: ContextPins
    clock_skew_us: int
    folder: Path
    shards: int
    scope: CandidateScope | None
    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    partitions: dict[str, _Partition] = field(default_factory=dict)
    watermark: int | None = None
    ordinal: int = 0

    def __post_init__(self) -> None:
        layouts = self.registry.layouts
        self.router = Router(self.registry)
        self.digests = {name: KeyDigests() for name in layouts}
        self.spools = {
            name: ShardSpool(self.folder / f"events-{name}", event_width(layout), self.shards) for name, layout in layouts.items()
        }
        self.identities = ShardSpool(self.folder / "identities", _IDENTITY_WIDTH, self.shards)
        path = self.folder / "candidates.arrow"
        self.candidates = None if self.scope is None else CandidateWriter(path, self.scope, self.registry)
        self.records_sink = pa.OSFile(str(self.folder / "records.arrow"), "wb")
        self.records_writer = pa.ipc.new_file(self.records_sink, _RECORDS)

    def close(self) -> None:
        for spool in (*self.spools.values(), self.identities):
            spool.flush()
        if self.candidates is not None:
            self.candidates.close()
        self.records_writer.close()
        self.records_sink.close()

    def add(self, batch: RecordBatch) -> None:
        partition = self._partition(batch)
        self.counts["records"] += len(batch) + len(batch.unreadable)
        self.failures.update([ApplyFailureReason.MALFORMED_PAYLOAD.value] * len(batch.unreadable))
        if not len(batch):
            return
        positions = self._positions(partition, batch)
        mine = belonging(self.pins, batch.pins, batch.pins_index, batch.ts, batch.admitted_at, self.clock_skew_us)
        self.counts["other_run"] += int(mine.other_run.sum())
        for reason, mask in ((ApplyFailureReason.WRONG_PINS, mine.wrong_pins), (ApplyFailureReason.FUTURE_EVENT, mine.future)):
            if mask.any():
                self.failures[reason.value] += int(mask.sum())
        own = np.flatnonzero(mine.own)
        if not len(own):
            return
        everything = len(own) == len(batch)
        indices = own.tolist()

        def take(values: list[str] | list[bytes]) -> list[str] | list[bytes]:
            return values if everything else [values[index] for index in indices]  # type: ignore[return-value]

        event_types, event_ids = take(batch.event_types), take(batch.event_ids)
        routed = self.router.route(event_types, event_ids, batch.ts[own], take(batch.payload_hashes), take(batch.payloads))  # type: ignore[arg-type]
        self.counts["ignored"] += int((routed.status == UNKNOWN_TYPE).sum())
        self.failures.update(failure.reason.value for failure in routed.failures)
        applied = routed.status == APPLIED
        if not applied.any():
            return
        newest = int(batch.ts[own][applied].max())
        self.watermark = newest if self.watermark is None else max(self.watermark, newest)
        self._note_maxima(partition, positions[own[applied]], batch.ts[own[applied]])
        self._identify(batch, own[applied], partition, positions, routed.id_digest[applied], routed.tie_digest[applied])
        ties = routed.tie_digest.view(np.int64)
        digests = {}
        for key_type, touched in routed.touched.items():
            index = touched.record_index
            high, low, new = self.digests[key_type].columns(touched.key_ids)
            digests[key_type] = high, low
            rows = event_rows(
                self.registry.layouts[key_type], (high, low), ties[index], batch.admitted_at[own[index]],
                partition.number, positions[own[index]], touched.matrix,
            )  # fmt: skip
            self.spools[key_type].add(shard_of(high, self.shards), rows)
            self._note_keys(key_type, new)
        if self.candidates is not None:
            self.candidates.add(batch, own, routed, applied, digests)

    def _partition(self, batch: RecordBatch) -> _Partition:
        known = self.partitions.get(batch.partition_id)
        if known is None:
            known = self.partitions[batch.partition_id] = _Partition(len(self.partitions), batch.next)
        known.end = batch.next
        return known

    def _positions(self, partition: _Partition, batch: RecordBatch) -> Int64s:
        """int64[n]: offsets of a dense log; of a sparse one how many records of the partition come before."""
        dense = partition.end.offset_kind is OffsetKind.EXCLUSIVE_NEXT
        numbers: Int64s | list[int]
        numbers = np.array(batch.offsets, np.int64) if dense else [order(offset) for offset in batch.offsets]
        ascending = (np.diff(numbers) > 0).all() if dense else sorted(set(numbers)) == numbers
        if numbers[0] <= partition.last or not ascending:
            raise ValueError(f"the records of partition {batch.partition_id!r} come out of order at offset {batch.offsets[0]}")
        partition.last = int(numbers[-1])
        if isinstance(numbers, np.ndarray):
            return numbers
        start, partition.records = partition.records, partition.records + len(batch)
        with (self.folder / f"offsets-{partition.number}.bin").open("ab") as file:
            file.write(b"".join(_number(number) for number in numbers))
        return np.arange(start, partition.records)

    def _identify(
        self,
        batch: RecordBatch,
        where: Int64s,
        partition: _Partition,
        positions: Int64s,
        ids: npt.NDArray[np.uint64],
        ties: npt.NDArray[np.uint64],
    ) -> None:
        count = len(where)
        rows = np.empty((count, _IDENTITY_WIDTH), np.int64)
        rows[:, 0:2] = ids.view(np.int64)
        rows[:, 2:4] = ties.view(np.int64)
        rows[:, 4] = np.arange(self.ordinal, self.ordinal + count)
        self.ordinal += count
        self.identities.add(shard_of(rows[:, 0].copy(), self.shards), rows)
        indices = where.tolist()
        everything = count == len(batch)
        columns = [
            batch.event_ids if everything else [batch.event_ids[index] for index in indices],
            batch.event_types if everything else [batch.event_types[index] for index in indices],
            np.full(count, partition.number, np.int32),
            positions[where],
        ]
        arrays = [pa.array(column, one.type) for column, one in zip(columns, _RECORDS, strict=True)]
        self.records_writer.write_batch(pa.record_batch(arrays, schema=_RECORDS))

    def _note_maxima(self, partition: _Partition, positions: Int64s, ts: Int64s) -> None:
        """Keep where the greatest event time of the partition rises."""
        running = np.maximum.accumulate(ts)
        before = np.concatenate([[partition.newest], running[:-1]])
        rises = running > np.maximum(before, partition.newest)
        if rises.any():
            with (self.folder / f"maxima-{partition.number}.bin").open("ab") as file:
                file.write(np.stack([positions[rises], running[rises]], axis=1).tobytes())
            partition.newest = int(running[-1])

    def _note_keys(self, key_type: str, key_ids: list[str]) -> None:
        """Write key ids down, for the scopes that ask for every entity; one may be noted more than once."""
        if key_ids:
            with (self.folder / f"keys-{key_type}.txt").open("a", encoding="ascii") as file:
                file.writelines(f"{key_id}\n" for key_id in key_ids)


def _number(number: int) -> bytes:
    return max(number, 0).to_bytes(_NUMBER_BYTES, "big")


def _identities(fold: _Fold) -> tuple[int, int, tuple[EventAnomaly, ...]]:
    """How many events, how many copies besides, and the ids with several contents."""
    events = 0
    conflicts: list[list[int]] = []
    for shard in range(fold.shards):
        rows = read_shard(fold.identities.folder, shard, _IDENTITY_WIDTH)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        same = rows[1:, 0] == rows[:-1, 0]
        inside = np.zeros(len(rows), np.bool_)
        inside[1:] |= same
        inside[:-1] |= same
        events += int((~inside).sum())
        found = list(_contents(rows[inside].tolist()))
        events += sum(len(contents) for contents in found)
        conflicts += [[ordinal for ordinals in contents for ordinal in ordinals] for contents in found if len(contents) > 1]
    return events, fold.ordinal - events, tuple(sorted(_told(fold, conflicts), key=lambda one: (one.event_type, one.event_id)))


def _contents(rows: list[list[int]]) -> Iterator[list[list[int]]]:
    """Per event id, per content, the ordinals of its records."""
    ids: dict[tuple[int, int], dict[tuple[int, int], list[int]]] = {}
    for id_high, id_low, tie_high, tie_low, ordinal in rows:
        ids.setdefault((id_high, id_low), {}).setdefault((tie_high, tie_low), []).append(ordinal)
    for contents in ids.values():
        yield list(contents.values())


def _told(fold: _Fold, conflicts: list[list[int]]) -> Iterator[EventAnomaly]:
    if not conflicts:
        return
    names = list(fold.partitions)
    with pa.memory_map(str(fold.folder / "records.arrow")) as source:
        records = pa.ipc.open_file(source).read_all()
        for ordinals in conflicts:
            rows = records.take(sorted(ordinals)).to_pylist()
            positions = sorted((names[row["partition"]], row["position"]) for row in rows)
            told = tuple((name, _offset_text(fold, name, position)) for name, position in positions)
            yield EventAnomaly(min(row["event_type"] for row in rows), rows[0]["event_id"], told)


def _offset_text(fold: _Fold, name: str, position: int) -> str:
    partition = fold.partitions[name]
    if partition.end.offset_kind is OffsetKind.EXCLUSIVE_NEXT:
        return str(position)
    with (fold.folder / f"offsets-{partition.number}.bin").open("rb") as file:
        file.seek(position * _NUMBER_BYTES)
        return str(int.from_bytes(file.read(_NUMBER_BYTES), "big"))
