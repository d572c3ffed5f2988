"""The first stage of a build: its replay basis folded, and its archive held against the log meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from ofp_platform.log.archive import ArchiveConflict
from ofp_platform.log.archive_check import cross_check
from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.datasets.feature_rows import requested_groups
from ofp_platform.offline.replay.amended_events import AmendedEvents, amended_events
from ofp_platform.offline.replay.archived_fold import (
    PAGE,
    ArchivedFold,
    FoldSettings,
    archived_fold,
    divide,
    pickle_shares,
    span_records,
)
from ofp_platform.offline.replay.candidate_rows import CandidateScope, candidate_scope
from ofp_platform.offline.replay.known_events import FoldedReplay, fold_replay
from ofp_platform.offline.replay.memory_budget import FoldSizes
from ofp_platform.offline.replay.spark_fold import SparkFold
from ofp_platform.offline.runs.adjudicated_ids import adjudicated_ids
from ofp_platform.offline.runs.build_bounds import BuildGuard
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.sources.read_ahead import read_ahead
from ofp_platform.offline.sources.replay_reading import replaying
from ofp_platform.offline.sources.spark_engine import spark_session
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.storage.anomaly_records import record_anomalies
from ofp_platform.vocabulary.offline.build_intent import DatasetBuild, PerEvent, Purpose
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import ReplayReceipt
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import place
from ofp_platform.vocabulary.times import format_time

UNMET_SHOWN = 20
"""The most amendments without an event that a receipt names."""


class Replayed(NamedTuple):
    """A replay basis, folded, what amendments do in it, and its receipt."""

    folded_replay: FoldedReplay
    amended_events: AmendedEvents
    receipt: ReplayReceipt


def check_archive(build_context: BuildContext, plan: BuildPlan) -> int:
    """Hold the archive against the log wherever both have the replay's records. How many positions were compared.

    Raises:
        BuildRefused: REPLAY_MISMATCH, the two differ (recorded in ofp.archive_conflict); as `replaying`.
    """
    compared_positions = 0
    with replaying():
        for span in plan.replay_basis.partitions:
            agreement = cross_check(build_context.log, build_context.archive, build_context.pool, span)
            try:
                agreement.demand_agreement()
            except ArchiveConflict as error:
                raise BuildRefused(BuildReason.REPLAY_MISMATCH, str(error), "replay") from error
            compared_positions += agreement.compared
    return compared_positions


@contextmanager
def start_replay(
    build_context: BuildContext, plan: BuildPlan, registry: CompiledRegistry, folder: Path
) -> Iterator[ArchivedFold | SparkFold | None]:
    """Start folding the archived part elsewhere: on Spark where that is the engine, else in other processes, where that is
    faster; `folder` does not exist yet. What is folded on Spark is held there until the context ends.

    Raises:
        BuildRefused: FEATURE_PROFILE_UNRESOLVED, ARCHIVE_DAMAGED, STORE_UNAVAILABLE.
        MemoryTooSmall: so many records do not fit the memory of the build. SparkUnavailable: Spark does not start.
    """
    with ExitStack() as stack:
        sizes, scope = fold_sizes(build_context, plan.replay_basis, registry), _candidates(plan, registry)
        history = build_context.log.history
        settings = FoldSettings(registry.pack, plan.context_pins, plan.clock_skew_us, history, folder, sizes, scope)
        replayed = (build_context.archive, plan.replay_basis.partitions, plan.cut_over, registry, settings)
        fold: ArchivedFold | SparkFold | None
        if build_context.engine is FeatureEngine.SPARK:
            spark = stack.enter_context(spark_session(build_context.workers))
            with replaying():
                division = divide(*replayed, workers=None)
            if pickle_shares(division.shares) is None:
                division = replace(division, shares=(), remaining_spans=plan.replay_basis.partitions)
            fold = SparkFold(spark, division, folder)
        else:
            least_records = build_context.processes_from
            with replaying():
                fold = stack.enter_context(archived_fold(*replayed, workers=build_context.workers, least_records=least_records))
        yield fold


def replay(
    build_context: BuildContext,
    plan: BuildPlan,
    registry: CompiledRegistry,
    folder: Path,
    archived_fold: ArchivedFold | SparkFold | None,
    guard: BuildGuard,
) -> Replayed:
    """Fold the plan's replay basis, or finish the given fold; without one, `folder` does not exist yet.

    Raises:
        what the guard raises.
        BuildRefused: REPLAY_INCOMPLETE, ARCHIVE_DAMAGED, STORE_UNAVAILABLE; FAILED_RECORDS_ABOVE_POLICY; EVENT_ANOMALY in a
            training build.
    """
    with replaying():
        if archived_fold is not None:
            if isinstance(archived_fold, ArchivedFold):
                archived_fold.wait(guard.check)
            rest = read_ahead(_remaining_records(build_context, archived_fold))
            folded_replay = archived_fold.finish(guard.each(rest))
        else:
            scope = _candidates(plan, registry)
            sizes = fold_sizes(build_context, plan.replay_basis, registry)
            folded_replay = fold_replay(
                guard.each(read_ahead(_basis_records(build_context, plan))),
                registry,
                plan.context_pins,
                plan.clock_skew_us,
                folder,
                shards=sizes.shards,
                keys_held=sizes.keys_held,
                scope=scope,
            )
    ends = {end.partition_id: end for end in folded_replay.ends}
    for span in plan.replay_basis.partitions:
        reached_end = ends.get(span.partition_id, span.first)
        if place(reached_end) != place(span.end):
            raise BuildRefused(
                BuildReason.REPLAY_INCOMPLETE,
                f"partition {span.partition_id} was read up to {reached_end.offset}, the basis ends at {span.next}",
                "replay",
            )
    if folded_replay.anomalies:
        with answering(), build_context.pool.connection() as connection:
            record_anomalies(connection, plan.stream_name, plan.context_pins, registry.digest, folded_replay.anomalies)
    _, undecided_anomalies = adjudicated_ids(plan, registry, folded_replay)
    if undecided_anomalies and plan.purpose is Purpose.TRAINING:
        first = undecided_anomalies[0]
        where = ", ".join(f"{partition}/{offset}" for partition, offset in first.positions)
        raise BuildRefused(
            BuildReason.EVENT_ANOMALY,
            f"{len(undecided_anomalies)} event ids have several contents, the first, {first.event_id} of type {first.event_type},"
            f" at {where}: no training set is made of them until somebody decides which one counts (`ofp id adjudicate`)",
            "replay",
        )
    failed_for_groups = _failed_for_groups(plan, registry, folded_replay)
    amended_part = folded_replay
    if isinstance(archived_fold, SparkFold):  # executors hold the events
        amended_part = archived_fold.amended_part(folded_replay, folder.with_name("amended"))
    amendments = amended_events(amended_part, registry)
    receipt = ReplayReceipt(
        records=folded_replay.records,
        applied=folded_replay.applied,
        duplicates=folded_replay.duplicates,
        failed=folded_replay.failed,
        ignored=folded_replay.ignored,
        other_run=folded_replay.other_run,
        failures_by_reason=dict(folded_replay.failures),
        group_failures_by_reason=dict(folded_replay.group_failures),
        failed_for_groups=failed_for_groups,
        anomalies=len(folded_replay.anomalies),
        amendments=amendments.amendments,
        unmet_amendments=len(amendments.unmet),
        first_unmet=tuple("/".join(place) for place in amendments.unmet[:UNMET_SHOWN]),
        watermark_utc=None if folded_replay.watermark is None else format_time(folded_replay.watermark),
    )
    return Replayed(folded_replay, amendments, receipt)


def fold_sizes(build_context: BuildContext, basis: ReplayBasis, registry: CompiledRegistry) -> FoldSizes:
    """The sizes of a fold of that basis within the memory of the build.

    Raises:
        MemoryTooSmall: there are none.
    """
    return build_context.memory_budget.fold_sizes(replay_records(build_context, basis), registry)


def replay_records(build_context: BuildContext, basis: ReplayBasis) -> int:
    """About how many records a basis has.

    Raises:
        BuildRefused: ARCHIVE_DAMAGED, STORE_UNAVAILABLE.
    """
    with replaying():
        return sum(span_records(build_context.archive, span) for span in basis.partitions)


def _failed_for_groups(plan: BuildPlan, registry: CompiledRegistry, folded_replay: FoldedReplay) -> int:
    """How many records fail for a group of the plan.

    Raises:
        BuildRefused: FAILED_RECORDS_ABOVE_POLICY, it is a greater share of the run's records than the policy allows a dataset.
    """
    groups = requested_groups(registry, plan.feature_groups or ())
    failed = folded_replay.not_fed((group.name, group.version) for group in groups)
    records = folded_replay.records - folded_replay.other_run
    if isinstance(plan.intent, DatasetBuild) and failed > Fraction(plan.policy.max_failed_share) * records:
        reasons = Counter(folded_replay.failures) + Counter(folded_replay.group_failures)
        by_reason = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        raise BuildRefused(
            BuildReason.FAILED_RECORDS_ABOVE_POLICY,
            f"{failed:,} of the {records:,} records of the run fail for a group of the dataset, policy {plan.policy.policy_id}"
            f" revision {plan.policy.revision} allows a share of {plan.policy.max_failed_share}; over all groups of the pack:"
            f" {by_reason}",
            "replay",
        )
    return failed


def _candidates(plan: BuildPlan, registry: CompiledRegistry) -> CandidateScope | None:
    if not isinstance(plan.scope, PerEvent):
        return None
    groups = requested_groups(registry, plan.feature_groups or ())
    return candidate_scope(plan.scope, registry, groups)


def _basis_records(build_context: BuildContext, plan: BuildPlan) -> Iterator[RecordBatch]:
    """Everything in the replay basis: of each partition the archive up to the plan's cut-over, then the log.

    Where the archive has grown since the plan was made, it is read further: the log may have been trimmed behind it.
    """
    reader = build_context.stream_records.reader
    planned_cut_overs = {part.partition_id: part for part in plan.cut_over}
    for span in plan.replay_basis.partitions:
        current_cut_over = reader.cut_over(span)
        yield from reader.batches(
            span, PAGE, max(current_cut_over, planned_cut_overs.get(span.partition_id, current_cut_over), key=place)
        )


def _remaining_records(build_context: BuildContext, archived_fold: ArchivedFold | SparkFold) -> Iterator[RecordBatch]:
    """The rest of a started fold: out of the log, and out of the archive where that has grown since the plan."""
    reader = build_context.stream_records.reader
    for span in archived_fold.remaining_spans:
        yield from reader.batches(span, PAGE)
