"""The identities of applied records: how many events they make, how many are copies, which ids have several contents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.replay.key_shards import ShardSpool, read_shard, shard_of
from ofp_platform.vocabulary.offline.event_anomaly import EventAnomaly

Int64s = npt.NDArray[np.int64]
_WIDTH = 5
_ID_HIGH, _ID_LOW, _TIE_HIGH, _TIE_LOW, _ORDINAL = range(_WIDTH)
_WRITER = 1 << 40  # an ordinal is the writer's number times this, and which of the writer's records it is
_RECORDS = pa.schema(
    [("event_id", pa.string()), ("event_type", pa.string()), ("partition", pa.int32()), ("position", pa.int64())]
)


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
        record_index: Int64s,
        partition: int,
        positions: Int64s,
        ids: npt.NDArray[np.uint64],
        ties: npt.NDArray[np.uint64],
    ) -> None:
        """Add the applied records of a batch: their indices, positions, and digests uint64[n, 2] (see `RoutedBatch`)."""
        count = len(record_index)
        rows = np.empty((count, _WIDTH), np.int64)
        rows[:, _ID_HIGH : _ID_LOW + 1] = ids.view(np.int64)
        rows[:, _TIE_HIGH : _TIE_LOW + 1] = ties.view(np.int64)
        rows[:, _ORDINAL] = np.arange(self._next, self._next + count)
        self._next += count
        self._spool.add(shard_of(rows[:, _ID_HIGH].copy(), self._spool.shards), rows)
        is_whole_batch = count == len(batch)
        indices = record_index.tolist()
        columns = [
            batch.event_ids if is_whole_batch else [batch.event_ids[index] for index in indices],
            batch.event_types if is_whole_batch else [batch.event_types[index] for index in indices],
            np.full(count, partition, np.int32),
            positions,
        ]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _RECORDS, strict=True)]
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


@dataclass(frozen=True)
class IdentityCount:
    """The identities of some shards: records, events, and per id with several contents, per content, ordinals of its records."""

    records: int = 0
    events: int = 0
    conflicts: tuple[tuple[tuple[int, ...], ...], ...] = ()

    def __add__(self, other: IdentityCount) -> IdentityCount:
        return IdentityCount(self.records + other.records, self.events + other.events, self.conflicts + other.conflicts)


def count_identities(folder: Path, shards: Iterable[int]) -> IdentityCount:
    """Count the identities of these shards, over all closed writers of the folder."""
    return sum((_count_shard(read_shard(folder / "identities", shard, _WIDTH)) for shard in shards), IdentityCount())


def _count_shard(rows: Int64s) -> IdentityCount:
    rows = rows[np.argsort(rows[:, _ID_HIGH], kind="stable")]
    is_same_id = rows[1:, _ID_HIGH] == rows[:-1, _ID_HIGH]
    has_same_id = np.zeros(len(rows), np.bool_)
    has_same_id[1:] |= is_same_id
    has_same_id[:-1] |= is_same_id
    events = int((~has_same_id).sum())
    conflicts = []
    for contents in _contents(rows[has_same_id].tolist()):
        events += len(contents)
        if len(contents) > 1:
            conflicts.append(tuple(map(tuple, contents)))
    return IdentityCount(len(rows), events, tuple(conflicts))


def anomalies(
    folder: Path, count: IdentityCount, partitions: Sequence[str], offset_text: Callable[[int, int], str]
) -> tuple[EventAnomaly, ...]:
    """The ids with several contents, by type and id; `offset_text` gives the offset at (partition number, position)."""
    anomaly_list = _anomalies(folder, count.conflicts, partitions, offset_text)
    return tuple(sorted(anomaly_list, key=lambda anomaly: (anomaly.event_type, anomaly.event_id)))


def _anomalies(
    folder: Path, conflicts: Sequence[Sequence[Sequence[int]]], partitions: Sequence[str], offset_text: Callable[[int, int], str]
) -> Iterator[EventAnomaly]:
    if not conflicts:
        return
    writers = applied_records(folder)
    for contents in conflicts:
        placed_contents = []
        event_types = set()
        event_id = ""
        for ordinals in contents:
            record_numbers = [divmod(ordinal, _WRITER) for ordinal in ordinals]
            rows = [writers[writer].slice(number, 1).to_pylist()[0] for writer, number in record_numbers]
            placed_contents.append(sorted((partitions[row["partition"]], row["position"], row["partition"]) for row in rows))
            event_types |= {row["event_type"] for row in rows}
            event_id = rows[0]["event_id"]
        yield EventAnomaly(
            min(event_types),
            event_id,
            tuple(
                tuple((name, offset_text(number, position)) for name, position, number in records)
                for records in sorted(placed_contents)
            ),
        )


def _records_file(folder: Path, writer: int) -> Path:
    return folder / "records" / f"{writer:03d}.arrow"


def _contents(rows: list[list[int]]) -> Iterator[list[list[int]]]:
    """Per event id, per content, the ordinals of its records."""
    ids: dict[tuple[int, int], dict[tuple[int, int], list[int]]] = {}
    for id_high, id_low, tie_high, tie_low, ordinal in rows:
        ids.setdefault((id_high, id_low), {}).setdefault((tie_high, tie_low), []).append(ordinal)
    for contents in ids.values():
        yield list(contents.values())
