"""Parity as metadata, and the correction ledger as an asset: rates with their evidence, decisions that late events change."""

from collections.abc import Iterator, Mapping

import dagster as dg

from ofp_platform.offline.parity_summary import corrections_between, parity_summary
from ofp_platform.orchestration.log_assets import OWNERS
from ofp_platform.orchestration.offline_plots import counts_by_name, parity_by_day
from ofp_platform.orchestration.partitions import DECISION_DAY
from ofp_platform.orchestration.receipt_metadata import Metadata, markdown_table
from ofp_platform.orchestration.resources import WorkshopResource
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.times import to_micros

CORRECTION_LEDGER = dg.AssetKey(["offline", "correction_ledger"])
PARITY_REPORT = dg.AssetKey(["offline", "parity_report"])
LEDGER_VERSION = "1"
SHOWN = 50
_OUTCOMES = ("MATCH", "MISMATCH", "UNCHECKABLE")


def parity_evidence(pool: Pool, request_id: str) -> Metadata:
    """Rates by day and group, why some could not be checked, and the first mismatches."""
    found = parity_summary(pool, request_id)
    if not found.by_day:
        return {}
    metadata: Metadata = {
        "rates_by_group": markdown_table(["group", *_OUTCOMES, "match rate"], _rates(found.by_group)),
        "rates_by_day": markdown_table(["day", *_OUTCOMES, "match rate"], list(_rates(found.by_day))[-SHOWN:]),
        "parity_by_day": parity_by_day(found.by_day),
    }
    if found.by_reason:
        metadata["uncheckable_by_reason"] = markdown_table(["reason", "decisions"], found.by_reason.items())
    if found.mismatches:
        head = ["decision", "as of", "where", "key", "group", "feature", "served", "rebuilt", "events"]
        rows = []
        for record in found.mismatches:
            first = record.first_difference
            if first is None:
                rows.append((record.decision_id, record.as_of_time_utc, *[""] * 7))
                continue
            events = ", ".join(f"{event.event_id} at {event.partition_id}/{event.offset}" for event in first.events)
            key, group = f"{first.key_type} {first.key_id}", f"{first.group_name} {first.group_version}"
            differing = (first.where, key, group, first.feature, first.served, first.rebuilt, events)
            rows.append((record.decision_id, record.as_of_time_utc, *differing))
        metadata["mismatches"] = markdown_table(head, rows)
    return metadata


def _rates(found: Mapping[str, Mapping[str, int]]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, outcomes in sorted(found.items()):
        counts = [outcomes.get(outcome, 0) for outcome in _OUTCOMES]
        rows.append((name, *counts, f"{counts[0] / sum(counts):.6f}"))
    return rows


@dg.asset(
    key=CORRECTION_LEDGER,
    deps=[dg.AssetDep(PARITY_REPORT, partition_mapping=dg.AllPartitionMapping())],
    partitions_def=DECISION_DAY,
    description=(
        "Decisions of a day that would have had other features had the late events been known, feature by feature, with the"
        " events that did it. As the comparisons made so far found them; materialise a day again after another."
    ),
    group_name="offline",
    kinds={"postgres"},
    owners=OWNERS,
    code_version=LEDGER_VERSION,
)
def correction_ledger(context: dg.AssetExecutionContext, workshop: WorkshopResource) -> Iterator[dg.MaterializeResult[object]]:
    """The corrections of the day of the partition."""
    window = context.partition_time_window
    with workshop.open() as shop:
        found = corrections_between(shop.pool, to_micros(window.start), to_micros(window.end))
    metadata: Metadata = {
        "corrected_decisions": found.decisions,
        "corrections": len(found.corrections),
        "dagster/partition_row_count": len(found.corrections),
    }
    if found.corrections:
        head = ["decision", "as of", "key", "feature", "served", "corrected", "events"]
        metadata["by_feature"] = counts_by_name(found.by_feature, "corrections", "corrections by feature")
        metadata["first_corrections"] = markdown_table(
            head,
            [
                (
                    one.decision_id,
                    one.as_of_time_utc,
                    f"{one.key_type} {one.key_id}",
                    f"{one.group_name} {one.group_version} {one.feature}",
                    one.served,
                    one.corrected,
                    ", ".join(f"{event.event_id} at {event.partition_id}/{event.offset}" for event in one.events),
                )
                for one in found.corrections[:SHOWN]
            ],
        )
    yield dg.MaterializeResult(asset_key=CORRECTION_LEDGER, metadata=metadata)
