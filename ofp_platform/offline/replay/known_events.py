"""The fold of a replay: records of a log, in any order of partitions, to the set of events that is known.

One pass, in bounded memory: what a record means is decided by its batch alone (run, skew, router), and everything that needs
other records (copies, anomalies, the order of a key's events) is left to shards on disk. The same rules as the projector's:
`registry.belonging` and `registry.routing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.replay.candidate_rows import CandidateScope, CandidateWriter
from ofp_platform.offline.replay.event_identities import EventAnomaly, EventIdentities
from ofp_platform.offline.replay.key_shards import (
    EventShard,
    KeyDigests,
    ShardSpool,
    event_rows,
    event_shard,
    event_width,
    read_shard,
    shard_of,
)
from ofp_platform.offline.replay.sorted_shards import sorted_shard
from ofp_platform.registry.apply_failure import ApplyFailureReason
from ofp_platform.registry.belonging import belonging
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.routing import APPLIED, UNKNOWN_TYPE, Router
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import OffsetKind, PartitionBasis, order

Int64s = npt.NDArray[np.int64]
DEFAULT_SHARDS = 16
_NUMBER_BYTES = 56  # a sparse offset as a big-endian number: 128 digits are less than 2^426


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
        """The events of one shard of keys, mapped into memory; sorted when it is first asked for."""
        layout = registry.layouts[key_type]
        rows = self.folder / f"events-{key_type}"
        return sorted_shard(
            self.folder / f"sorted-{key_type}" / f"{shard:05d}",
            lambda: event_shard(read_shard(rows, shard, event_width(layout)), layout),
        )

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
        return _offset_text(self.folder, partition, self.ends[partition].offset_kind, position)

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
        return (
            int(self.bounds(self.partitions.index(part.partition_id), [part])[0]) if part.partition_id in self.partitions else 0
        )


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
    and, for what follows, by the largest shard: a few times the bytes of its rows.

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
    ends = tuple(one.end for one in fold.partitions.values())
    applied, duplicates, anomalies = fold.identities.counted(
        list(fold.partitions), lambda number, position: _offset_text(scratch, number, ends[number].offset_kind, position)
    )
    return FoldedReplay(
        folder=scratch,
        registry_digest=registry.digest,
        shards=shards,
        partitions=tuple(fold.partitions),
        ends=ends,
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

    def __post_init__(self) -> None:
        layouts = self.registry.layouts
        self.router = Router(self.registry)
        self.digests = {name: KeyDigests() for name in layouts}
        self.spools = {
            name: ShardSpool(self.folder / f"events-{name}", event_width(layout), self.shards) for name, layout in layouts.items()
        }
        self.identities = EventIdentities(self.folder, self.shards)
        path = self.folder / "candidates.arrow"
        self.candidates = None if self.scope is None else CandidateWriter(path, self.scope, self.registry)

    def close(self) -> None:
        for spool in self.spools.values():
            spool.flush()
        self.identities.close()
        if self.candidates is not None:
            self.candidates.close()

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
        where = own[applied]
        self.identities.add(
            batch, where, partition.number, positions[where], routed.id_digest[applied], routed.tie_digest[applied]
        )
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


def _offset_text(folder: Path, partition: int, kind: OffsetKind, position: int) -> str:
    if kind is OffsetKind.EXCLUSIVE_NEXT:
        return str(position)
    with (folder / f"offsets-{partition}.bin").open("rb") as file:
        file.seek(position * _NUMBER_BYTES)
        return str(int.from_bytes(file.read(_NUMBER_BYTES), "big"))
