"""The rows of a dataset in their canonical order, without features: on disk, in blocks that one worker holds in memory.

Order: per event by (event time, identity: the first 128 bits of SHA-256(class NUL id NUL payload hash), unsigned), a decision
id behind it; per entity and per grid by (as-of, key id); per table as the
table has them. Each row also goes to the shard of each of its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ofp_platform.offline.datasets.row_graphs import RowGraphs
from ofp_platform.offline.replay.decision_basis import (
    NO_DECISIONS,
    DecisionBases,
    DecisionRow,
    RecordedDecision,
    decision_bases,
    record_places,
)
from ofp_platform.offline.replay.key_shards import KeyDigests, ShardSpool, shard_of
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.offline.sources.read_ahead import read_ahead
from ofp_platform.vocabulary.offline.build_intent import (
    GRAPH_VERSION_COLUMN,
    AsOfBasis,
    PerEntity,
    PerEvent,
    PerGrid,
    PerTable,
)
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time

Int64s = npt.NDArray[np.int64]
BLOCK_ROWS = 131_072
UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")
ROW_WIDTH = 7
KEY_HIGH, KEY_LOW, AS_OF, KNOWN_UNTIL, CHAIN, GRAPH, ORDINAL = range(ROW_WIDTH)
_SAMPLES = 1_000_000
_DECIDED = pa.schema([("row", pa.int64()), ("decision_id", pa.string())])


@dataclass(frozen=True)
class DatasetRows:
    """Rows on disk. `blocks`: (first row, rows) of each block; `chains`: see `decision_basis`, for `decision` only.

    `undecided_events`: events of the scope without a decision, which make no row of a `decision` dataset. `oldest_as_of`: the
    least as-of of all rows, microseconds. `graphs`: the versions of the identity graph that rows know, by their number.
    """

    folder: Path
    as_of_basis: AsOfBasis
    key_types: tuple[str, ...]
    blocks: tuple[tuple[int, int], ...]
    chains: tuple[Int64s, ...] = ()
    undecided_events: int = 0
    oldest_as_of: int = -(2**63)
    graphs: RowGraphs | None = None

    @property
    def count(self) -> int:
        """Rows."""
        return sum(count for _, count in self.blocks)

    def block(self, number: int) -> pa.Table:
        """The row columns of one block."""
        return _read_table(_block_file(self.folder, number))

    def decided_rows(self, number: int) -> pa.Table:
        """The decisions about the rows of one block: `row` int64, counted from the block's first, and `decision_id`.

        Of a basis that is not `decision`, whose rows have a column of their own for it; empty where no decisions were given.
        """
        path = _decided_file(self.folder, number)
        return _read_table(path) if path.exists() else _DECIDED.empty_table()

    def spool(self, key_type: str) -> Path:
        """The folder of that key type's row shards: rows of int64[ROW_WIDTH], see the constants of this module."""
        return self.folder / f"rows-{key_type}"


def dataset_rows(
    folded_replay: FoldedReplay,
    scope: PerEvent | PerEntity | PerGrid | PerTable,
    as_of_basis: AsOfBasis,
    folder: Path,
    decisions: Iterable[RecordedDecision] = (),
    check: Callable[[], None] = lambda: None,
    counting_records: Mapping[tuple[str, str], tuple[str, int | str]] | None = None,
    entity_table: pa.Table | None = None,
    graphs: RowGraphs | None = None,
) -> DatasetRows:
    """The rows of a scope. `folder` does not exist yet. A per-event scope must have been given to the fold.

    `counting_records`: by type and id of an event that has several contents, partition and offset of the record whose content
    alone makes a row. `check` is called before each block, and may raise. `entity_table`: that of a per-table scope. `graphs`:
    where a group resolves identities; each row is given the version that it knows, and names it.

    `decisions` are of events: each makes a row under `decision`, and is noted beside the row of its event otherwise.

    A row of an entity knows, under `ingest_time`, what was admitted by its as-of; a row of an event what was admitted by the
    event's own admission, which is that of its first copy that was applied.

    Raises:
        BuildRefused: NOTHING_TO_BUILD, no rows; INVALID_INTENT, `decision` without events; REPLAY_INCOMPLETE.
    """
    folder.mkdir(parents=True)
    if isinstance(scope, PerEvent):
        if folded_replay.scope is None:
            raise ValueError("the replay was folded without candidates; give the scope to fold_replay")
        bases = decision_bases(decisions, folded_replay)
        writer = _Writer(folder, folded_replay.shards, folded_replay.scope.key_types, check, graphs)
        places = _places(counting_records or {}, folded_replay)
        for events, copies in read_ahead(_events_in_order(folded_replay, folder)):
            if places:
                events, copies = _counting(events, copies, places)
            _add_events(writer, events, copies, folded_replay.scope.key_types, as_of_basis, bases)
    else:
        if as_of_basis is AsOfBasis.DECISION:
            message = "as_of_basis 'decision' needs a per_event scope: only events have decisions"
            raise BuildRefused(BuildReason.INVALID_INTENT, message, "as_of_basis")
        bases = NO_DECISIONS
        key_types = tuple(scope.key_types) if isinstance(scope, PerTable) else (scope.key_type,)
        writer = _Writer(folder, folded_replay.shards, tuple(key_type.value for key_type in key_types), check, graphs)
    if isinstance(scope, PerTable):
        if entity_table is None:
            raise ValueError("a per-table scope has the rows of its table; give it")
        for start in range(0, entity_table.num_rows, BLOCK_ROWS):
            _add_table_rows(writer, entity_table.slice(start, BLOCK_ROWS).combine_chunks(), as_of_basis)
    elif not isinstance(scope, PerEvent):
        blocks = _listed_rows(scope) if isinstance(scope, PerEntity) else _grid(scope, folded_replay)
        for key_ids, times in blocks:
            _add_entities(writer, scope.key_type.value, key_ids, times, as_of_basis)
    writer.close()
    if not writer.blocks:
        raise BuildRefused(BuildReason.NOTHING_TO_BUILD, "the scope has no rows in this replay", "scope")
    chains = bases.chains if as_of_basis is AsOfBasis.DECISION else ()
    undecided_events, oldest_as_of = writer.undecided_events, writer.oldest_as_of
    return DatasetRows(
        folder, as_of_basis, writer.key_types, tuple(writer.blocks), chains, undecided_events, oldest_as_of, graphs
    )


@dataclass
class _Writer:
    """Blocks and row shards while they are written."""

    folder: Path
    shards: int
    key_types: tuple[str, ...]
    check: Callable[[], None]
    graphs: RowGraphs | None = None
    blocks: list[tuple[int, int]] = field(default_factory=list)
    undecided_events: int = 0
    oldest_as_of: int = 2**63 - 1

    def __post_init__(self) -> None:
        self.digests = KeyDigests()
        self.spools = {name: ShardSpool(self.folder / f"rows-{name}", ROW_WIDTH, self.shards) for name in self.key_types}

    def add(self, table: pa.Table, keys: dict[str, tuple[Int64s, Int64s, npt.NDArray[np.bool_]]], rows: Int64s) -> None:
        """One block: its columns; per key type digests and which rows have such a key; and as-of, known until, chain, graph."""
        self.check()
        if not table.num_rows:
            return
        first = sum(self.blocks[-1]) if self.blocks else 0
        _write_table(_block_file(self.folder, len(self.blocks)), table.combine_chunks())
        self.blocks.append((first, table.num_rows))
        self.oldest_as_of = min(self.oldest_as_of, int(rows[:, 0].min()))
        ordinals = np.arange(first, first + table.num_rows)
        for key_type, (high, low, present) in keys.items():
            entry = np.column_stack([high, low, rows, ordinals])[present]
            self.spools[key_type].add(shard_of(entry[:, KEY_HIGH].copy(), self.shards), entry)

    def close(self) -> None:
        for spool in self.spools.values():
            spool.flush()

    def note_decided(self, rows: Sequence[int], decision_ids: Sequence[str]) -> None:
        """Note the decisions about rows of the block that is added next."""
        table = pa.table([pa.array(rows, pa.int64()), pa.array(decision_ids, pa.string())], _DECIDED)
        _write_table(_decided_file(self.folder, len(self.blocks)), table)


def _read_table(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _write_table(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)


def _block_file(folder: Path, number: int) -> Path:
    return folder / f"block-{number:05d}.arrow"


def _decided_file(folder: Path, number: int) -> Path:
    return folder / f"decided-{number:05d}.arrow"


# ---- per event -------------------------------------------------------------------------------------------------------


def _events_in_order(folded_replay: FoldedReplay, folder: Path) -> Iterator[tuple[pa.Table, Int64s]]:
    """The candidates, each event once, in canonical order, about BLOCK_ROWS at once; and their copies (see `_each_once`)."""
    scratch = folder / "by-time"
    scratch.mkdir()
    bounds = _time_bounds(folded_replay)
    parts: list[list[Path]] = [[] for _ in range(len(bounds) + 1)]
    for number, batch in enumerate(_candidates(folded_replay)):
        bucket = np.searchsorted(bounds, batch["ts"].to_numpy(), side="right")
        order = np.argsort(bucket, kind="stable")
        cuts = np.searchsorted(bucket[order], np.arange(len(parts) + 1))
        ordered_batch = batch if (bucket[1:] >= bucket[:-1]).all() else batch.take(pa.array(order))
        for bucket_number in np.flatnonzero(np.diff(cuts)).tolist():
            path = scratch / f"{bucket_number}-{number}.arrow"
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as file:
                file.write_batch(
                    ordered_batch.slice(int(cuts[bucket_number]), int(cuts[bucket_number + 1] - cuts[bucket_number]))
                )
            parts[bucket_number].append(path)
    for paths in parts:
        if paths:
            yield _each_once(pa.concat_tables(map(_read_table, paths)).combine_chunks())
        for path in paths:
            path.unlink()


def _candidates(folded_replay: FoldedReplay) -> Iterator[pa.RecordBatch]:
    for path in folded_replay.candidate_files:
        with pa.memory_map(str(path)) as source:
            yield from pa.ipc.open_stream(source)


def _time_bounds(folded_replay: FoldedReplay) -> Int64s:
    """Times between which about BLOCK_ROWS candidates lie, whoever wrote them. Events of one time stay together."""
    step = np.uint64(folded_replay.candidates // _SAMPLES + 1)
    # sampled by their digests: the candidates stand in no order of their own
    samples = [
        batch["ts"].to_numpy()[batch["tie_low"].to_numpy().view(np.uint64) % step == 0] for batch in _candidates(folded_replay)
    ]
    ts = np.sort(np.concatenate([np.empty(0, np.int64), *samples]))
    if not len(ts):
        return ts
    buckets = -(-folded_replay.candidates // BLOCK_ROWS)
    return np.unique(ts[(np.arange(1, buckets) * len(ts)) // buckets])


def _each_once(table: pa.Table) -> tuple[pa.Table, Int64s]:
    """Each event once, and int64[m, 3] (event, partition number, position) of every record that is a copy of one."""
    ts, high, low, admitted_at = (table[name].to_numpy() for name in ("ts", "tie_high", "tie_low", "admitted_at"))
    order = np.lexsort((low.view(np.uint64), high.view(np.uint64), ts))
    high, low = high[order], low[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    starts = np.flatnonzero(first)
    earliest = np.minimum.reduceat(admitted_at[order], starts)
    events = table.take(pa.array(order[starts]))
    copies = [np.cumsum(first) - 1, table["partition"].to_numpy()[order], table["position"].to_numpy()[order]]
    events = events.set_column(events.schema.get_field_index("admitted_at"), "admitted_at", pa.array(earliest))
    return events, np.column_stack(copies)


def _places(
    counting_records: Mapping[tuple[str, str], tuple[str, int | str]], folded_replay: FoldedReplay
) -> dict[tuple[str, str], tuple[int, int] | None]:
    places = record_places(list(counting_records.values()), folded_replay)
    return dict(zip(counting_records, places, strict=True))


def _counting(
    events: pa.Table, copies: Int64s, places: Mapping[tuple[str, str], tuple[int, int] | None]
) -> tuple[pa.Table, Int64s]:
    """The events without those contents of an id that do not count, and their copies."""
    names = zip(events["event_type"].to_pylist(), events["event_id"].to_pylist(), strict=True)
    records = set(map(tuple, copies.tolist()))
    counts = np.array(
        [(place := places.get(name)) is None or (index, *place) in records for index, name in enumerate(names)], np.bool_
    )
    if counts.all():
        return events, copies
    new_index = np.cumsum(counts) - 1
    kept_copies = copies[counts[copies[:, 0]]]
    kept_copies[:, 0] = new_index[kept_copies[:, 0]]
    return events.filter(pa.array(counts)).combine_chunks(), kept_copies


def _add_events(
    writer: _Writer,
    events: pa.Table,
    copies: Int64s,
    key_types: Sequence[str],
    as_of_basis: AsOfBasis,
    bases: DecisionBases,
) -> None:
    extra_columns: dict[str, pa.Array] = {}
    chain: Int64s = np.zeros(events.num_rows, np.int64)
    as_of = events["ts"].to_numpy()
    known_until = events["admitted_at"].to_numpy()
    decided_rows = _decided_rows(events, copies, bases) if bases.by_event else []
    if as_of_basis is AsOfBasis.DECISION:
        writer.undecided_events += events.num_rows - len({event_index for event_index, _ in decided_rows})
        events = events.take(pa.array([event_index for event_index, _ in decided_rows], pa.int64()))
        rows = [row for _, row in decided_rows]
        as_of, known_until, chain = (
            np.array([getattr(row, name) for row in rows], np.int64) for name in ("as_of", "rank", "chain")
        )
        extra_columns["decision_id"] = pa.array([row.decision_id for row in rows], pa.string())
        extra_columns["input_basis_digest"] = pa.array([row.basis_digest for row in rows], pa.string())
    elif decided_rows:
        writer.note_decided([index for index, _ in decided_rows], [row.decision_id for _, row in decided_rows])
    if as_of_basis is AsOfBasis.INGEST_TIME:
        extra_columns["known_until_utc"] = pa.array(known_until).cast(UTC_MICROSECONDS)
    graph: Int64s = np.zeros(events.num_rows, np.int64)
    if writer.graphs is not None:
        if as_of_basis is AsOfBasis.DECISION:
            graph = writer.graphs.of_decisions([row for _, row in decided_rows])
        else:
            graph = writer.graphs.of_rows(as_of_basis, known_until)
        extra_columns[GRAPH_VERSION_COLUMN] = writer.graphs.names(graph)
    columns = {
        "event_id": events["event_id"],
        "event_type": events["event_type"],
        "event_time_utc": events["ts"].cast(UTC_MICROSECONDS),
        **{f"{name}_id": events[f"{name}_id"] for name in key_types},
        "as_of_time_utc": pa.array(as_of).cast(UTC_MICROSECONDS),
        **extra_columns,
        **{name: events[name] for name in events.column_names if name.startswith("payload__")},
    }
    keys = {
        name: (
            events[f"{name}_high"].to_numpy(),
            events[f"{name}_low"].to_numpy(),
            pc.is_valid(events[f"{name}_id"]).to_numpy(),
        )
        for name in key_types
    }
    writer.add(pa.table(columns), keys, np.column_stack([as_of, known_until, chain, graph]))


def _decided_rows(events: pa.Table, copies: Int64s, bases: DecisionBases) -> list[tuple[int, DecisionRow]]:
    """Each decision about one of the events, by the event's number; a decision is about the content at its position."""
    names = zip(events["event_type"].to_pylist(), events["event_id"].to_pylist(), strict=True)
    records = set(map(tuple, copies.tolist()))
    return [
        (event_index, row)
        for event_index, name in enumerate(names)
        for row in bases.by_event.get(name, ())
        if row.position is None or (event_index, *row.position) in records
    ]


# ---- entities --------------------------------------------------------------------------------------------------------


def _listed_rows(scope: PerEntity) -> Iterator[tuple[list[str], Int64s]]:
    rows = sorted({(parse_time(row.as_of_time_utc), row.key_id) for row in scope.rows})
    for start in range(0, len(rows), BLOCK_ROWS):
        part = rows[start : start + BLOCK_ROWS]
        yield [key_id for _, key_id in part], np.array([time for time, _ in part], np.int64)


def _grid(scope: PerGrid, folded_replay: FoldedReplay) -> Iterator[tuple[list[str], Int64s]]:
    """The rows of a grid; the entities are held in memory, their rows are not."""
    key_ids = sorted(set(scope.key_ids)) if scope.key_ids is not None else folded_replay.key_ids(scope.key_type.value)
    names: list[str] = []
    times: list[Int64s] = []
    for time in range(parse_time(scope.from_utc), parse_time(scope.to_utc), scope.step_seconds * MICROS_PER_SECOND):
        for start in range(0, len(key_ids), BLOCK_ROWS):
            part = key_ids[start : start + BLOCK_ROWS]
            names += part
            times.append(np.full(len(part), time, np.int64))
            if len(names) >= BLOCK_ROWS:
                yield names, np.concatenate(times)
                names, times = [], []
    if names:
        yield names, np.concatenate(times)


def _add_table_rows(writer: _Writer, rows: pa.Table, as_of_basis: AsOfBasis) -> None:
    """Rows of an entity table as they are; a row without a key of some type has none of that type's features."""
    as_of = rows["as_of_time_utc"]
    times = as_of.cast(pa.int64()).to_numpy()
    behind = rows.schema.get_field_index("as_of_time_utc") + 1
    graph: Int64s = np.zeros(len(times), np.int64)
    if writer.graphs is not None:
        graph = writer.graphs.of_rows(as_of_basis, times)
        rows = rows.add_column(behind, GRAPH_VERSION_COLUMN, writer.graphs.names(graph))
    if as_of_basis is AsOfBasis.INGEST_TIME:
        rows = rows.add_column(behind, "known_until_utc", as_of)
    keys = {}
    for key_type in writer.key_types:
        key_ids = rows[f"{key_type}_id"]
        high, low, _ = writer.digests.columns(pc.fill_null(key_ids, "").to_pylist())
        keys[key_type] = (high, low, pc.is_valid(key_ids).to_numpy())
    writer.add(rows, keys, np.column_stack([times, times, np.zeros(len(times), np.int64), graph]))


def _add_entities(writer: _Writer, key_type: str, key_ids: list[str], times: Int64s, as_of_basis: AsOfBasis) -> None:
    as_of = pa.array(times).cast(UTC_MICROSECONDS)
    columns = {f"{key_type}_id": pa.array(key_ids, pa.string()), "as_of_time_utc": as_of}
    if as_of_basis is AsOfBasis.INGEST_TIME:
        columns["known_until_utc"] = as_of
    graph: Int64s = np.zeros(len(times), np.int64)
    if writer.graphs is not None:
        graph = writer.graphs.of_rows(as_of_basis, times)
        columns[GRAPH_VERSION_COLUMN] = writer.graphs.names(graph)
    high, low, _ = writer.digests.columns(key_ids)
    rows = np.column_stack([times, times, np.zeros(len(times), np.int64), graph])
    writer.add(pa.table(columns), {key_type: (high, low, np.ones(len(times), np.bool_))}, rows)
