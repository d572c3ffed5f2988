"""Retraining as an asset: a challenger for each training set, held against what is in force. Only people put one in force."""

import time
from collections.abc import Iterator

import dagster as dg

from ofp_platform.cli.offline.retraining import Retrained, retrain
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.offline.datasets.publication import DatasetDamaged, DatasetNotFound, load_manifest
from ofp_platform.offline.runs.run_ledger import RunLedger, UnknownRun
from ofp_platform.online.plane import NoControlStream
from ofp_platform.orchestration.log.event_assets import OWNERS
from ofp_platform.orchestration.offline.build_assets import MANIFEST
from ofp_platform.orchestration.offline.loop_assets import LABEL_STORE
from ofp_platform.orchestration.offline.model_assets import POOL
from ofp_platform.orchestration.partitions import BUILD_REQUEST, run_of_key
from ofp_platform.orchestration.receipt_metadata import Metadata, markdown_table
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.storage.bundle_events import bundle_path

CHALLENGER = dg.AssetKey(["learning", "challenger"])
GATE = "gate"
_ACTOR = "retraining"
"""Who publishes: whoever approves is another, as long as the profile asks for four eyes."""


@dg.asset(
    key=CHALLENGER,
    deps=[MANIFEST, LABEL_STORE],
    partitions_def=BUILD_REQUEST,
    description=(
        "A model trained again on one published dataset as the profile's `retraining` says, and held against the bundle in force"
        " on the same holdout. Its bundle is published only if the gate passes; people approve and activate it, or nobody does."
    ),
    group_name="learning",
    kinds={"python", "scikitlearn"},
    owners=OWNERS,
    code_version="1",
    pool=POOL,
    check_specs=[
        dg.AssetCheckSpec(
            GATE,
            asset=CHALLENGER,
            blocking=True,
            description="Each threshold of the profile's `retraining` is met, alone and beside the model in force. What is absent"
            " (labels, a holdout with both classes, a bundle in force) fails it.",
        )
    ],
)
def challenger_bundle(
    context: dg.AssetExecutionContext, plane: dg.ResourceParam[PlaneResource]
) -> Iterator[dg.MaterializeResult[object]]:
    """Train again on the dataset of the request."""
    with plane.open_without_log("owner") as opened_plane:
        try:
            outcome = run_of_key(RunLedger(opened_plane.pool), context.partition_key).outcome or {}
            if "dataset_identity" not in outcome:
                raise dg.Failure(f"request {context.partition_key} has published no dataset", allow_retries=False)
            manifest = load_manifest(opened_plane.objects, outcome["dataset_name"], outcome["dataset_identity"])
            retrained = retrain(opened_plane, manifest, _ACTOR, lambda: time.time_ns() // 1_000)
        except (CommandRefused, DatasetDamaged, DatasetNotFound, NoControlStream, UnknownRun) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
    report = retrained.report
    check = dg.AssetCheckResult(
        check_name=GATE,
        passed=report.has_passed,
        description="\n".join(report.problems) or None,
        metadata={"test_rows": report.test_rows, "test_frauds": report.test_frauds},
    )
    version = dg.DataVersion(report.digest)
    yield dg.MaterializeResult(metadata=_metadata(retrained), check_results=[check], data_version=version)


def _metadata(retrained: Retrained) -> Metadata:
    report = retrained.report
    rows = [(rule.rule, rule.metric or "", rule.asked, rule.seen, "yes" if rule.passed else "no") for rule in report.rules]
    published_bundle = report.challenger if report.has_passed else None
    return {
        "gate": markdown_table(["rule", "metric", "asked for", "seen", "passed"], rows),
        "published": "none: the gate did not pass" if published_bundle is None else bundle_path(published_bundle),
        "in_force": "none" if report.in_force is None else bundle_path(report.in_force),
        "dataset": f"{report.dataset_name} {report.dataset_identity}",
        "manifest_digest": report.manifest_digest,
        "report": retrained.report_path,
    }


retrain_job = dg.define_asset_job(
    "retrain",
    dg.AssetSelection.assets(CHALLENGER),
    description="Train again on the published dataset of a request, and publish a challenger if the gate passes. Nothing is put"
    " in force.",
)
