"""The projection as assets: range by range for backfills, and as the live state that a catch-up moves."""

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta

import dagster as dg

from ofp_platform.log.port import PartitionNotFound
from ofp_platform.log.ranges import RangeGap, RangeOpen, RangeTrimmed, RangeUnreadable, range_name
from ofp_platform.online.projecting.continuous import CATCH_UP, holding
from ofp_platform.online.ranges.catch_up import catch_up
from ofp_platform.online.ranges.log_progress import observe
from ofp_platform.online.ranges.range_apply import RangeReceipt, apply_ranges
from ofp_platform.online.serving.posture import NO_PROJECTION, judge
from ofp_platform.orchestration.log.event_assets import LOG_EVENTS, OWNERS
from ofp_platform.orchestration.partitions import LogPartitions, range_key, select_ranges
from ofp_platform.orchestration.progress_lines import ProgressLines
from ofp_platform.orchestration.range_plot import SHOWN, events_per_range
from ofp_platform.orchestration.receipt_metadata import Metadata, catch_up_metadata, markdown_table, range_metadata
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.serving import PostureState

PROJECTION_RANGE = dg.AssetKey(["online", "projection_range"])
PROJECTION = dg.AssetKey(["online", "projection"])
CONTIGUOUS = "basis_is_contiguous"
ONE_FATE = "every_record_has_one_fate"
POSTURE = "posture_is_not_red"
POOL = "ofp_projection"
PROJECTOR_VERSION = "1"
RETRIES = dg.RetryPolicy(max_retries=3, delay=1, backoff=dg.Backoff.EXPONENTIAL)


def projection_range_asset(profile: Profile, partitions: LogPartitions) -> dg.AssetsDefinition:
    """`online/projection_range`: applies or verifies offset ranges, in order."""

    @dg.asset(
        key=PROJECTION_RANGE,
        deps=[LOG_EVENTS],
        partitions_def=partitions.log_partition_range,
        backfill_policy=dg.BackfillPolicy.single_run(),
        description=(
            f"Offset ranges of {profile.range_size} records, folded into the live projection. Ranges of a log partition apply in"
            " order; one that the basis holds already is verified against the log instead: every record must be an event of"
            " the state, a copy of one, a recorded failure, or of no concern."
        ),
        group_name="online",
        kinds={"python", "postgres"},
        owners=OWNERS,
        tags={"stream": profile.stream_name, "pack": profile.pack.rpartition("/")[2].removesuffix(".yaml")},
        metadata={"range_size": profile.range_size, "run_config_digest": profile.run_config_digest},
        code_version=PROJECTOR_VERSION,
        pool=POOL,
        retry_policy=RETRIES,
        check_specs=[
            dg.AssetCheckSpec(
                CONTIGUOUS,
                asset=PROJECTION_RANGE,
                blocking=True,
                description="The basis is a prefix of the partition: as many records were taken as stand before it.",
            ),
            dg.AssetCheckSpec(
                ONE_FATE,
                asset=PROJECTION_RANGE,
                blocking=True,
                description="No record of the range was lost, and no event of the state was invented.",
            ),
        ],
    )
    def projection_range(context: dg.AssetExecutionContext, plane: dg.ResourceParam[PlaneResource]) -> Iterator[object]:
        done_ranges: dict[str, Metadata] = {}
        receipts: list[RangeReceipt] = []
        selection = select_ranges(context.partition_keys)
        refused_ranges = dict(selection.foreign)
        range_count = sum(map(len, selection.numbers.values()))
        progress = ProgressLines(context.log.info, "replay", "ranges", range_count)
        with plane.open() as opened_plane:
            row = opened_plane.ensure_live()
            for partition_id, numbers in selection.numbers.items():
                events = _earlier_events(context.instance, partition_id, numbers[0])
                key = ""
                began = time.perf_counter()
                try:
                    for receipt in apply_ranges(opened_plane, row, partition_id, numbers):
                        now = time.perf_counter()
                        key = range_key(partition_id, receipt.bounds.number)
                        receipts.append(receipt)
                        done_ranges[key] = range_metadata(receipt, now - began)
                        events[receipt.bounds.number] = receipt.counts["events"]
                        progress.add(1)
                        began = time.perf_counter()
                except (RangeGap, RangeOpen, RangeTrimmed, RangeUnreadable, PartitionNotFound) as error:
                    refused_ranges[partition_id] = str(error)
                if key:
                    done_ranges[key]["events_per_range"] = events_per_range(partition_id, events, profile.range_size)
        contiguous = _contiguous(receipts, refused_ranges)
        if refused_ranges:
            # the ranges that were applied are in the state, whatever becomes of the run: say so now
            for key, metadata in done_ranges.items():
                context.log_event(dg.AssetMaterialization(PROJECTION_RANGE, partition=key, metadata=metadata))
            yield contiguous
            yield _one_fate(receipts)
            raise dg.Failure(
                "\n".join(refused_ranges.values()), metadata={"applied_ranges": len(done_ranges)}, allow_retries=False
            )
        for key, metadata in done_ranges.items():
            context.add_asset_metadata(metadata, partition_key=key)
        yield dg.MaterializeResult(asset_key=PROJECTION_RANGE)
        yield contiguous
        yield _one_fate(receipts)

    return projection_range


def _earlier_events(instance: dg.DagsterInstance, partition_id: str, first: int) -> dict[int, int]:
    """Events of the ranges just before `first`, as their last materialisations say."""
    numbers = range(max(first - SHOWN + 1, 0), first)
    if not numbers:
        return {}
    records_filter = dg.AssetRecordsFilter(
        PROJECTION_RANGE, asset_partitions=[range_key(partition_id, number) for number in numbers]
    )
    event_counts: dict[int, int] = {}
    for record in reversed(instance.fetch_materializations(records_filter, limit=2 * SHOWN).records):
        event = record.asset_materialization
        value = None if event is None else event.metadata.get("events")
        if (
            event is not None
            and event.partition is not None
            and isinstance(value, dg.IntMetadataValue)
            and value.value is not None
        ):
            for event_number in select_ranges([event.partition]).numbers.get(partition_id, ()):
                event_counts[event_number] = value.value
    return event_counts


def _contiguous(receipts: list[RangeReceipt], refused_ranges: Mapping[str, str]) -> dg.AssetCheckResult:
    rows = [
        (receipt.bounds.partition_id, range_name(receipt.bounds.number), receipt.counted, receipt.expected)
        for receipt in receipts
        if not receipt.contiguous
    ]
    metadata: Metadata = {"ranges": len(receipts)}
    if refused_ranges:
        metadata["refused"] = markdown_table(["log partition, or key", "why"], refused_ranges.items())
    if rows:
        metadata["not_contiguous"] = markdown_table(["log partition", "range", "records taken", "records before the basis"], rows)
    return dg.AssetCheckResult(
        asset_key=PROJECTION_RANGE,
        check_name=CONTIGUOUS,
        passed=bool(receipts) and not rows and not refused_ranges,
        metadata=metadata,
    )


def _one_fate(receipts: list[RangeReceipt]) -> dg.AssetCheckResult:
    verified = [(receipt.bounds.partition_id, receipt.verification) for receipt in receipts if receipt.verification is not None]
    # as `ofp log show` takes a position
    lost = [f"{partition_id}:{offset}" for partition_id, verification in verified for offset in verification.lost]
    invented = [f"{partition_id}:{offset}" for partition_id, verification in verified for offset in verification.invented]
    unaccounted_count = sum(
        apply_receipt.records
        - apply_receipt.applied
        - apply_receipt.duplicates
        - apply_receipt.ignored
        - sum(apply_receipt.failures.values())
        for receipt in receipts
        for apply_receipt in receipt.receipts
    )
    return dg.AssetCheckResult(
        asset_key=PROJECTION_RANGE,
        check_name=ONE_FATE,
        passed=bool(receipts) and not lost and not invented and unaccounted_count == 0,
        description=None if receipts else "no range was applied or verified: nothing is known of any record",
        metadata={
            "ranges": len(receipts),
            "verified_records": sum(verification.records for _, verification in verified),
            "lost": ", ".join(lost) or "none",
            "invented": ", ".join(invented) or "none",
            "unaccounted": unaccounted_count,
        },
    )


def projection_asset(profile: Profile, partitions: LogPartitions) -> dg.AssetsDefinition:
    """`online/projection`: the live state; a run of it is a bounded catch-up."""

    @dg.asset(
        key=PROJECTION,
        deps=[LOG_EVENTS],
        partitions_def=partitions.log_partition,
        backfill_policy=dg.BackfillPolicy.single_run(),
        description=(
            "The live state. A run applies what the log holds when it begins; the continuous driver does the same all the time,"
            " and its commits are reported here."
        ),
        group_name="online",
        kinds={"python", "postgres"},
        owners=OWNERS,
        tags={"stream": profile.stream_name, "pack": profile.pack.rpartition("/")[2].removesuffix(".yaml")},
        metadata={"pack": profile.pack, "run_config_digest": profile.run_config_digest},
        code_version=PROJECTOR_VERSION,
        pool=POOL,
        retry_policy=RETRIES,
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=24), warn_window=timedelta(hours=1)),
    )
    def projection(
        context: dg.AssetExecutionContext, plane: dg.ResourceParam[PlaneResource]
    ) -> Iterator[dg.MaterializeResult[object]]:
        with plane.open() as opened_plane:
            row = opened_plane.ensure_live()
            with holding(opened_plane.dsn, row.projection_id, CATCH_UP):  # whoever looks knows by it that this run goes on
                lag = opened_plane.log.ordinal_lag(row.basis)
                waiting = sum(lag.get(partition_id, 0) for partition_id in context.partition_keys)
                progress = ProgressLines(context.log.info, "catch-up", "records", waiting)
                for partition_id in context.partition_keys:
                    began = time.perf_counter()
                    receipt = catch_up(opened_plane, row, partition_id, lambda receipt: progress.add(receipt.records))
                    metadata = catch_up_metadata(receipt, time.perf_counter() - began)
                    context.add_asset_metadata(metadata, partition_key=partition_id)
            tags = {"registry_digest": row.registry_digest[:16]}
        yield dg.MaterializeResult(asset_key=PROJECTION, tags=tags)

    return projection


@dg.asset_check(
    asset=PROJECTION,
    name=POSTURE,
    description="Lag and stall are below the RED thresholds of the profile. Stalled: records wait and nobody reported a commit.",
)
def posture_is_not_red(context: dg.AssetCheckExecutionContext, plane: dg.ResourceParam[PlaneResource]) -> dg.AssetCheckResult:
    """The posture of the live projection, as `/health` would judge it."""
    latest = context.instance.get_latest_materialization_event(PROJECTION)
    stalled_seconds = 0.0 if latest is None else max(time.time() - latest.timestamp, 0.0)
    with plane.open() as opened_plane:
        row = opened_plane.live()
        if row is None:
            return dg.AssetCheckResult(passed=False, description=f"{NO_PROJECTION}: no live projection of this run")
        observation = observe(opened_plane, row, stalled_seconds=stalled_seconds)
        state, reasons = judge(observation, opened_plane.profile.thresholds)
    return dg.AssetCheckResult(
        passed=state is not PostureState.RED,
        severity=dg.AssetCheckSeverity.ERROR,
        description=", ".join(reasons) or "no reason to worry",
        metadata={
            "state": state.value,
            "lag_records": observation.lag_records,
            "stalled_seconds": round(stalled_seconds, 1),
            **observation.totals.counters(),
        },
    )


catch_up_job = dg.define_asset_job(
    "catch_up",
    dg.AssetSelection.assets(PROJECTION),
    description="Apply what the log holds now, then judge the posture.",
)
replay_ranges_job = dg.define_asset_job(
    "replay_ranges",
    dg.AssetSelection.assets(PROJECTION_RANGE),
    description="Apply offset ranges in order, or verify those that the state has already.",
)
