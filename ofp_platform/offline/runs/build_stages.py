"""The stages of a dataset build after its replay: labels, rows with features, gates. Each works from files on disk.

A stage either gives a receipt or raises `BuildRefused`; nothing that it writes is visible to anybody but the build.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ofp_platform.identity.context_replay import GraphUnknown
from ofp_platform.offline.datasets.dataset_files import DatasetFiles, write_dataset
from ofp_platform.offline.datasets.dataset_rows import dataset_rows
from ofp_platform.offline.datasets.entity_table import load_entity_table
from ofp_platform.offline.datasets.feature_leakage import check_features
from ofp_platform.offline.datasets.feature_rows import (
    compute_features,
    dataset_blocks,
    feature_job,
    on_demand_names,
    requested_groups,
    values_out_of_range,
)
from ofp_platform.offline.datasets.row_graphs import RowGraphs
from ofp_platform.offline.datasets.spark_features import compute_features_on_spark
from ofp_platform.offline.labels.event_index import IndexedLabels
from ofp_platform.offline.labels.label_columns import LABEL_SCHEMA, ResolvedLabels, RowEvents, label_columns
from ofp_platform.offline.labels.label_coverage import LabelDiagnostics, check_coverage, label_diagnostics, merge_diagnostics
from ofp_platform.offline.labels.label_leakage import check_no_leak
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.offline.replay.amended_events import AmendedEvents
from ofp_platform.offline.replay.decision_basis import RecordedDecision
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.offline.replay.spark_fold import SparkFold
from ofp_platform.offline.requests.feature_resolution import resolve_pack
from ofp_platform.offline.requests.replay_history import check_history
from ofp_platform.offline.runs.adjudicated_ids import adjudicated_ids
from ofp_platform.offline.runs.build_bounds import BuildGuard
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.served_rows import ServedRows, SkewedRows
from ofp_platform.offline.sources.replay_reading import replaying
from ofp_platform.offline.sources.run_links import run_links
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.models import EventRouting, event_class
from ofp_platform.storage.decision_records import read_decisions
from ofp_platform.storage.snapshot_records import read_records
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_intent import (
    GRAPH_VERSION_COLUMN,
    AsOfBasis,
    FeaturePackRef,
    PerEntity,
    PerEvent,
    PerGrid,
    PerTable,
    Purpose,
)
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetColumn, LabelReceipt, ServedReceipt, SkewTable
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine
from ofp_platform.vocabulary.times import parse_time

VOIDED_SHOWN = 20
"""The most voided events that a receipt names."""
_PAGE = 20_000
_ROW_KEYS = frozenset({"event_id", "event_type", "event_time_utc", "decision_id"})
_AS_OF = frozenset({"as_of_time_utc", "known_until_utc", "input_basis_digest", GRAPH_VERSION_COLUMN})


def plan_registry(build_context: BuildContext, plan: BuildPlan) -> CompiledRegistry:
    """The registry that the plan pins.

    Raises:
        BuildRefused: FEATURE_PROFILE_UNRESOLVED, STORE_UNAVAILABLE.
    """
    pinned_pack = plan.feature_pack
    if pinned_pack is None:
        raise BuildRefused(BuildReason.FEATURE_PROFILE_UNRESOLVED, "the plan pins no feature pack", "feature_pack")
    ref = FeaturePackRef(pack_id=pinned_pack.pack_id, revision=pinned_pack.revision, digest=pinned_pack.digest)
    return resolve_pack(build_context.pool, ref)[1]


def check_engine(build_context: BuildContext, plan: BuildPlan, registry: CompiledRegistry) -> None:
    """Refuse what an engine does not compute: executors hold the events of a shard, and an entity's members are in any.

    Raises:
        BuildRefused: FEATURE_PROFILE_UNRESOLVED.
    """
    groups = requested_groups(registry, plan.feature_groups or ())
    for index, group in enumerate(groups):
        if group.resolves and build_context.engine is FeatureEngine.SPARK and plan.scope is not None:
            text = f"group {group.name} {group.version} resolves identities, which Spark does not: build with engine processes"
            raise BuildRefused(BuildReason.FEATURE_PROFILE_UNRESOLVED, text, f"feature_groups.{index}")


@dataclass
class LabelJoiner:
    """Joins label columns to the rows of a dataset, block by block, and counts what the gates need to know.

    `voided_index`: the events that amendments void; labelled rows of them are counted, and their events named as class/id.
    """

    plan: BuildPlan
    events: Mapping[str, EventRouting]
    resolved: ResolvedLabels
    assertions: IndexedLabels
    voided_index: IndexedLabels
    diagnostics: list[LabelDiagnostics]
    rows_checked: int = 0
    voided_rows: int = 0
    voided_events: set[str] = field(default_factory=set)

    def blocks(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """The blocks with their label columns; immature rows are left out if the policy says so.

        Raises:
            BuildRefused: LEAKAGE_DETECTED.
        """
        drop = self.plan.policy.immature_rows == "drop"
        for block in blocks:
            times = block["event_time_utc"].cast(pa.int64()).to_numpy()
            row_events = RowEvents(self._classes(block["event_type"]), block["event_id"], times)
            columns = label_columns(self.resolved, row_events, self.plan.policy)
            self.diagnostics.append(label_diagnostics(columns, times, self.resolved, self.plan.policy))
            self._count_voided(columns, row_events)
            self.rows_checked += check_no_leak(columns, row_events, self.resolved.basis, self.plan.policy, self.assertions)
            labelled_block = block
            for label_field, column in zip(LABEL_SCHEMA, columns.columns, strict=True):
                labelled_block = labelled_block.append_column(label_field, column)
            yield labelled_block.filter(columns["label_is_mature"]) if drop else labelled_block

    def _count_voided(self, columns: pa.Table, events: RowEvents) -> None:
        if not len(self.voided_index.table):
            return
        rows, entries = self.voided_index.index.find(events.classes, events.ids, events.hashes)
        is_labelled = columns["label_observed_time"].is_valid().to_numpy()[rows]
        self.voided_rows += int(is_labelled.sum())
        labelled_events = self.voided_index.table.take(pa.array(entries[is_labelled])).to_pylist()
        self.voided_events |= {f"{event['event_class']}/{event['event_id']}" for event in labelled_events}

    def _classes(self, event_types: pa.ChunkedArray) -> pa.Array:
        """The class of each row's event."""
        names = event_types.combine_chunks().dictionary_encode()
        classes = [event_class(self.events, name) for name in names.dictionary.to_pylist()]
        return pa.DictionaryArray.from_arrays(names.indices, pa.array(classes, pa.string())).cast(pa.string())

    def receipt(self) -> tuple[LabelReceipt, LabelDiagnostics]:
        """The receipt of the labels over all rows, and their diagnostics."""
        diagnostics = merge_diagnostics(self.diagnostics)
        return LabelReceipt(
            rows=diagnostics.total("rows"),
            labelled=diagnostics.total("labelled"),
            mature=diagnostics.total("mature"),
            immature=diagnostics.total("immature"),
            covered=diagnostics.total("covered"),
            coverage=diagnostics.coverage,
            voided=self.voided_rows,
            voided_events=tuple(sorted(self.voided_events)[:VOIDED_SHOWN]),
            resolved_digest=self.resolved.digest,
        ), diagnostics


def labels(
    build_context: BuildContext, plan: BuildPlan, registry: CompiledRegistry, amended_events: AmendedEvents
) -> LabelJoiner | None:
    """The label joiner as of the plan's basis; None for a dataset without labels.

    Raises:
        BuildRefused: INVALID_INTENT, labels for rows that are no events; BASIS_UNRESOLVED; STORE_UNAVAILABLE.
    """
    if plan.label_basis is None:
        return None
    if not isinstance(plan.scope, PerEvent):
        raise BuildRefused(BuildReason.INVALID_INTENT, "labels are of events: only a per_event scope can have them", "label")
    store = LabelStore(build_context.pool, plan.context_pins)
    basis = plan.label_basis
    assertions = IndexedLabels(store.assertions(basis.label_type, basis.next_sequence))
    return LabelJoiner(
        plan, registry.pack.events, store.resolve(basis), assertions, IndexedLabels(amended_events.voided_events), []
    )


@dataclass(frozen=True)
class BuiltDataset:
    """A finished dataset that nobody can see yet. `undecided_events` have no decision and no rows (as_of_basis decision)."""

    files: DatasetFiles
    columns: tuple[DatasetColumn, ...]
    features_left_out: tuple[str, ...]
    values_out_of_range: dict[str, int]
    feature_rows_checked: int
    undecided_events: int
    served: ServedReceipt | None = None
    skew: SkewTable | None = None


def dataset(
    build_context: BuildContext,
    plan: BuildPlan,
    registry: CompiledRegistry,
    folded_replay: FoldedReplay,
    label_joiner: LabelJoiner | None,
    folder: Path,
    guard: BuildGuard,
    spark_fold: SparkFold | None = None,
) -> BuiltDataset:
    """Compute features for the rows of the scope and write the files; `folder` does not exist yet.

    `spark_fold`: where executors hold the folded events, they compute.

    Raises:
        BuildRefused: NOTHING_TO_BUILD, LEAKAGE_DETECTED, FEATURE_PROFILE_UNRESOLVED; HISTORY_TOO_SHORT;
            SERVED_ROW_MISMATCH, PARITY_BELOW_POLICY; what the guard raises, too.
        SparkUnavailable: the engine is Spark, and it failed.
    """
    if plan.scope is None or plan.as_of_basis is None:
        raise ValueError("only the plan of a dataset_build has rows")
    groups = requested_groups(registry, plan.feature_groups or ())
    decisions = _decisions(build_context, plan)
    counting_records, _ = adjudicated_ids(plan, registry, folded_replay)
    entity_table = (
        load_entity_table(build_context.objects, plan.context_pins, plan.scope) if isinstance(plan.scope, PerTable) else None
    )
    graphs = _row_graphs(build_context, plan) if any(group.resolves for group in groups) else None
    rows = dataset_rows(
        folded_replay,
        plan.scope,
        plan.as_of_basis,
        folder / "rows",
        decisions,
        guard.check,
        counting_records,
        entity_table,
        graphs,
    )
    newest = plan.newest_before_replay_utc
    check_history(None if newest is None else parse_time(newest), rows.oldest_as_of, groups)
    job = feature_job(folded_replay, rows, registry, groups, folder / "features")
    if spark_fold is None:
        compute_features(job, registry, build_context.workers, guard.check)
        checked_rows = check_features(job, registry, plan.dataset_identity, guard.check)
    else:
        checked_rows = compute_features_on_spark(job, plan.dataset_identity, spark_fold.spark, spark_fold.blocks)
    blocks = dataset_blocks(job, registry)
    snapshots_of = partial(_served_snapshots, build_context, plan.context_pins)
    served_rows: ServedRows | None = None
    skewed_rows: SkewedRows | None = None
    if plan.as_of_basis is AsOfBasis.DECISION:
        served_rows = ServedRows(snapshots_of)
        blocks = served_rows.blocks(blocks)
    elif isinstance(plan.scope, PerEvent):
        skewed_rows = SkewedRows(snapshots_of, rows)
        blocks = skewed_rows.blocks(blocks)
    blocks = guard.each(blocks)
    if label_joiner is not None:
        blocks = label_joiner.blocks(blocks)
    files = write_dataset(folder / "files", blocks)
    return BuiltDataset(
        files,
        tuple(_column(field, plan.scope) for field in files.schema),
        tuple(on_demand_names(groups)),
        values_out_of_range(job),
        checked_rows,
        rows.undecided_events,
        None if served_rows is None else served_rows.receipt(plan.policy),
        None if skewed_rows is None else skewed_rows.table(),
    )


def _row_graphs(build_context: BuildContext, plan: BuildPlan) -> RowGraphs:
    """The versions of the identity graph that rows of the plan may know.

    Raises:
        BuildRefused: BASIS_UNRESOLVED, REPLAY_INCOMPLETE, STORE_UNAVAILABLE.
    """
    links = run_links(build_context.context_log, plan.context_pins, plan.clock_skew_us, "feature_groups")
    try:
        return RowGraphs(links, plan.graph_version)
    except GraphUnknown as error:
        raise BuildRefused(BuildReason.REPLAY_INCOMPLETE, str(error), "graph_version") from None


def _served_snapshots(build_context: BuildContext, pins: ContextPins, decision_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Snapshots served for decisions of a run, by the ids of these; what is not stored, damaged or another run's is left out."""
    with replaying("as_of_basis"):
        with build_context.pool.connection() as connection:
            decisions = read_decisions(connection, decision_ids)
        hashes = {name: record.vector.snapshot_hash for name, record in decisions.items() if record.vector is not None}
        snapshots = read_records(build_context.pool, build_context.objects, list(hashes.values()), pins)
    return {decision_id: snapshots[name] for decision_id, name in hashes.items() if name in snapshots}


def _decisions(build_context: BuildContext, plan: BuildPlan) -> Iterator[RecordedDecision]:
    for start in range(0, len(plan.decisions), _PAGE):
        with build_context.pool.connection() as connection:
            page = read_decisions(connection, plan.decisions[start : start + _PAGE])
        for decision_id, record in page.items():
            if record.vector is None:  # no plan names one: there is nothing to know
                raise BuildRefused(BuildReason.PARITY_ANCHOR_UNRESOLVED, f"decision {decision_id} has no vector", "decisions")
            yield RecordedDecision(
                decision_id=decision_id,
                event_type=record.event_type,
                event_id=record.event_id,
                as_of=parse_time(record.as_of_time_utc),
                basis=record.vector.input_basis,
                position=(record.event_position.partition_id, record.event_position.offset),
                graph_version=record.vector.graph_version,
            )


def _column(field: pa.Field, scope: PerEvent | PerEntity | PerGrid | PerTable) -> DatasetColumn:
    name = field.name
    if isinstance(scope, PerTable) and name in scope.columns:
        return DatasetColumn(name=name, type=str(field.type), role="label" if name in scope.label_columns else "payload")
    if name.startswith("label_"):
        return DatasetColumn(name=name, type=str(field.type), role="label")
    if name.startswith("payload__"):
        return DatasetColumn(name=name, type=str(field.type), role="payload")
    if name in _AS_OF:
        return DatasetColumn(name=name, type=str(field.type), role="as_of")
    if name in _ROW_KEYS or name.endswith("_id"):
        return DatasetColumn(name=name, type=str(field.type), role="row_key")
    return DatasetColumn(name=name, type=str(field.type), role="feature")


def check_values(plan: BuildPlan, values_out_of_range: Mapping[str, int]) -> None:
    """The bound on values that are null because they are beyond what is served; only a training build is held to it.

    Raises:
        BuildRefused: VALUE_OUT_OF_RANGE, naming the columns.
    """
    count, bound = sum(values_out_of_range.values()), plan.policy.max_values_out_of_range
    if plan.purpose is Purpose.TRAINING and count > bound:
        names = ", ".join(f"{column} ({number:,})" for column, number in values_out_of_range.items())
        message = f"{count:,} values are beyond ±(2^53-1) or 38 digits, the policy allows {bound:,}: {names}"
        raise BuildRefused(BuildReason.VALUE_OUT_OF_RANGE, message, "feature_groups")


def check_labels(plan: BuildPlan, diagnostics: LabelDiagnostics) -> None:
    """The coverage gate; only a training build is held to it.

    Raises:
        BuildRefused: LABEL_COVERAGE_BELOW_POLICY.
    """
    if plan.purpose is Purpose.TRAINING:
        check_coverage(diagnostics, plan.policy)
