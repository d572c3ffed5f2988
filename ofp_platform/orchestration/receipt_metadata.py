"""Receipts of the plane as metadata of Dagster: numbers that plot, tables that read, the basis as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from ofp_platform.online.projecting.projector import ApplyReceipt
from ofp_platform.online.ranges.catch_up import CatchUpReceipt
from ofp_platform.online.ranges.commit_report import ClosedRange, MovedPartition
from ofp_platform.online.ranges.comparison import Comparison
from ofp_platform.online.ranges.log_progress import LogProgress
from ofp_platform.online.ranges.range_apply import RangeReceipt
from ofp_platform.vocabulary.pack_plan import PackPlan
from ofp_platform.vocabulary.position import PartitionBasis
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_duration, format_time

Metadata = dict[str, Any]
ENVELOPE_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("partition_id", "string", "log partition"),
        dg.TableColumn("offset", "integer or string", "position in the partition"),
        dg.TableColumn("admitted_at_utc", "timestamp", "when the log took it"),
        dg.TableColumn("event_id", "string", "identity, with the class and the payload's hash"),
        dg.TableColumn("event_type", "string", "names the routing of the pack"),
        dg.TableColumn("schema_version", "string"),
        dg.TableColumn("ts_utc", "timestamp", "event time, microseconds"),
        dg.TableColumn("emitted_at_utc", "timestamp", "optional"),
        dg.TableColumn("context_pins", "object", "which run the event belongs to"),
        dg.TableColumn("amends", "object", "of an amendment: the event that it amends, and how"),
        dg.TableColumn("payload", "object", "I-JSON"),
    ]
)
SNAPSHOT_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("key_type", "string", "account, card, customer, merchant or device"),
        dg.TableColumn("key_id", "string", "canonical entity id"),
        dg.TableColumn("feature_snapshot_hash", "string", "SHA-256; the name of the object"),
        dg.TableColumn("reference", "string", "path in the object store"),
    ]
)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return dg.MetadataValue.md(
        "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
    )


def basis_text(basis: PartitionBasis | None) -> str:
    """A partition's basis in words."""
    if basis is None:
        return "nothing yet"
    return f"{basis.offset_kind.value} {basis.offset}" + (" (closed)" if basis.closed else "")


def _watermark(watermark: int | None) -> Metadata:
    if watermark is None:
        return {}
    return {"watermark": format_time(watermark), "watermark_time": dg.MetadataValue.timestamp(watermark / MICROS_PER_SECOND)}


def _failures(failures: Mapping[str, int], group_failures: Mapping[str, int]) -> Metadata:
    tables = {"failures_by_reason": failures, "failures_of_some_groups_by_reason": group_failures}
    return {name: markdown_table(["reason", "records"], reasons.items()) for name, reasons in tables.items() if reasons}


def _commits(receipts: Sequence[ApplyReceipt], partition_id: str) -> Metadata:
    if not receipts:
        return {}
    rows = [
        (
            receipt.version,
            basis_text(receipt.basis_before.by_partition().get(partition_id)),
            basis_text(receipt.basis_after.by_partition().get(partition_id)),
            receipt.records,
            receipt.applied,
            receipt.touched_keys,
            receipt.chunks,
        )
        for receipt in receipts[-20:]
    ]
    head = ["version", "basis before", "basis after", "records", "events", "keys", "chunks"]
    return {"commits": len(receipts), "last_commits": markdown_table(head, rows)}


def range_metadata(receipt: RangeReceipt, seconds: float) -> Metadata:
    """One applied or verified range."""
    counts, bounds = receipt.counts, receipt.bounds
    metadata: Metadata = {
        "status": receipt.status,
        "events": counts["events"],
        "duplicates": counts["duplicates"],
        "late": counts["late"],
        "failures": counts["failed"],
        "anomalies": counts["anomalies"],
        "ignored": counts["ignored"],
        "basis": basis_text(receipt.basis),
        "range": f"{basis_text(bounds.start)} to {basis_text(bounds.end)}",
        "dagster/partition_row_count": bounds.records,
        "seconds": round(seconds, 3),
        "events_per_second": round(bounds.records / seconds, 1) if seconds > 0 else 0.0,
        **_watermark(receipt.watermark),
        **_failures(receipt.failures, receipt.group_failures),
        **_commits(receipt.receipts, bounds.partition_id),
    }
    if receipt.verification is not None:
        verification = receipt.verification
        rows = [
            ("records read again", verification.records),
            ("events of the state", verification.events),
            ("copies of known events", verification.duplicates),
            ("recorded failures", sum(verification.failures.values())),
            ("of another run or an unknown type", verification.ignored),
            ("behind the horizon", verification.forgotten),
            ("lost", len(verification.lost)),
            ("invented", len(verification.invented)),
        ]
        metadata["verification"] = markdown_table(["fate", "records"], rows)
    return metadata


def closed_range_metadata(closed_range: ClosedRange) -> Metadata:
    """One range that somebody's commits closed, as the store has it."""
    contents, bounds = closed_range.contents, closed_range.bounds
    failures = sum(contents.failures.values())
    return {
        "status": "reported",
        "events": contents.events,
        "failures": failures,
        "copies_or_ignored": bounds.records - contents.events - failures,
        "anomalies": contents.anomalies,
        "basis": basis_text(closed_range.basis),
        "range": f"{basis_text(bounds.start)} to {basis_text(bounds.end)}",
        "dagster/partition_row_count": bounds.records,
        **_failures(contents.failures, contents.group_failures),
    }


def catch_up_metadata(receipt: CatchUpReceipt, seconds: float) -> Metadata:
    """One bounded catch-up of a partition."""
    counts = receipt.counts
    return {
        "records": counts["records"],
        "events": counts["applied"],
        "duplicates": counts["duplicates"],
        "late": counts["late"],
        "failures": counts["failed"],
        "anomalies": counts["anomalies"],
        "basis": basis_text(receipt.basis),
        "version": receipt.version,
        "lag_records": receipt.lag,
        "seconds": round(seconds, 3),
        "events_per_second": round(counts["records"] / seconds, 1) if seconds > 0 else 0.0,
        **_watermark(receipt.watermark),
        **_failures(receipt.failures, receipt.group_failures),
        **_commits(receipt.receipts, receipt.partition_id),
    }


def moved_metadata(partition: MovedPartition, version: int, watermark: int | None) -> Metadata:
    """One partition that somebody's commits moved; the counts are totals."""
    totals = partition.totals
    return {
        "basis": basis_text(partition.basis),
        "version": version,
        "lag_records": partition.lag,
        "total_records": totals.records,
        "total_events": totals.applied,
        "total_duplicates": totals.duplicates,
        "total_late": totals.late,
        "total_failures": totals.failed,
        **_watermark(watermark),
    }


def progress_metadata(progress: LogProgress) -> Metadata:
    """One partition of the log."""
    return {
        "head": basis_text(progress.head),
        "floor": basis_text(progress.floor),
        "basis": basis_text(progress.basis),
        "lag_records": progress.lag,
    }


def plan_metadata(plan: PackPlan) -> Metadata:
    """One plan of a pack."""
    estimate = plan.estimate
    metadata: Metadata = {
        "plan_digest": plan.digest(),
        "live_registry": plan.live_registry,
        "registry": plan.new_registry,
        "unchanged": plan.unchanged,
        "records": estimate.records,
        "state_bytes": estimate.state_bytes,
        "measured": estimate.measured,
        "groups": markdown_table(
            ["group version", "change", "key", "features", "reaches back", "read by"],
            [
                (
                    f"{group.group_name} {group.group_version}",
                    group.change.value + (f", in the place of {', '.join(group.replaces)}" if group.replaces else ""),
                    group.key_type,
                    group.features,
                    format_duration(group.reach_us),
                    ", ".join(f"{reader.kind} {reader.name}" for reader in group.read_by) if plan.readers_known else "not known",
                )
                for group in plan.groups
            ],
        ),
    }
    return metadata if estimate.seconds is None else {**metadata, "seconds_of_work": round(estimate.seconds, 1)}


def comparison_metadata(comparison: Comparison) -> Metadata:
    """One comparison of two projections."""
    metadata: Metadata = {
        "equal": comparison.equal,
        "sampled_keys": comparison.keys,
        "as_of": ", ".join(format_time(moment) for moment in comparison.moments),
        "live_hash": comparison.live_hash,
        "beside_hash": comparison.beside_hash,
        "groups": markdown_table(
            ["group version", "in", "compared keys"],
            [
                *((name, "both", comparison.compared_keys[name]) for name in comparison.common),
                *((name, "live only", "none: nobody serves it afterwards") for name in comparison.only_live),
                *((name, "beside only", comparison.compared_keys[name]) for name in comparison.only_beside),
            ],
        ),
    }
    if comparison.differences:
        metadata["differences"] = markdown_table(
            ["key", "group", "as of", "feature", "live", "beside"],
            [
                (
                    f"{difference.key_type} {difference.key_id}",
                    difference.group,
                    format_time(difference.as_of),
                    difference.feature,
                    difference.live,
                    difference.beside,
                )
                for difference in comparison.differences
            ],
        )
    return metadata
