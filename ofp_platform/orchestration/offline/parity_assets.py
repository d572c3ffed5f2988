"""Parity as metadata, and the correction ledger as an asset: rates with their evidence, decisions that late events change."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import dagster as dg

from ofp_platform.offline.parity.forensic_rebuild import RunPolicies
from ofp_platform.offline.parity.parity_summary import CorrectionSummary, corrections_between, parity_summary
from ofp_platform.offline.runs.run_parity import RunToProve, correct_run
from ofp_platform.orchestration.log.event_assets import OWNERS
from ofp_platform.orchestration.offline.build_plots import counts_by_name, parity_by_day
from ofp_platform.orchestration.partitions import DAY_FORMAT, TooManyPartitions, decision_days, demand_few
from ofp_platform.orchestration.receipt_metadata import Metadata, markdown_table
from ofp_platform.orchestration.resources import BuildContextResource
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.position import make_basis
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.times import to_micros

CORRECTION_LEDGER = dg.AssetKey(["offline", "correction_ledger"])
PARITY_REPORT = dg.AssetKey(["offline", "parity_report"])
LEDGER_VERSION = "2"
SHOWN = 50
MOST_DAYS = 366
POOL = "ofp_parity"
DAY_US = 86_400_000_000
_OUTCOMES = ("MATCH", "MISMATCH", "UNCHECKABLE")


def parity_evidence(pool: Pool, request_id: str) -> Metadata:
    """Rates by day and group, why some could not be checked, and the first mismatches."""
    summary = parity_summary(pool, request_id)
    if not summary.by_day:
        return {}
    metadata: Metadata = {
        "rates_by_group": markdown_table(["group", *_OUTCOMES, "match rate"], _rates(summary.by_group)),
        "rates_by_day": markdown_table(["day", *_OUTCOMES, "match rate"], list(_rates(summary.by_day))[-SHOWN:]),
        "parity_by_day": parity_by_day(summary.by_day),
    }
    if summary.by_reason:
        metadata["uncheckable_by_reason"] = markdown_table(["reason", "decisions"], summary.by_reason.items())
    if summary.mismatches:
        head = ["decision", "as of", "where", "key", "group", "feature", "served", "rebuilt", "events"]
        rows = []
        for record in summary.mismatches:
            first = record.first_difference
            if first is None:
                rows.append((record.decision_id, record.as_of and record.as_of.as_of_time_utc, *[""] * 7))
                continue
            events = ", ".join(f"{event.event_id} at {event.partition_id}/{event.offset}" for event in first.events)
            key, group = f"{first.key_type} {first.key_id}", f"{first.group_name} {first.group_version}"
            differing = (first.where, key, group, first.feature, first.served, first.rebuilt, events)
            rows.append((record.decision_id, record.as_of and record.as_of.as_of_time_utc, *differing))
        metadata["mismatches"] = markdown_table(head, rows)
    return metadata


def _rates(outcomes_by_name: Mapping[str, Mapping[str, int]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, outcomes in sorted(outcomes_by_name.items()):
        counts = [outcomes.get(outcome, 0) for outcome in _OUTCOMES]
        rows.append((name, *counts, f"{counts[0] / sum(counts):.6f}"))
    return rows


def correction_ledger_asset(profile: Profile) -> dg.AssetsDefinition:
    """`offline/correction_ledger`: what late events would have changed, by day of the decision."""

    @dg.asset(
        key=CORRECTION_LEDGER,
        deps=[dg.AssetDep(PARITY_REPORT, partition_mapping=dg.AllPartitionMapping())],
        partitions_def=decision_days(profile),
        backfill_policy=dg.BackfillPolicy.single_run(),
        description=(
            "Decisions of a day that would have had other features had all been known that log and archive hold now, feature"
            " by feature, with the late events that did it. A run looks at every recorded decision once, for all of its days."
        ),
        group_name="offline",
        kinds={"postgres"},
        owners=OWNERS,
        code_version=LEDGER_VERSION,
        pool=POOL,
    )
    def correction_ledger(
        context: dg.AssetExecutionContext, builds: dg.ResourceParam[BuildContextResource]
    ) -> Iterator[dg.MaterializeResult[object]]:
        """Compute the corrections up to now, then show those of each day of the run."""
        try:
            demand_few(context.partition_keys, MOST_DAYS, "days")
        except TooManyPartitions as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        declared_profile = builds.load_profile()
        with builds.open() as build_context:
            basis = make_basis(declared_profile.stream_name, build_context.stream_records.ends)
            comparison: Metadata = {}
            try:
                tally = correct_run(
                    build_context, RunToProve(declared_profile.context_pins, RunPolicies.of(declared_profile), basis)
                )
                comparison = {"decisions_compared": tally.compared_count, "decisions_unproven": tally.unproven_count}
            except BuildRefused as refused:
                if refused.reason is not BuildReason.NOTHING_TO_BUILD:
                    raise dg.Failure(str(refused), allow_retries=refused.retryable) from None
                comparison = {"decisions_compared": 0}
            for day in context.partition_keys:
                start = to_micros(datetime.strptime(day, DAY_FORMAT).replace(tzinfo=UTC))
                metadata = {**comparison, **_of_day(corrections_between(build_context.pool, start, start + DAY_US))}
                context.add_asset_metadata(metadata, partition_key=day)
        yield dg.MaterializeResult(asset_key=CORRECTION_LEDGER)

    return correction_ledger


def _of_day(summary: CorrectionSummary) -> Metadata:
    metadata: Metadata = {
        "corrected_decisions": summary.decisions,
        "corrections": len(summary.corrections),
        "dagster/partition_row_count": len(summary.corrections),
    }
    if summary.corrections:
        head = ["decision", "as of", "key", "feature", "served", "corrected", "events and links"]
        metadata["by_feature"] = counts_by_name(summary.by_feature, "corrections", "corrections by feature")
        metadata["first_corrections"] = markdown_table(
            head,
            [
                (
                    correction.decision_id,
                    correction.as_of_time_utc,
                    f"{correction.key_type} {correction.key_id}",
                    f"{correction.group_name} {correction.group_version} {correction.feature}",
                    correction.served,
                    correction.corrected,
                    ", ".join(
                        [f"{event.event_id} at {event.partition_id}/{event.offset}" for event in correction.events]
                        + [f"{link.event_id} at {link.partition_id}/{link.offset}" for link in correction.links]
                    ),
                )
                for correction in summary.corrections[:SHOWN]
            ],
        )
    return metadata


correction_ledger_job = dg.define_asset_job(
    "correction_ledger",
    dg.AssetSelection.assets(CORRECTION_LEDGER),
    description="Show which decisions of a day late events would have changed, as the comparisons so far found them.",
)
