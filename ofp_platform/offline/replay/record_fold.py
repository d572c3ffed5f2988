"""The fold of a replay's records, one by one: counted, and written to the files of one writer in the fold's folder.

A record's fate is decided by its batch alone (run, skew, router); everything that needs other records (copies, anomalies,
the order of a key's events) is worked out from the files. Several writers may share a folder: files that all of them have
carry the number of the writer, files of a partition are written by one after the other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.replay.candidate_rows import CandidateScope, CandidateWriter
from ofp_platform.offline.replay.event_identities import EventIdentities
from ofp_platform.offline.replay.key_shards import KEYS_HELD, KeyDigests, ShardSpool, event_rows, event_width, shard_of
from ofp_platform.registry.apply_failure import ApplyFailureReason, GroupVersion
from ofp_platform.registry.belonging import belonging
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.routing import APPLIED, UNKNOWN_TYPE, Router
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import PartitionBasis, order

Int64s = npt.NDArray[np.int64]
T = TypeVar("T")
NUMBER_BYTES = 56  # a sparse offset as a big-endian number: 128 digits are less than 2^426


@dataclass
class FoldedPartition:
    """One partition as far as it was read: all that another writer needs to resume it."""

    number: int
    end: PartitionBasis
    last: int = -1
    records: int = 0
    newest: int = -(2**63)


@dataclass
class FoldTally:
    """The counts of one writer; `candidates`: how many candidate rows it wrote; `amended_shards`: key type and shard of the keys
    that an amendment touches.

    `failures`: records that feed nothing, by reason; `group_failures`: applied ones that do not feed some groups, by reason;
    `lacking`: of both, how many records do not feed these groups, () for all of them.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    group_failures: Counter[str] = field(default_factory=Counter)
    lacking: Counter[tuple[GroupVersion, ...]] = field(default_factory=Counter)
    partitions: dict[str, FoldedPartition] = field(default_factory=dict)
    watermark: int | None = None
    candidates: int = 0
    amended_shards: set[tuple[str, int]] = field(default_factory=set)


@dataclass
class RecordFold:
    """One writer of a fold. Pass a tally with known partitions to resume them. `keys_held`: ids remembered, per key type."""

    registry: CompiledRegistry
    pins: ContextPins
    clock_skew_us: int
    folder: Path
    shards: int
    scope: CandidateScope | None
    writer: int = 0
    tally: FoldTally = field(default_factory=FoldTally)
    keys_held: int = KEYS_HELD

    def __post_init__(self) -> None:
        layouts = self.registry.layouts
        self.router = Router(self.registry, self.keys_held)
        self.digests = {name: KeyDigests(self.keys_held) for name in layouts}
        self.spools = {
            name: ShardSpool(self.folder / f"events-{name}", event_width(layout), self.shards, self.writer)
            for name, layout in layouts.items()
        }
        self.identities = EventIdentities(self.folder, self.shards, self.writer)
        self.candidates = None
        if self.scope is not None:
            path = self.folder / "candidates" / f"{self.writer:03d}.arrow"
            path.parent.mkdir(exist_ok=True)
            self.candidates = CandidateWriter(path, self.scope, self.registry, self.keys_held)

    def close(self) -> None:
        """Write buffered rows and close the files."""
        for spool in self.spools.values():
            spool.flush()
        self.identities.close()
        if self.candidates is not None:
            self.candidates.close()
            self.tally.candidates = self.candidates.records

    def add(self, batch: RecordBatch) -> None:
        """Add a batch; those of one partition in their order.

        Raises:
            ValueError: they come out of order, or twice.
        """
        tally = self.tally
        partition = self._partition(batch)
        tally.counts["records"] += len(batch) + len(batch.unreadable)
        if batch.unreadable:
            tally.failures[ApplyFailureReason.MALFORMED_PAYLOAD.value] += len(batch.unreadable)
            tally.lacking[()] += len(batch.unreadable)
        if not len(batch):
            return
        positions = self._positions(partition, batch)
        membership = belonging(self.pins, batch.pins, batch.pins_index, batch.ts, batch.admitted_at, self.clock_skew_us)
        tally.counts["other_run"] += int(membership.other_run.sum())
        for reason, mask in (
            (ApplyFailureReason.WRONG_PINS, membership.wrong_pins),
            (ApplyFailureReason.FUTURE_EVENT, membership.future),
        ):
            if mask.any():
                tally.failures[reason.value] += int(mask.sum())
                tally.lacking[()] += int(mask.sum())
        own_indices = np.flatnonzero(membership.own)
        if not len(own_indices):
            return
        is_whole_batch = len(own_indices) == len(batch)
        indices = own_indices.tolist()

        def take(values: list[T]) -> list[T]:
            return values if is_whole_batch else [values[index] for index in indices]

        event_types, event_ids, schema_versions = take(batch.event_types), take(batch.event_ids), take(batch.schema_versions)
        routed_batch = self.router.route(
            event_types, event_ids, schema_versions, batch.ts[own_indices], take(batch.payload_hashes), take(batch.payloads),
            take(batch.amends),
        )  # fmt: skip
        tally.counts["ignored"] += int((routed_batch.status == UNKNOWN_TYPE).sum())
        tally.failures.update(failure.reason.value for failure in routed_batch.failures)
        tally.group_failures.update(failure.reason.value for failure in routed_batch.group_failures)
        tally.lacking.update(failure.groups for failure in (*routed_batch.failures, *routed_batch.group_failures))
        is_applied = routed_batch.status == APPLIED
        if not is_applied.any():
            return
        feeds = own_indices[routed_batch.feeds]
        if len(feeds):
            newest = int(batch.ts[feeds].max())
            tally.watermark = newest if tally.watermark is None else max(tally.watermark, newest)
            self._note_maxima(partition, positions[feeds], batch.ts[feeds])
        applied_indices = own_indices[is_applied]
        self.identities.add(
            batch,
            applied_indices,
            partition.number,
            positions[applied_indices],
            routed_batch.id_digest[is_applied],
            routed_batch.tie_digest[is_applied],
        )
        ties = routed_batch.tie_digest.view(np.int64)
        digests = {}
        for key_type, touched_keys in routed_batch.touched.items():
            index = touched_keys.record_index
            high, low, new = self.digests[key_type].columns(touched_keys.key_ids)
            digests[key_type] = high, low
            rows = event_rows(
                self.registry.layouts[key_type], (high, low), ties[index], batch.admitted_at[own_indices[index]],
                partition.number, positions[own_indices[index]], touched_keys.matrix,
            )  # fmt: skip
            shards = shard_of(high, self.shards)
            self.spools[key_type].add(shards, rows)
            amending = shards[routed_batch.amends[index]]
            tally.amended_shards.update((key_type, shard) for shard in set(amending.tolist()))
            self._note_keys(key_type, new)
        if self.candidates is not None:
            self.candidates.add(batch, own_indices, routed_batch, is_applied, digests, partition.number, positions[own_indices])

    def _partition(self, batch: RecordBatch) -> FoldedPartition:
        partition = self.tally.partitions.get(batch.partition_id)
        if partition is None:
            partition = self.tally.partitions[batch.partition_id] = FoldedPartition(len(self.tally.partitions), batch.next)
        partition.end = batch.next
        return partition

    def _positions(self, partition: FoldedPartition, batch: RecordBatch) -> Int64s:
        """int64[n]: offsets where these are integers; else how many records of the partition come before."""
        is_integer = partition.end.offset_kind.is_integer
        numbers: Int64s | list[int]
        numbers = np.array(batch.offsets, np.int64) if is_integer else [order(offset) for offset in batch.offsets]
        ascending = (np.diff(numbers) > 0).all() if is_integer else sorted(set(numbers)) == numbers
        if numbers[0] <= partition.last or not ascending:
            raise ValueError(f"the records of partition {batch.partition_id!r} come out of order at offset {batch.offsets[0]}")
        partition.last = int(numbers[-1])
        if isinstance(numbers, np.ndarray):
            return numbers
        start, partition.records = partition.records, partition.records + len(batch)
        with (self.folder / f"offsets-{partition.number}.bin").open("ab") as file:
            file.write(b"".join(offset_number(number) for number in numbers))
        return np.arange(start, partition.records)

    def _note_maxima(self, partition: FoldedPartition, positions: Int64s, ts: Int64s) -> None:
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
            path = self.folder / f"keys-{key_type}" / f"{self.writer:03d}.txt"
            path.parent.mkdir(exist_ok=True)
            with path.open("a", encoding="ascii") as file:
                file.writelines(f"{key_id}\n" for key_id in key_ids)


def offset_number(number: int) -> bytes:
    """A sparse offset as it is stored: bytes that sort like the number."""
    return max(number, 0).to_bytes(NUMBER_BYTES, "big")
