"""The features of a dataset's rows: shard by shard of the keys, then block by block of the rows.

A shard's events and rows are read, sorted and evaluated by the kernel in one call; its columns are written in the order of
the rows. A block gathers its rows out of all shards. Any number of workers, on any engine, makes the same columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from ofp_platform.kernel.columns import ColumnQuery, FeatureColumn, KeyedEvents, KeyedRows, feature_columns
from ofp_platform.kernel.query import LayoutArrays
from ofp_platform.offline.datasets.dataset_rows import (
    AS_OF,
    CHAIN,
    KEY_HIGH,
    KEY_LOW,
    KNOWN_UNTIL,
    ORDINAL,
    ROW_WIDTH,
    DatasetRows,
)
from ofp_platform.offline.datasets.resolved_rows import RowEntities, as_one_key, with_entities
from ofp_platform.offline.replay.event_index import EventIndex
from ofp_platform.offline.replay.key_shards import EventShard, by_key_and_time, dense_keys, read_shard
from ofp_platform.offline.replay.knowledge import known_from
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.exact_value import DECIMAL_DIGITS
from ofp_platform.registry.layout import CompiledFeature, CompiledGroup
from ofp_platform.registry.models import FieldType, Pack
from ofp_platform.registry.text_words import EncodedTexts, text_of
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.serving import FeatureGroupRef

Int64s = npt.NDArray[np.int64]
_OUT_OF_RANGE = b"values_out_of_range"
_FIRST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


def requested_groups(registry: CompiledRegistry, groups: Iterable[FeatureGroupRef]) -> tuple[CompiledGroup, ...]:
    """The requested groups, compiled, in the order of (name, version).

    Raises:
        BuildRefused: FEATURE_PROFILE_UNRESOLVED, a group version that the pack does not have, or one named twice.
    """
    groups_by_name: dict[tuple[str, str], CompiledGroup] = {}
    for index, ref in enumerate(groups):
        name = (ref.group_name, ref.group_version)
        if name not in registry.groups:
            known_groups = ", ".join(f"{name_part} {version}" for name_part, version in sorted(registry.groups))
            message = f"group {name[0]} {name[1]} is not in pack {registry.pack.pack_id}; it has {known_groups}"
            raise BuildRefused(BuildReason.FEATURE_PROFILE_UNRESOLVED, message, f"feature_groups.{index}")
        if name in groups_by_name:
            message = f"group {name[0]} {name[1]} is named twice"
            raise BuildRefused(BuildReason.FEATURE_PROFILE_UNRESOLVED, message, f"feature_groups.{index}")
        groups_by_name[name] = registry.groups[name]
    return tuple(groups_by_name[name] for name in sorted(groups_by_name))


def feature_name(group: tuple[str, str], feature: str) -> str:
    """The column of a feature: `<group>_<version>__<feature>`."""
    return f"{group[0]}_{group[1]}__{feature}"


_CHECK_SECONDS = 0.5


@dataclass(frozen=True)
class FeatureJob:
    """Everything that a worker needs to compute any shard, wherever it runs; can be sent to other processes.

    `groups` are those with rows, by key type; `entities`: of the key types of which a group resolves identities. Where there are
    some, the events of a shard are not all that a worker needs.
    """

    folded_replay: FoldedReplay
    rows: DatasetRows
    pack: Pack
    groups: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    folder: Path
    entities: Mapping[str, RowEntities] = field(default_factory=dict)

    @property
    def shards(self) -> list[tuple[str, int]]:
        """All pieces of the work: (key type, shard)."""
        return [(key_type, shard) for key_type, _ in self.groups for shard in range(self.folded_replay.shards)]

    def file(self, key_type: str, shard: int) -> Path:
        """Where that shard's columns go."""
        return self.folder / f"{key_type}-{shard:05d}.arrow"


def feature_job(
    folded_replay: FoldedReplay, rows: DatasetRows, registry: CompiledRegistry, groups: Sequence[CompiledGroup], folder: Path
) -> FeatureJob:
    """The work of computing `groups` for `rows`; `folder` does not exist yet.

    Raises:
        BuildRefused: FEATURE_PROFILE_UNRESOLVED, a group of a key type that no row has.
    """
    for index, group in enumerate(groups):
        if group.key_type not in rows.key_types:
            message = (
                f"group {group.name} {group.version} is of key type {group.key_type}; the rows have {', '.join(rows.key_types)}"
            )
            raise BuildRefused(BuildReason.FEATURE_PROFILE_UNRESOLVED, message, f"feature_groups.{index}")
    groups_by_key_type = tuple(
        (key_type, names)
        for key_type in rows.key_types
        if (names := tuple((group.name, group.version) for group in groups if group.key_type == key_type))
    )
    resolved_types = sorted({group.key_type for group in groups if group.resolves})
    if resolved_types and rows.graphs is None:
        raise ValueError("rows of groups that resolve identities know a version of the graph")
    folder.mkdir(parents=True)
    entities = {} if rows.graphs is None else {key_type: RowEntities(rows.graphs, key_type) for key_type in resolved_types}
    return FeatureJob(folded_replay, rows, registry.pack, groups_by_key_type, folder, entities)


def on_demand_names(groups: Sequence[CompiledGroup]) -> list[str]:
    """The on-demand features of the groups: they need a request, which a row does not have, and make no column."""
    return [feature_name((group.name, group.version), feature.name) for group in groups for feature in group.on_demand]


def compute_features(job: FeatureJob, registry: CompiledRegistry, workers: int, check: Callable[[], None] = lambda: None) -> None:
    """Compute every shard with that many threads (the kernel runs outside the interpreter's lock).

    `check` is called while they work, and may raise: then no other shard is begun.
    """
    with ThreadPoolExecutor(workers) as pool:
        unfinished = {pool.submit(compute_shard, job, registry, *shard) for shard in job.shards}
        try:
            while unfinished:
                ended_futures, unfinished = wait(unfinished, _CHECK_SECONDS, FIRST_COMPLETED)
                for future in ended_futures:
                    future.result()
                check()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def compute_shard(job: FeatureJob, registry: CompiledRegistry, key_type: str, shard: int) -> int:
    """Compute one shard and write its columns. Returns its rows. Computing it again writes the same file."""
    rows = read_shard(job.rows.spool(key_type), shard, ROW_WIDTH)
    if not len(rows):
        return 0
    layout = LayoutArrays.of(registry.layouts[key_type])
    groups = [registry.groups[name] for name in dict(job.groups)[key_type]]
    events = job.folded_replay.events(registry, key_type, shard)
    ordinals = np.sort(rows[:, ORDINAL])
    computed: dict[tuple[tuple[str, str], str], tuple[CompiledFeature, FeatureColumn, Int64s]] = {}
    for resolves in (False, True):
        query_groups = [group for group in groups if group.resolves is resolves]
        if not query_groups:
            continue
        query = ColumnQuery(layout, query_groups)
        own = (events, rows)
        row_ordinals, columns = _columns(query, *(_of_entities(job, registry, key_type, *own) if resolves else own), job.rows)
        order = np.argsort(row_ordinals, kind="stable")
        for (_, feature), column in zip(query.features, columns, strict=True):
            computed[column.group, column.name] = feature, column, order
    table: dict[str, Any] = {"ordinal": ordinals}
    for number, name in enumerate(sorted(computed)):
        table |= _stored_columns(number, *computed[name])
    columns = [column for _, column, _ in computed.values()]
    beyond = {feature_name(column.group, column.name): column.beyond for column in columns if column.beyond}
    batch = pa.record_batch({name: pa.array(values) for name, values in table.items()})
    batch = batch.replace_schema_metadata({_OUT_OF_RANGE: orjson.dumps(beyond)})
    path = job.file(key_type, shard)
    partial = path.with_suffix(".partial")
    cuts = np.searchsorted(ordinals, [first for first, _ in job.rows.blocks] + [job.rows.count])
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as file:
        for begin, end in pairwise(cuts.tolist()):  # one batch for each block, which reads no other
            file.write_batch(batch.slice(begin, end - begin))
    partial.rename(path)
    return len(rows)


def _of_entities(
    job: FeatureJob, registry: CompiledRegistry, key_type: str, events: EventShard, rows: Int64s
) -> tuple[EventShard, Int64s]:
    """Events and rows of a shard where those of an entity of several members are of one key: that entity's."""
    entity_of_row, entities = job.entities[key_type].several_members(rows)
    if not entities:
        return events, rows
    bounds = np.full(len(entities), _FIRST), np.full(len(entities), _LAST)
    entity_events = EventIndex(job.folded_replay, registry).entity_events(key_type, entities, *bounds)
    return with_entities(events, entities, entity_events), as_one_key(rows, entity_of_row, entities)


def _stored_columns(number: int, feature: CompiledFeature, column: FeatureColumn, order: Int64s) -> dict[str, Any]:
    """The columns of a shard's file of one feature, rows in that order."""
    stored: dict[str, Any] = {}
    if column.items is not None:
        stored[f"list{number}"] = _lists(feature, column).take(pa.array(order))
    elif column.texts is None:
        stored[f"low{number}"] = column.low[order]
    else:
        stored[f"text{number}"] = _texts(column.texts, column.low[order])
    if column.high is not None:
        stored[f"high{number}"] = column.high[order]
    stored[f"valid{number}"] = column.valid[order].view(np.uint8)
    return stored


_ITEMS = {FieldType.INTEGER: pa.int64(), FieldType.STRING: pa.string(), FieldType.BOOLEAN: pa.bool_()}


def list_type(feature: CompiledFeature) -> pa.DataType:
    """The column type of a feature that is a list."""
    item = _ITEMS[feature.value_type]
    if feature.has_numbers:
        item = pa.struct([pa.field("category", item, nullable=False), pa.field("value", pa.int64(), nullable=False)])
    return pa.list_(pa.field("element", item, nullable=False))


def _lists(feature: CompiledFeature, column: FeatureColumn) -> pa.Array:
    """The list of each row; of a row whose value is null an empty one."""
    assert column.items is not None
    if column.texts is not None:
        items = _texts(column.texts, column.items)
    else:
        items = pa.array(column.items).cast(_ITEMS[feature.value_type])
    kind = list_type(feature)
    if column.numbers is not None:
        items = pa.StructArray.from_arrays([items, pa.array(column.numbers)], fields=list(kind.value_type))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(column.low)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, kind)


def _texts(texts: EncodedTexts, ranks: Int64s) -> pa.Array:
    """The text of each row; of a row whose value is null any text."""
    if not len(texts):
        return pa.array([""] * len(ranks), pa.string())
    return pa.array([text_of(text) for text in texts], pa.string()).take(pa.array(ranks))


def _columns(
    query: ColumnQuery, events: EventShard, rows: Int64s, dataset_rows: DatasetRows
) -> tuple[Int64s, list[FeatureColumn]]:
    """Ordinals and columns of a shard's rows, in an order of their own."""
    if dataset_rows.as_of_basis is AsOfBasis.EVENT_TIME:
        return _evaluate(query, events, None, rows)
    if dataset_rows.as_of_basis is AsOfBasis.INGEST_TIME:
        return _evaluate(query, events, events.admitted_at, rows)
    parts = []
    for chain in np.unique(rows[:, CHAIN]).tolist():
        chain_rows = rows[rows[:, CHAIN] == chain]
        parts.append(
            _evaluate(query, events, known_from(dataset_rows.chains[chain], events.matrix.shape[1], events.copies), chain_rows)
        )
    if len(parts) == 1:
        return parts[0]
    joined_columns = []
    for pieces in zip(*(columns for _, columns in parts), strict=True):
        first = pieces[0]
        highs = [piece.high for piece in pieces if piece.high is not None]
        joined_columns.append(
            FeatureColumn(
                group=first.group,
                name=first.name,
                scale=first.scale,
                low=np.concatenate([piece.low for piece in pieces]),
                high=np.concatenate(highs) if highs else None,
                valid=np.concatenate([piece.valid for piece in pieces]),
                beyond=sum(piece.beyond for piece in pieces),
                texts=first.texts,  # the ranks are of all events of the shard, whatever a chain knows
                items=_joined([piece.items for piece in pieces]),
                numbers=_joined([piece.numbers for piece in pieces]),
            )
        )
    return np.concatenate([ordinals for ordinals, _ in parts]), joined_columns


def _joined(parts: list[Int64s | None]) -> Int64s | None:
    arrays = [part for part in parts if part is not None]
    return np.concatenate(arrays) if arrays else None


def _evaluate(
    query: ColumnQuery, events: EventShard, known_ranks: Int64s | None, rows: Int64s
) -> tuple[Int64s, list[FeatureColumn]]:
    high, low, codes = dense_keys(rows[:, KEY_HIGH], rows[:, KEY_LOW])
    order = by_key_and_time(codes, rows[:, AS_OF])
    rows = rows[order]
    offsets = np.searchsorted(codes[order], np.arange(len(high) + 1))
    starts, ends = _event_ranges(events, high, low)
    until = None if known_ranks is None else rows[:, KNOWN_UNTIL].copy()
    columns = feature_columns(
        query, KeyedEvents(events.matrix, starts, ends, known_ranks), KeyedRows(offsets, rows[:, AS_OF].copy(), until)
    )
    return rows[:, ORDINAL], columns


def _event_ranges(events: EventShard, high: Int64s, low: Int64s) -> tuple[Int64s, Int64s]:
    """The range of each key's events, [start, end); 0 to 0 for a key without events."""
    starts, ends = np.zeros(len(high), np.int64), np.zeros(len(high), np.int64)
    if len(events.key_high):
        key_index = np.searchsorted(events.key_high, high)
        key_index[key_index == len(events.key_high)] = 0
        # keys whose high halves agree stand side by side
        while (later := (events.key_high[key_index] == high) & (events.key_low[key_index] < low)).any():
            following = np.minimum(key_index + 1, len(events.key_high) - 1)
            next_index = np.where(later & (events.key_high[following] == high), following, key_index)
            if np.array_equal(next_index, key_index):
                break
            key_index = next_index
        is_present = (events.key_high[key_index] == high) & (events.key_low[key_index] == low)
        starts[is_present], ends[is_present] = events.starts[key_index[is_present]], events.ends[key_index[is_present]]
    return starts, ends


def values_out_of_range(job: FeatureJob) -> dict[str, int]:
    """Column to its values beyond what is served, null in the rows; every shard must have been computed."""
    counts: Counter[str] = Counter()
    for key_type, shard in job.shards:
        path = job.file(key_type, shard)
        if path.exists():
            with pa.memory_map(str(path)) as source:
                counts.update(orjson.loads(pa.ipc.open_file(source).schema.metadata[_OUT_OF_RANGE]))
    return dict(sorted(counts.items()))


class ShardColumns:
    """The computed shards of one key type, opened to be read block by block."""

    def __init__(self, job: FeatureJob, registry: CompiledRegistry, key_type: str) -> None:
        paths = [job.file(key_type, shard) for shard in range(job.folded_replay.shards)]
        # read, not mapped: a block that was given out is not held any more
        self._files = [pa.ipc.open_file(pa.OSFile(str(path))) for path in paths if path.exists()]
        names = dict(job.groups)[key_type]
        self.features = [
            (feature_name(name, feature.name), feature)
            for name in names
            for feature in sorted(registry.groups[name].features, key=lambda feature: feature.name)
        ]

    def block(self, block: int, first: int, count: int) -> dict[str, pa.Array]:
        """Feature name to its column, of one block, rows [first, first + count). A row without such a key has nulls."""
        parts = [file.get_batch(block) for file in self._files]
        row_offsets = _concatenate([part["ordinal"].to_numpy() for part in parts], np.int64) - first

        def gather(name: str, dtype: type) -> npt.NDArray[Any]:
            column: npt.NDArray[Any] = np.zeros(count, dtype)
            column[row_offsets] = _concatenate([part[name].to_numpy() for part in parts], dtype)
            return column

        feature_arrays = {}
        for number, (name, feature) in enumerate(self.features):
            is_valid = gather(f"valid{number}", np.uint8).view(np.bool_)
            if feature.is_list or feature.value_type is FieldType.STRING:
                places = np.zeros(count, np.int64)
                places[row_offsets] = np.arange(len(row_offsets))
                kind, stored = (list_type(feature), "list") if feature.is_list else (pa.string(), "text")
                values = pa.concat_arrays([pa.array([], kind), *(part[f"{stored}{number}"] for part in parts)])
                feature_arrays[name] = values.take(pa.array(places, mask=~is_valid))
                continue
            valid = pa.py_buffer(np.packbits(is_valid, bitorder="little"))
            low = gather(f"low{number}", np.int64)
            scale = feature.scale
            if feature.value_type is FieldType.BOOLEAN:
                bits = pa.py_buffer(np.packbits(low != 0, bitorder="little"))
                feature_arrays[name] = pa.Array.from_buffers(pa.bool_(), count, [valid, bits])
            elif scale is None:
                feature_arrays[name] = pa.Array.from_buffers(pa.int64(), count, [valid, pa.py_buffer(low)])
            else:
                halves = np.stack([low, gather(f"high{number}", np.int64)], axis=1)
                feature_arrays[name] = pa.Array.from_buffers(
                    pa.decimal128(DECIMAL_DIGITS, scale), count, [valid, pa.py_buffer(halves)]
                )
        return feature_arrays


def _concatenate(parts: list[npt.NDArray[Any]], dtype: type) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *parts])


def dataset_blocks(job: FeatureJob, registry: CompiledRegistry) -> Iterator[pa.Table]:
    """The rows with their features, block by block, in canonical order; every shard must have been computed."""
    readers = [ShardColumns(job, registry, key_type) for key_type, _ in job.groups]
    for number, (first, count) in enumerate(job.rows.blocks):
        table = job.rows.block(number)
        for reader in readers:
            for name, column in reader.block(number, first, count).items():
                table = table.append_column(name, column)
        yield table
