"""Who the applied records are: how many events they make, how many are copies, and which ids have several contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.replay.key_shards import ShardSpool, read_shard, shard_of

Int64s = npt.NDArray[np.int64]
_WIDTH = 5  # id high, id low, tie high, tie low, ordinal of the record
_RECORDS = pa.schema(
    [("event_id", pa.string()), ("event_type", pa.string()), ("partition", pa.int32()), ("position", pa.int64())]
)


@dataclass(frozen=True)
class EventAnomaly:
    """One event id with several contents: where each of its records stands, (partition id, offset)."""

    event_type: str
    event_id: str
    positions: tuple[tuple[str, str], ...]


class EventIdentities:
    """Collects the identities of applied records, on disk, sharded by the digest of (event class, event id)."""

    def __init__(self, folder: Path, shards: int) -> None:
        self._spool = ShardSpool(folder / "identities", _WIDTH, shards)
        self._path = folder / "records.arrow"
        self._sink = pa.OSFile(str(self._path), "wb")
        self._writer = pa.ipc.new_file(self._sink, _RECORDS)
        self._count = 0

    def add(
        self,
        batch: RecordBatch,
        where: Int64s,
        partition: int,
        positions: Int64s,
        ids: npt.NDArray[np.uint64],
        ties: npt.NDArray[np.uint64],
    ) -> None:
        """Add the applied records of a batch: their indices, positions, and digests uint64[n, 2] (see `RoutedBatch`)."""
        count = len(where)
        rows = np.empty((count, _WIDTH), np.int64)
        rows[:, 0:2] = ids.view(np.int64)
        rows[:, 2:4] = ties.view(np.int64)
        rows[:, 4] = np.arange(self._count, self._count + count)
        self._count += count
        self._spool.add(shard_of(rows[:, 0].copy(), self._spool.shards), rows)
        everything = count == len(batch)
        indices = where.tolist()
        columns = [
            batch.event_ids if everything else [batch.event_ids[index] for index in indices],
            batch.event_types if everything else [batch.event_types[index] for index in indices],
            np.full(count, partition, np.int32),
            positions,
        ]
        arrays = [pa.array(column, one.type) for column, one in zip(columns, _RECORDS, strict=True)]
        self._writer.write_batch(pa.record_batch(arrays, schema=_RECORDS))

    def close(self) -> None:
        """Write what is buffered; then nothing can be added."""
        self._spool.flush()
        self._writer.close()
        self._sink.close()

    def counted(
        self, partitions: Sequence[str], offset_text: Callable[[int, int], str]
    ) -> tuple[int, int, tuple[EventAnomaly, ...]]:
        """How many events, how many copies besides, and the anomalies in the order of type and id.

        `offset_text` gives the offset at (partition number, position).
        """
        events = 0
        conflicts: list[list[int]] = []
        for shard in range(self._spool.shards):
            rows = read_shard(self._spool.folder, shard, _WIDTH)
            rows = rows[np.argsort(rows[:, 0], kind="stable")]
            same = rows[1:, 0] == rows[:-1, 0]
            inside = np.zeros(len(rows), np.bool_)
            inside[1:] |= same
            inside[:-1] |= same
            events += int((~inside).sum())
            for contents in _contents(rows[inside].tolist()):
                events += len(contents)
                if len(contents) > 1:
                    conflicts.append(sorted(ordinal for ordinals in contents for ordinal in ordinals))
        found = sorted(self._told(conflicts, partitions, offset_text), key=lambda one: (one.event_type, one.event_id))
        return events, self._count - events, tuple(found)

    def _told(
        self, conflicts: list[list[int]], partitions: Sequence[str], offset_text: Callable[[int, int], str]
    ) -> Iterator[EventAnomaly]:
        if not conflicts:
            return
        with pa.memory_map(str(self._path)) as source:
            records = pa.ipc.open_file(source).read_all()
            for ordinals in conflicts:
                rows = records.take(pa.array(ordinals)).to_pylist()
                places = sorted((partitions[row["partition"]], row["position"], row["partition"]) for row in rows)
                told = tuple((name, offset_text(number, position)) for name, position, number in places)
                yield EventAnomaly(min(row["event_type"] for row in rows), rows[0]["event_id"], told)


def _contents(rows: list[list[int]]) -> Iterator[list[list[int]]]:
    """Per event id, per content, the ordinals of its records."""
    ids: dict[tuple[int, int], dict[tuple[int, int], list[int]]] = {}
    for id_high, id_low, tie_high, tie_low, ordinal in rows:
        ids.setdefault((id_high, id_low), {}).setdefault((tie_high, tie_low), []).append(ordinal)
    for contents in ids.values():
        yield list(contents.values())
