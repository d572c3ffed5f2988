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
_WRITER = 1 << 40  # an ordinal is the writer's number times this, and which of the writer's records it is
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
    """Collects the identities of applied records, on disk, sharded by the digest of (event class, event id).

    Several writers may share a folder, each with a number of its own.
    """

    def __init__(self, folder: Path, shards: int, writer: int = 0) -> None:
        self._spool = ShardSpool(folder / "identities", _WIDTH, shards, writer)
        path = _records_file(folder, writer)
        path.parent.mkdir(exist_ok=True)
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, _RECORDS)
        self._next = writer * _WRITER

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
        rows[:, 4] = np.arange(self._next, self._next + count)
        self._next += count
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


def applied_records(folder: Path) -> list[pa.Table]:
    """The applied records of each writer, mapped into memory: `event_id`, `event_type`, `partition` (number), `position`.

    Those of a partition stand in its order, also from one writer to the next.
    """
    tables = []
    for path in sorted(_records_file(folder, 0).parent.iterdir()):
        with pa.memory_map(str(path)) as source:
            tables.append(pa.ipc.open_file(source).read_all())
    return tables


def counted_identities(
    folder: Path, shards: int, partitions: Sequence[str], offset_text: Callable[[int, int], str]
) -> tuple[int, int, tuple[EventAnomaly, ...]]:
    """How many events, how many copies besides, and the anomalies in the order of type and id, over all closed writers.

    `offset_text` gives the offset at (partition number, position).
    """
    records = events = 0
    conflicts: list[list[int]] = []
    for shard in range(shards):
        rows = read_shard(folder / "identities", shard, _WIDTH)
        records += len(rows)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        same = rows[1:, 0] == rows[:-1, 0]
        inside = np.zeros(len(rows), np.bool_)
        inside[1:] |= same
        inside[:-1] |= same
        events += int((~inside).sum())
        for contents in _contents(rows[inside].tolist()):
            events += len(contents)
            if len(contents) > 1:
                conflicts.append([ordinal for ordinals in contents for ordinal in ordinals])
    found = sorted(_told(folder, conflicts, partitions, offset_text), key=lambda one: (one.event_type, one.event_id))
    return events, records - events, tuple(found)


def _told(
    folder: Path, conflicts: list[list[int]], partitions: Sequence[str], offset_text: Callable[[int, int], str]
) -> Iterator[EventAnomaly]:
    if not conflicts:
        return
    writers = applied_records(folder)
    for ordinals in conflicts:
        placed = [divmod(ordinal, _WRITER) for ordinal in ordinals]
        rows = [writers[writer].slice(number, 1).to_pylist()[0] for writer, number in placed]
        places = sorted((partitions[row["partition"]], row["position"], row["partition"]) for row in rows)
        told = tuple((name, offset_text(number, position)) for name, position, number in places)
        yield EventAnomaly(min(row["event_type"] for row in rows), rows[0]["event_id"], told)


def _records_file(folder: Path, writer: int) -> Path:
    return folder / "records" / f"{writer:03d}.arrow"


def _contents(rows: list[list[int]]) -> Iterator[list[list[int]]]:
    """Per event id, per content, the ordinals of its records."""
    ids: dict[tuple[int, int], dict[tuple[int, int], list[int]]] = {}
    for id_high, id_low, tie_high, tie_low, ordinal in rows:
        ids.setdefault((id_high, id_low), {}).setdefault((tie_high, tie_low), []).append(ordinal)
    for contents in ids.values():
        yield list(contents.values())
