"""The first stage of a build: its replay basis folded, and its archive held against the log meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from ofp_platform.log.archive import ArchiveConflict
from ofp_platform.log.archive_check import cross_check
from ofp_platform.log.port import RecordBatch
from ofp_platform.log.ranges import place
from ofp_platform.offline.datasets.feature_rows import requested_groups
from ofp_platform.offline.replay.archived_fold import PAGE, ArchivedFold, archived_fold
from ofp_platform.offline.replay.candidate_rows import CandidateScope, candidate_scope
from ofp_platform.offline.replay.known_events import FoldedReplay, fold_replay
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.sources.replay_reading import replaying
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.vocabulary.offline.build_intent import PerEvent, Purpose
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import ReplayReceipt
from ofp_platform.vocabulary.times import format_time

T = TypeVar("T")


def check_archive(build_context: BuildContext, plan: BuildPlan) -> int:
    """Hold the archive against the log wherever both have the replay's records. How many positions were compared.

    Raises:
        BuildRefused: REPLAY_MISMATCH, the two differ (recorded in ofp.archive_conflict); what `replaying` tells.
    """
    compared = 0
    with replaying():
        for span in plan.replay_basis.partitions:
            found = cross_check(build_context.log, build_context.archive, build_context.pool, span)
            try:
                found.demand_agreement()
            except ArchiveConflict as error:
                raise BuildRefused(BuildReason.REPLAY_MISMATCH, str(error), "replay") from error
            compared += found.compared
    return compared


@contextmanager
def begun_replay(
    build_context: BuildContext, plan: BuildPlan, registry: CompiledRegistry, folder: Path
) -> Iterator[ArchivedFold | None]:
    """Begin the replay of what is archived in other processes, if that is worth it; `folder` does not exist yet.

    Raises:
        BuildRefused: FEATURE_PROFILE_UNRESOLVED, ARCHIVE_DAMAGED, STORE_UNAVAILABLE.
    """
    with ExitStack() as stack:
        with replaying():
            begun = stack.enter_context(
                archived_fold(
                    build_context.archive,
                    plan.replay_basis.partitions,
                    plan.cut_over,
                    registry,
                    plan.context_pins,
                    plan.clock_skew_us,
                    folder,
                    workers=build_context.workers,
                    scope=_candidates(plan, registry),
                    least_records=build_context.processes_from,
                )
            )
        yield begun


def replay(
    build_context: BuildContext, plan: BuildPlan, registry: CompiledRegistry, folder: Path, begun: ArchivedFold | None = None
) -> tuple[FoldedReplay, ReplayReceipt]:
    """Fold the plan's replay basis, or what is left of one that was begun; else `folder` does not exist yet.

    Raises:
        BuildRefused: REPLAY_INCOMPLETE, ARCHIVE_DAMAGED, STORE_UNAVAILABLE; EVENT_ANOMALY in a training build.
    """
    with replaying():
        if begun is not None:
            folded = begun.finish(_ahead(_left(build_context, begun)))
        else:
            scope = _candidates(plan, registry)
            folded = fold_replay(
                _ahead(_records(build_context, plan)), registry, plan.context_pins, plan.clock_skew_us, folder, scope=scope
            )
    ends = {end.partition_id: end for end in folded.ends}
    for span in plan.replay_basis.partitions:
        reached = ends.get(span.partition_id, span.first)
        if place(reached) != place(span.end):
            raise BuildRefused(
                BuildReason.REPLAY_INCOMPLETE,
                f"partition {span.partition_id} was read up to {reached.offset}, the basis ends at {span.next}",
                "replay",
            )
    if folded.anomalies and plan.purpose is Purpose.TRAINING:
        first = folded.anomalies[0]
        where = ", ".join(f"{partition}/{offset}" for partition, offset in first.positions)
        raise BuildRefused(
            BuildReason.EVENT_ANOMALY,
            f"{len(folded.anomalies)} event ids have several contents, the first at {where}: no training set is made of them",
            "replay",
        )
    return folded, ReplayReceipt(
        records=folded.records,
        applied=folded.applied,
        duplicates=folded.duplicates,
        failed=folded.failed,
        ignored=folded.ignored,
        other_run=folded.other_run,
        failures_by_reason=dict(folded.failures),
        anomalies=len(folded.anomalies),
        watermark_utc=None if folded.watermark is None else format_time(folded.watermark),
    )


def _candidates(plan: BuildPlan, registry: CompiledRegistry) -> CandidateScope | None:
    if not isinstance(plan.scope, PerEvent):
        return None
    groups = requested_groups(registry, plan.feature_groups or ())
    return candidate_scope(plan.scope, registry, tuple(sorted({group.key_type for group in groups})))


def _records(build_context: BuildContext, plan: BuildPlan) -> Iterator[RecordBatch]:
    """Everything in the replay basis: of each partition the archive up to the plan's cut-over, then the log.

    Where the archive has grown since the plan was made, it is read further: the log may have been trimmed behind it.
    """
    reader = build_context.held.reader
    planned = {part.partition_id: part for part in plan.cut_over}
    for span in plan.replay_basis.partitions:
        now = reader.cut_over(span)
        yield from reader.batches(span, PAGE, max(now, planned.get(span.partition_id, now), key=place))


def _left(build_context: BuildContext, begun: ArchivedFold) -> Iterator[RecordBatch]:
    """What a replay that was begun leaves: out of the log, and out of the archive where that has grown since the plan."""
    reader = build_context.held.reader
    for span in begun.remaining_spans:
        yield from reader.batches(span, PAGE)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same, each made in a thread while the one before it is used: half of reading is outside the interpreter's lock."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
