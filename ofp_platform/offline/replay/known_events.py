"""The fold of a replay: records of a log, in any order of partitions, to the set of events that is known.

One pass, in bounded memory: see `record_fold` for what is done with a record, `archived_fold` for several processes. The same
rules as the projector's: `registry.belonging` and `registry.routing`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.replay.candidate_rows import CandidateScope
from ofp_platform.offline.replay.event_identities import IdentityCount, anomalies, count_identities
from ofp_platform.offline.replay.key_shards import KEYS_HELD, EventShard, event_shard, event_width, read_shard
from ofp_platform.offline.replay.memory_budget import LEAST_SHARDS
from ofp_platform.offline.replay.record_fold import NUMBER_BYTES, FoldTally, RecordFold, offset_number
from ofp_platform.offline.replay.sorted_shards import sorted_shard
from ofp_platform.registry.apply_failure import GroupVersion
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.event_anomaly import EventAnomaly
from ofp_platform.vocabulary.position import OffsetKind, PartitionBasis, order, place

Int64s = npt.NDArray[np.int64]
DEFAULT_SHARDS = LEAST_SHARDS


@dataclass(frozen=True)
class FoldedReplay:
    """The result of folding a replay; small itself, the events lie in `folder`. Can be sent to other processes.

    Every record has one fate: `applied` (the events: distinct contents), `duplicates`, `ignored` (a type that the pack does
    not have), `other_run`, `failed` (by reason in `failures`). `group_failures`: applied records that some groups cannot use, by
    reason; `lacking`: how many records do not feed these groups, () for all. `watermark`: greatest time of an event that feeds a
    group, microseconds.
    `partitions`: names by number, `ends`: the basis behind each. `candidates`: records that may become rows of a
    per-event scope, copies included. `amended_shards`: key type and shard of the keys that an amendment touches, sorted.
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
    group_failures: Mapping[str, int]
    lacking: Mapping[tuple[GroupVersion, ...], int]
    anomalies: tuple[EventAnomaly, ...]
    watermark: int | None
    scope: CandidateScope | None
    candidates: int
    amended_shards: tuple[tuple[str, int], ...] = ()

    @property
    def failed(self) -> int:
        """Records that could not be applied."""
        return sum(self.failures.values())

    def not_fed(self, groups: Iterable[GroupVersion]) -> int:
        """Records that do not feed at least one of these groups, though they should."""
        group_set = set(groups)
        return sum(count for lacking, count in self.lacking.items() if not lacking or not group_set.isdisjoint(lacking))

    @property
    def candidate_files(self) -> list[Path]:
        """The Arrow streams of the candidates, one of each writer; their order has no meaning."""
        return sorted((self.folder / "candidates").iterdir())

    def events(self, registry: CompiledRegistry, key_type: str, shard: int) -> EventShard:
        """The events of one shard of keys, mapped into memory; sorted on first use."""
        layout = registry.layouts[key_type]
        rows = self.folder / f"events-{key_type}"
        return sorted_shard(
            self.folder / f"sorted-{key_type}" / f"{shard:05d}",
            lambda: event_shard(read_shard(rows, shard, event_width(layout)), layout),
        )

    def key_ids(self, key_type: str) -> list[str]:
        """Every entity of that type that a known event touches, sorted."""
        paths = (self.folder / f"keys-{key_type}").glob("*.txt")
        return sorted({key_id for path in paths for key_id in path.read_text(encoding="ascii").split("\n")} - {""})

    def maxima(self, partition: int) -> Int64s:
        """int64[r, 2]: the records at which the greatest applied event time of a partition rises: position (see `EventShard`)
        and time in microseconds."""
        path = self.folder / f"maxima-{partition}.bin"
        return (np.fromfile(path, np.int64) if path.exists() else np.empty(0, np.int64)).reshape(-1, 2)

    def offset_text(self, partition: int, position: int) -> str:
        """The offset of the record at a position (see `EventShard`), as text."""
        return _offset_text(self.folder, partition, self.ends[partition].offset_kind, position)

    def bounds(self, partition: int, parts: Sequence[PartitionBasis | None]) -> Int64s:
        """int64[n]: `bound` of many bases of one partition (None: nothing of it)."""
        if self.ends[partition].offset_kind.is_integer:
            return np.array([place(part) + 1 for part in parts], np.int64)
        path = self.folder / f"offsets-{partition}.bin"
        numbers = np.fromfile(path, f"S{NUMBER_BYTES}") if path.exists() else np.empty(0, f"S{NUMBER_BYTES}")
        is_given = np.array([part is not None and not part.is_at_start for part in parts], np.bool_)
        offset_bytes = np.array([offset_number(0 if part is None else order(part.offset)) for part in parts], f"S{NUMBER_BYTES}")
        return np.where(is_given, np.searchsorted(numbers, offset_bytes, side="right"), 0).astype(np.int64)

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
    keys_held: int = KEYS_HELD,
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
    fold = RecordFold(registry, pins, clock_skew_us, scratch, shards, scope, keys_held=keys_held)
    try:
        for batch in batches:
            fold.add(batch)
    finally:
        fold.close()
    return finish_fold(fold, [fold.tally])


def finish_fold(fold: RecordFold, tallies: Sequence[FoldTally], identities: IdentityCount | None = None) -> FoldedReplay:
    """Sum up the tallies of all writers of a folder. `fold` is the one that has all partitions; all are closed.

    `identities`: their count, where it was made elsewhere; with conflicts in it, the folder has the records of all writers.
    """
    partitions = fold.tally.partitions
    ends = tuple(tally.end for tally in partitions.values())
    count = count_identities(fold.folder, range(fold.shards)) if identities is None else identities
    listed_anomalies = anomalies(
        fold.folder,
        count,
        list(partitions),
        lambda number, position: _offset_text(fold.folder, number, ends[number].offset_kind, position),
    )
    counts: Counter[str] = sum((tally.counts for tally in tallies), Counter())
    failures: Counter[str] = sum((tally.failures for tally in tallies), Counter())
    group_failures: Counter[str] = sum((tally.group_failures for tally in tallies), Counter())
    lacking: Counter[tuple[GroupVersion, ...]] = sum((tally.lacking for tally in tallies), Counter())
    return FoldedReplay(
        folder=fold.folder,
        registry_digest=fold.registry.digest,
        shards=fold.shards,
        partitions=tuple(partitions),
        ends=ends,
        records=counts["records"],
        applied=count.events,
        duplicates=count.records - count.events,
        ignored=counts["ignored"],
        other_run=counts["other_run"],
        failures=dict(sorted(failures.items())),
        group_failures=dict(sorted(group_failures.items())),
        lacking=dict(sorted(lacking.items())),
        anomalies=listed_anomalies,
        watermark=max((tally.watermark for tally in tallies if tally.watermark is not None), default=None),
        scope=fold.scope,
        candidates=sum(tally.candidates for tally in tallies),
        amended_shards=tuple(sorted(set[tuple[str, int]]().union(*(tally.amended_shards for tally in tallies)))),
    )


def _offset_text(folder: Path, partition: int, kind: OffsetKind, position: int) -> str:
    if kind.is_integer:
        return str(position)
    with (folder / f"offsets-{partition}.bin").open("rb") as file:
        file.seek(position * NUMBER_BYTES)
        return str(int.from_bytes(file.read(NUMBER_BYTES), "big"))
