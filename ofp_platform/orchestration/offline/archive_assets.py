"""The archive as an asset: one write-once segment for each closed range of the log, proven against its receipt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import dagster as dg

from ofp_platform.log.archive import ArchiveConflict, archive_range
from ofp_platform.log.archive_segment import SegmentDamaged
from ofp_platform.log.archive_store import Archive, ReceiptDamaged, SegmentMissing
from ofp_platform.log.archive_verify import PartitionVerification, absences, verify_partition, verify_segment
from ofp_platform.log.archived_partitions import demand_archived_listed
from ofp_platform.log.archived_tail import demand_tail
from ofp_platform.log.port import LogTailLost, PartitionNotFound, PartitionVanished
from ofp_platform.log.ranges import OffsetRanges, RangeOpen
from ofp_platform.log.span_records import ReplayGap
from ofp_platform.orchestration.log.event_assets import LOG_EVENTS, OWNERS
from ofp_platform.orchestration.offline.build_metadata import archive_metadata
from ofp_platform.orchestration.online.projection_assets import RETRIES
from ofp_platform.orchestration.partitions import LogPartitions, range_key, select_ranges
from ofp_platform.orchestration.progress_lines import ProgressLines
from ofp_platform.orchestration.receipt_metadata import ENVELOPE_COLUMNS, Metadata, markdown_table
from ofp_platform.orchestration.resources import BuildContextResource, PlaneResource
from ofp_platform.vocabulary.profile import Profile

ARCHIVE_SEGMENT = dg.AssetKey(["offline", "archive_segment"])
COMPLETE = "complete_and_verified"
ARCHIVE_VERSION = "1"
POOL = "ofp_archive"
_REFUSALS = (ArchiveConflict, PartitionNotFound, RangeOpen, ReceiptDamaged, ReplayGap, SegmentDamaged, SegmentMissing)


@dataclass
class ArchiveOutcome:
    """Segments that a run archived and proved, by partition key; `refused` by partition key, in words."""

    metadata: dict[str, Metadata] = field(default_factory=dict)
    records: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def check(self) -> dg.AssetCheckResult:
        metadata: Metadata = {"segments": len(self.metadata), "records": self.records}
        if self.refused:
            metadata["refused"] = markdown_table(["partition", "why"], self.refused.items())
        is_passed = bool(self.metadata) and not self.refused
        return dg.AssetCheckResult(asset_key=ARCHIVE_SEGMENT, check_name=COMPLETE, passed=is_passed, metadata=metadata)


def archive_segment_asset(profile: Profile, partitions: LogPartitions) -> dg.AssetsDefinition:
    """`offline/archive_segment`: archives closed ranges, or proves those that are archived."""

    @dg.asset(
        key=ARCHIVE_SEGMENT,
        deps=[LOG_EVENTS],
        partitions_def=partitions.log_partition_range,
        backfill_policy=dg.BackfillPolicy.single_run(),
        description=(
            f"Offset ranges of {profile.range_size} records as write-once Parquet segments, each with a receipt that names its"
            " digests. Only a complete range gets a receipt. A range that is archived already is read again and proven."
        ),
        group_name="offline",
        kinds={"python", "parquet"},
        owners=OWNERS,
        tags={"stream": profile.stream_name},
        metadata={"range_size": profile.range_size, "dagster/column_schema": ENVELOPE_COLUMNS},
        code_version=ARCHIVE_VERSION,
        pool=POOL,
        retry_policy=RETRIES,
        check_specs=[
            dg.AssetCheckSpec(
                COMPLETE,
                asset=ARCHIVE_SEGMENT,
                blocking=True,
                description=(
                    "No position of the range is missing, and everything that the receipt says, payload hashes included,"
                    " was computed again from the stored segment."
                ),
            )
        ],
    )
    def archive_segment(context: dg.AssetExecutionContext, builds: dg.ResourceParam[BuildContextResource]) -> Iterator[object]:
        selection = select_ranges(context.partition_keys)
        outcome = ArchiveOutcome(refused=dict(selection.foreign))
        with builds.open() as build_context:
            ranges = OffsetRanges(build_context.pool, build_context.log, profile.range_size)
            progress = ProgressLines(context.log.info, "archive", "segments", sum(map(len, selection.numbers.values())))
            for partition_id, numbers in selection.numbers.items():
                for number in numbers:
                    try:
                        _archive(ranges, build_context.archive, partition_id, number, outcome)
                    except _REFUSALS as error:
                        outcome.refused[range_key(partition_id, number)] = str(error)
                    progress.add(1)
        if outcome.refused:
            # what was archived is in the archive, whatever becomes of the run: say so now
            for key, metadata in outcome.metadata.items():
                context.log_event(dg.AssetMaterialization(ARCHIVE_SEGMENT, partition=key, metadata=metadata))
            yield outcome.check()
            reasons = "\n".join(outcome.refused.values())
            raise dg.Failure(reasons, metadata={"archived_segments": len(outcome.metadata)}, allow_retries=False)
        for key, metadata in outcome.metadata.items():
            context.add_asset_metadata(metadata, partition_key=key)
        yield dg.MaterializeResult(asset_key=ARCHIVE_SEGMENT)
        yield outcome.check()

    return archive_segment


def _archive(ranges: OffsetRanges, archive: Archive, partition_id: str, number: int, outcome: ArchiveOutcome) -> None:
    receipt = archive_range(ranges, archive, partition_id, number)
    verify_segment(archive, receipt)
    outcome.metadata[range_key(partition_id, number)] = archive_metadata(archive, receipt)
    outcome.records += receipt.records


@dg.op(description="Every byte of the archive: segments, digests, payload hashes, and that they join and agree.")
def verify_archived_partitions(
    context: dg.OpExecutionContext, builds: dg.ResourceParam[BuildContextResource], plane: dg.ResourceParam[PlaneResource]
) -> None:
    """One observation of the whole archive, and its check; the run fails when something is wrong or nothing is archived."""
    with builds.open() as build_context:
        archive = build_context.archive
        ranges = OffsetRanges(build_context.pool, build_context.log, plane.load_profile().range_size)
        names, verifications = archive.partition_ids(), []
        progress = ProgressLines(context.log.info, "verification", "partitions", len(names))
        for name in names:
            verifications.append(verify_partition(archive, name, build_context.log.position_kind.offset_kind))
            progress.add(1)
        missing = absences(ranges, archive, verifications)
        try:
            demand_archived_listed(build_context.log, archive)
            demand_tail(build_context.log, archive)
            vanished_partition = None
        except (LogTailLost, PartitionVanished) as error:
            vanished_partition = str(error)
    context.log_event(dg.AssetObservation(ARCHIVE_SEGMENT, metadata=_verification(verifications)))
    evaluation = verification_check(verifications, vanished_partition, missing)
    context.instance.report_runless_asset_event(evaluation)
    if not evaluation.passed:
        raise dg.Failure(evaluation.description, metadata=evaluation.metadata, allow_retries=False)


def verification_check(
    verifications: list[PartitionVerification], vanished_partition: str | None, missing: Sequence[str] = ()
) -> dg.AssetCheckEvaluation:
    """The check `complete_and_verified` as the verification of the whole archive leaves it; red where nothing was verified.

    `vanished_partition`: of a partition that the log lists no more and that the archive does not have to its end, or that the log
    has not as far as the archive, in words. `missing`: what must be in the archive and is not.
    """
    problems = [
        (verification.partition_id, problem.path, problem.error, problem.message)
        for verification in verifications
        for problem in verification.problems
    ]
    segments = sum(verification.segments for verification in verifications)
    metadata: Metadata = {"segments": segments, "problems": len(problems)}
    if vanished_partition is not None:
        metadata["vanished"] = vanished_partition
    if missing:
        metadata["missing"] = len(missing)
    if problems:
        metadata["damaged"] = markdown_table(["log partition", "object", "error", "what"], problems)
    faults = [f"{path}: {error}: {message}" for _, path, error, message in problems]
    faults += [] if vanished_partition is None else [vanished_partition]
    faults += missing
    if not segments:
        faults.append("the archive is empty: nothing was verified. Run the job archive first")
    verified = f"{segments} segments of {len(verifications)} log partitions have the bytes that their receipts state"
    description = "\n".join(faults) or verified
    return dg.AssetCheckEvaluation(
        asset_key=ARCHIVE_SEGMENT,
        check_name=COMPLETE,
        passed=not faults,
        description=description,
        metadata=metadata,
        blocking=True,
    )


def _verification(verifications: list[PartitionVerification]) -> Metadata:
    head = ["log partition", "segments", "records", "joined", "problems"]
    rows = [
        (
            verification.partition_id,
            verification.segments,
            verification.records,
            "nothing" if verification.contiguous is None else verification.contiguous.text,
            len(verification.problems),
        )
        for verification in verifications
    ]
    return {
        "segments": sum(verification.segments for verification in verifications),
        "records": sum(verification.records for verification in verifications),
        "problems": sum(len(verification.problems) for verification in verifications),
        "partitions": markdown_table(head, rows),
    }


@dg.job(
    name="verify_archive",
    description="Reads the whole archive again and proves it by itself; observed on `offline/archive_segment`.",
    tags={"plane": "offline"},
)
def verify_archive_job() -> None:
    """Verify the archive."""
    verify_archived_partitions()


archive_job = dg.define_asset_job(
    "archive",
    dg.AssetSelection.assets(ARCHIVE_SEGMENT),
    description="Archive closed offset ranges, or prove those that are archived.",
)
