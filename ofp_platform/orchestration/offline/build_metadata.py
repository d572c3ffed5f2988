"""Receipts of the offline plane as metadata of Dagster: counts that plot, tables that read, paths and digests to follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import dagster as dg

from ofp_platform.log.archive_store import Archive
from ofp_platform.orchestration.offline.build_plots import label_coverage_by_day
from ofp_platform.orchestration.online.feature_group_assets import feature_group_key
from ofp_platform.orchestration.receipt_metadata import Metadata, markdown_table
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetColumn, DatasetManifest
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine

SHOWN_DAYS = 60
SHOWN_FILES = 40


def archive_metadata(archive: Archive, receipt: ArchiveReceipt) -> Metadata:
    """One segment that was read again and is what its receipt says."""
    return {
        "records": receipt.records,
        "unreadable": receipt.unreadable,
        "bytes": receipt.segment_bytes,
        "dagster/partition_row_count": receipt.records,
        "range": receipt.span.text,
        "admitted": f"{receipt.admitted_min} to {receipt.admitted_max}" if receipt.admitted_min else "no readable record",
        "segment_digest": receipt.segment_digest,
        "content_digest": receipt.content_digest,
        "receipt_digest": receipt.receipt_digest,
        "segment": _object(archive.store, receipt.segment_path),
        "receipt": _object(archive.store, archive.receipt_path(receipt.span)),
    }


def stage_metadata(stage: str, content: Mapping[str, Any], digest: str, objects: ObjectStore) -> Metadata:
    """The receipt of one stage of a build. Every stage that a builder records has its own reading here."""
    return {**_READINGS[stage](content, objects), "receipt_digest": digest}


def _plan(content: Mapping[str, Any], objects: ObjectStore) -> Metadata:
    plan = BuildPlan.model_validate(content)
    spans = zip(plan.replay_basis.partitions, plan.cut_over, strict=True)
    metadata: Metadata = {
        "request_id": plan.request_id,
        "intent": plan.intent.intent,
        "run_facts": f"{plan.run_facts.reference} ({plan.run_facts.digest})",
        "replay": markdown_table(
            ["log partition", "from", "up to", "out of the archive up to"],
            [(span.partition_id, span.start or "its start", span.next, cut.offset) for span, cut in spans],
        ),
        "policy": markdown_table(["rule", "value"], sorted(plan.policy.model_dump(mode="json").items())),
        "parity_anchors": len(plan.parity_anchors),
        "run_config_digest": plan.run_config_digest,
        "policy_rev": plan.policy_rev or "an earlier release",
        "ofs_code_release_id": plan.ofs_code_release_id,
    }
    if plan.scope is not None:
        metadata["dataset_identity"] = plan.dataset_identity
    if plan.as_of_basis is not None:
        metadata["as_of_basis"] = plan.as_of_basis.value
    if plan.graph_version is not None:
        metadata["graph_version"] = f"{plan.graph_version.graph_version} of {plan.graph_version.stream_name}"
    if plan.feature_pack is not None:
        metadata["feature_pack"] = (
            f"{plan.feature_pack.pack_id} revision {plan.feature_pack.revision} ({plan.feature_pack.digest})"
        )
    if plan.feature_groups is not None:
        metadata["feature_groups"] = ", ".join(f"{group.group_name} {group.group_version}" for group in plan.feature_groups)
    if plan.label_basis is not None:
        basis = plan.label_basis
        metadata["label_basis"] = (
            f"{basis.label_type} as of {basis.as_of_utc}, mature after {basis.maturity_seconds} s, {basis.rule}"
        )
    return metadata


def _replay(content: Mapping[str, Any], objects: ObjectStore) -> Metadata:
    counts = {name: value for name, value in content.items() if isinstance(value, int)}
    metadata: Metadata = {**counts, "watermark": content.get("watermark_utc") or "no event"}
    if failures := content.get("failures_by_reason"):
        metadata["failures_by_reason"] = markdown_table(["reason", "records"], failures.items())
    if first_unmet := content.get("first_unmet"):
        metadata["first_unmet_amendments"] = ", ".join(first_unmet)
    return metadata


def _labels(content: Mapping[str, Any], objects: ObjectStore) -> Metadata:
    by_day: Sequence[Mapping[str, Any]] = content.get("by_day", ())
    metadata: Metadata = {name: value for name, value in content.items() if name not in ("by_day", "voided_events")}
    if voided_events := content.get("voided_events"):
        metadata["voided_events"] = ", ".join(voided_events)
    metadata["coverage"] = float(content["coverage"])
    metadata["coverage_exactly"] = content["coverage"]
    if by_day:
        head = ["day", "rows", "labelled", "mature", "immature", "covered"]
        rows = [[row[name] for name in head] for row in by_day[-SHOWN_DAYS:]]
        metadata["coverage_by_day"] = markdown_table(head, rows)
        metadata["maturity_and_coverage"] = label_coverage_by_day(by_day)
        metadata["days"] = len(by_day)
    return metadata


def _parity(content: Mapping[str, Any], objects: ObjectStore) -> Metadata:
    metadata: Metadata = {name: value for name, value in content.items() if isinstance(value, int)}
    if content["anchors"]:
        metadata["match_rate"] = content["match"] / content["anchors"]
    return metadata


def _staged(content: Mapping[str, Any], objects: ObjectStore) -> Metadata:
    manifest = DatasetManifest.model_validate(content["manifest"])
    files = [(PurePosixPath(file.path).name, file.rows, file.bytes, file.sha256[:16]) for file in manifest.files[:SHOWN_FILES]]
    skew = manifest.skew
    features = {} if skew is None else skew.features
    skew_rows = [(name, feature.differing, feature.compared, feature.share or "") for name, feature in features.items()]
    return {
        "dataset_name": manifest.dataset_name,
        "dataset_identity": manifest.dataset_identity,
        "content_digest": manifest.content_digest,
        "rows": manifest.row_count,
        "dagster/partition_row_count": manifest.row_count,
        "dagster/column_schema": column_schema(manifest.columns),
        "dagster/column_lineage": column_lineage(manifest),
        "columns": len(manifest.columns),
        "features": sum(column.role == "feature" for column in manifest.columns),
        "row_order": manifest.row_order,
        "as_of_basis": manifest.as_of_basis.value,
        "events_without_decision": content.get("events_without_decision", 0),
        "engine": content.get("engine", FeatureEngine.PROCESSES.value),
        "bytes": sum(file.bytes for file in manifest.files),
        "folder": _object(objects, str(PurePosixPath(manifest.files[0].path).parent)) if manifest.files else "none",
        "files": markdown_table(["file", "rows", "bytes", "SHA-256 begins"], files),
        "feature_rows_checked": manifest.gates.feature_rows_checked,
        "label_rows_checked": manifest.gates.label_rows_checked,
        **(
            {}
            if skew is None
            else {
                "skew": markdown_table(["feature", "differs", "decisions compared", "share"], skew_rows),
                "skew_decisions": skew.decisions,
                "skew_decisions_compared": skew.compared,
            }
        ),
    }


def _manifest(content: Mapping[str, Any], objects: ObjectStore) -> Metadata:
    return {
        **{name: value for name, value in content.items() if name != "manifest_path"},
        "manifest": _object(objects, content["manifest_path"]),
        "manifest_path": content["manifest_path"],
        "dagster/partition_row_count": content["rows"],
    }


def _snapshot(content: Mapping[str, Any], objects: ObjectStore) -> Metadata:
    plain = (int, str, bool)
    return {name: value if isinstance(value, plain) else dg.MetadataValue.json(value) for name, value in content.items()}


_READINGS: dict[str, Callable[[Mapping[str, Any], ObjectStore], Metadata]] = {
    "plan": _plan,
    "replay": _replay,
    "labels": _labels,
    "parity": _parity,
    "staged": _staged,
    "manifest": _manifest,
    "snapshot": _snapshot,
}


def column_schema(columns: Sequence[DatasetColumn]) -> dg.TableSchema:
    """The columns of a dataset as Dagster shows them."""
    return dg.TableSchema(columns=[dg.TableColumn(column.name, column.type, column.role.replace("_", " ")) for column in columns])


def column_lineage(manifest: DatasetManifest) -> dg.TableColumnLineage:
    """Of each feature of a dataset, the group's asset and its column."""
    features = [column.name for column in manifest.columns if column.role == "feature"]
    prefixes = {f"{group.group_name}_{group.group_version}__": group for group in manifest.feature_groups}
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(feature_group_key(group.group_name, group.group_version), name.removeprefix(prefix))]
            for name in features
            for prefix, group in prefixes.items()
            if name.startswith(prefix)
        }
    )


def _object(objects: ObjectStore, path: str) -> dg.PathMetadataValue:
    return dg.MetadataValue.path(f"{objects.url}/{path}")
