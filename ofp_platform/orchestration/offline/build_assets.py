"""A build as assets: one request is a partition, and one op goes through its stages, since one lease holds them together."""

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import dagster as dg
from pydantic import Field

from ofp_platform.offline.datasets.publication import DatasetDamaged, DatasetNotFound, load_manifest, verify_files
from ofp_platform.offline.replay.memory_budget import MemoryTooSmall, memory_bytes
from ofp_platform.offline.requests.parity_policy import check_parity
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.builder import Stage, stages
from ofp_platform.offline.runs.run_lease import LeaseLost
from ofp_platform.offline.runs.run_ledger import UnknownRun
from ofp_platform.offline.runs.run_reconciliation import reconcile
from ofp_platform.offline.sources.spark_engine import SparkUnavailable
from ofp_platform.orchestration.log.event_assets import LOG_EVENTS, OWNERS
from ofp_platform.orchestration.offline.archive_assets import ARCHIVE_SEGMENT
from ofp_platform.orchestration.offline.build_metadata import stage_metadata
from ofp_platform.orchestration.offline.parity_assets import PARITY_REPORT, parity_evidence
from ofp_platform.orchestration.online.projection_assets import PROJECTION
from ofp_platform.orchestration.partitions import BUILD_REQUEST, run_of_key
from ofp_platform.orchestration.progress_lines import ProgressLines
from ofp_platform.orchestration.receipt_metadata import Metadata
from ofp_platform.orchestration.resources import BuildContextResource
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.vocabulary.offline.build_intent import DatasetBuild, Purpose
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest, ParityReceipt
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine

BUILD_PLAN = dg.AssetKey(["offline", "build_plan"])
REPLAY = dg.AssetKey(["offline", "replay"])
LABELS = dg.AssetKey(["offline", "labels"])
DATASET = dg.AssetKey(["offline", "dataset"])
MANIFEST = dg.AssetKey(["offline", "manifest"])
SNAPSHOT = dg.AssetKey(["offline", "rebuilt_snapshot"])

ASSETS = {
    "plan": BUILD_PLAN,
    "replay": REPLAY,
    "labels": LABELS,
    "parity": PARITY_REPORT,
    "staged": DATASET,
    "manifest": MANIFEST,
    "snapshot": SNAPSHOT,
}
"""Stage of the builder to asset."""

_STAGES = {
    "dataset_build": ("plan", "replay", "labels", "parity", "staged", "manifest"),
    "parity_rebuild": ("plan", "replay", "parity"),
    "forensic_rebuild": ("plan", "snapshot"),
}


def assets_of(run: BuildRun) -> list[dg.AssetKey]:
    """The assets that a request has a part in: of no other one is a refusal of it told."""
    return [ASSETS[stage] for stage in _STAGES[run.intent.intent]]


COMPLETENESS = dg.AssetCheckKey(REPLAY, "completeness")
COVERAGE = dg.AssetCheckKey(LABELS, "coverage")
PARITY = dg.AssetCheckKey(PARITY_REPORT, "parity")
LEAKAGE = dg.AssetCheckKey(DATASET, "leakage")
MANIFEST_SCHEMA = dg.AssetCheckKey(MANIFEST, "manifest_schema")
BUILDER_VERSION = "1"
POOL = "ofp_build"

_Judged = tuple[dg.AssetCheckKey, dg.AssetCheckResult]
_FAILS = {
    BuildReason.REPLAY_INCOMPLETE: COMPLETENESS,
    BuildReason.REPLAY_MISMATCH: COMPLETENESS,
    BuildReason.HISTORY_TOO_SHORT: COMPLETENESS,
    BuildReason.ARCHIVE_DAMAGED: COMPLETENESS,
    BuildReason.EVENT_ANOMALY: COMPLETENESS,
    BuildReason.FAILED_RECORDS_ABOVE_POLICY: COMPLETENESS,
    BuildReason.LABEL_COVERAGE_BELOW_POLICY: COVERAGE,
    BuildReason.PARITY_MISMATCH: PARITY,
    BuildReason.PARITY_BELOW_POLICY: PARITY,
    BuildReason.SERVED_ROW_MISMATCH: LEAKAGE,
    BuildReason.LEAKAGE_DETECTED: LEAKAGE,
    BuildReason.PUBLICATION_CONFLICT: MANIFEST_SCHEMA,
}
_CHECKS = {
    COMPLETENESS: "Every record of the replay basis was read, and has one fate; where archive and log both have it, they agree.",
    COVERAGE: "Labels cover as large a share of the mature rows as the policy asks for.",
    PARITY: "Recorded decisions were served exactly what the log gives: as many as the policy asks for, all that were compared.",
    LEAKAGE: "No row knows a label or an event that was not known as of the row: rows were computed again and compared.",
    MANIFEST_SCHEMA: "The published manifest is one by its contract, and every file that it names has the bytes that it says.",
}
_WHAT: dict[dg.AssetKey, tuple[str, list[dg.AssetDep], set[str]]] = {
    BUILD_PLAN: (
        "The request with everything looked up and pinned: offsets, pack, label basis, decisions to compare, policy.",
        [
            dg.AssetDep(LOG_EVENTS, partition_mapping=dg.AllPartitionMapping()),
            dg.AssetDep(ARCHIVE_SEGMENT, partition_mapping=dg.AllPartitionMapping()),
        ],
        {"python", "json"},
    ),
    REPLAY: (
        "The records of the replay basis, read from the archive and beyond it from the log, and what became of each.",
        [dg.AssetDep(BUILD_PLAN), dg.AssetDep(ARCHIVE_SEGMENT, partition_mapping=dg.AllPartitionMapping())],
        {"python"},
    ),
    LABELS: (
        "Labels as of the plan's label basis, how mature they are and what they cover.",
        [dg.AssetDep(BUILD_PLAN)],
        {"postgres"},
    ),
    PARITY_REPORT: (
        "Recorded decisions rebuilt from the log and compared by hash; the evidence of what differs.",
        # what was served to them stood in the projection
        [dg.AssetDep(REPLAY), dg.AssetDep(PROJECTION, partition_mapping=dg.AllPartitionMapping())],
        {"python", "postgres"},
    ),
    DATASET: (
        "Rows with features and labels, written and not yet visible to anybody.",
        [dg.AssetDep(REPLAY), dg.AssetDep(LABELS)],
        {"python", "parquet"},
    ),
    MANIFEST: (
        "The published dataset: its manifest stands in the object store, and stands there only if every gate was passed.",
        [dg.AssetDep(DATASET), dg.AssetDep(PARITY_REPORT)],
        {"json", "parquet"},
    ),
    SNAPSHOT: ("The one snapshot of a forensic rebuild.", [dg.AssetDep(BUILD_PLAN)], {"json"}),
}


class BuildConfig(dg.Config):
    """How a build runs; every choice gives the same bytes."""

    engine: FeatureEngine = Field(
        default=FeatureEngine.PROCESSES,
        description="What the build runs on: PROCESSES of this machine, or SPARK (extra `spark`, Java 17).",
    )
    memory: str | None = Field(
        default=None, description="Memory of all processes of the build together, such as 3GB; without: as little as it needs."
    )


with warnings.catch_warnings():
    # partitions of a check are a preview; without them nobody sees of which request a check failed
    warnings.simplefilter("ignore", dg.PreviewWarning)
    _CHECK_SPECS = [
        dg.AssetCheckSpec(key.name, asset=key.asset_key, description=description, blocking=True, partitions_def=BUILD_REQUEST)
        for key, description in _CHECKS.items()
    ]


@dg.multi_asset(
    name="build",
    specs=[
        dg.AssetSpec(
            key,
            deps=deps,
            description=description,
            group_name="offline",
            kinds=kinds,
            owners=OWNERS,
            code_version=BUILDER_VERSION,
        )
        for key, (description, deps, kinds) in _WHAT.items()
    ],
    check_specs=_CHECK_SPECS,
    # which stages there are depends on the intent: a parity rebuild has no dataset
    can_subset=True,
    partitions_def=BUILD_REQUEST,
    pool=POOL,
)
def build_stages(
    context: dg.AssetExecutionContext, config: BuildConfig, builds: dg.ResourceParam[BuildContextResource]
) -> Iterator[object]:
    """Build the request of the partition. One that another builder has finished is shown as its receipts have it."""
    try:
        memory = None if config.memory is None else memory_bytes(config.memory)
    except ValueError as error:
        raise dg.Failure(f"memory: {error}", allow_retries=False) from None
    try:
        with builds.open(config.engine, memory) as build_context:
            yield from _build(context, build_context)
    except (LeaseLost, MemoryTooSmall, SparkUnavailable, UnknownRun) as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _build(context: dg.AssetExecutionContext, build_context: BuildContext) -> Iterator[object]:
    progress = ProgressLines(context.log.info, "plan", "bytes of scratch and files held")
    build_context = replace(build_context, on_look=progress.reach)
    shown_stages = _Shown(context, build_context)
    began = time.monotonic()
    asked_run = run_of_key(build_context.ledger, context.partition_key)
    with build_context.ledger.claim(asked_run.run_key) as lease:
        if lease is not None and lease.publish_only:
            yield from shown_stages.earlier()
        for stage in () if lease is None else stages(build_context, lease):
            context.log.info(
                "stage %s is done, %.1f s since the build began: %s", stage.name, time.monotonic() - began, stage.digest
            )
            progress.doing = f"after {stage.name}"
            yield from shown_stages.stage(stage)
    run = build_context.ledger.show(asked_run.run_key)
    if run.state is RunState.DONE:
        yield from shown_stages.earlier()
    yield from shown_stages.verdict(run)
    if run.state is not RunState.DONE:
        raise _failure(run)


class _Shown:
    """The stages of a request that a run has shown so far; only those the run was asked for."""

    def __init__(self, context: dg.AssetExecutionContext, build_context: BuildContext) -> None:
        self._context = context
        self._build_context = build_context
        self._assets = context.selected_asset_keys
        self._checks = context.selected_asset_check_keys
        self._stages: set[str] = set()
        self._judged: set[dg.AssetCheckKey] = set()

    def stage(self, stage: Stage, **more: object) -> Iterator[object]:
        """One stage's receipt, and the check that can be made of it."""
        self._stages.add(stage.name)
        key = ASSETS[stage.name]
        metadata: Metadata = {**stage_metadata(stage.name, stage.content, stage.digest, self._build_context.objects), **more}
        run = run_of_key(self._build_context.ledger, self._context.partition_key)
        if stage.name == "parity":
            metadata |= parity_evidence(self._build_context.pool, run.run_key)
        if key in self._assets:
            yield dg.MaterializeResult(asset_key=key, metadata=metadata, data_version=dg.DataVersion(stage.digest))
        for check_key, result in _checks_of(stage, run, self._build_context):
            self._judged.add(check_key)
            if check_key in self._checks:
                yield result

    def earlier(self) -> Iterator[object]:
        """Stages that other attempts, or other builders, went through, in their order."""
        run = run_of_key(self._build_context.ledger, self._context.partition_key)
        receipts = {receipt.stage: receipt for receipt in self._build_context.ledger.receipts(run.run_key)}
        for name in ASSETS:
            receipt = receipts.get(name)
            if receipt is not None and name not in self._stages:
                attempt = f"{receipt.attempt}, publication {receipt.publish_attempt}"
                stage = Stage(name, receipt.content, receipt.digest)
                yield from self.stage(stage, attempt=attempt, recorded=receipt.recorded_at_utc)

    def verdict(self, run: BuildRun) -> Iterator[object]:
        """The check that a refusal failed, and the reconciliation of a run that ended."""
        if run.state in (RunState.DONE, RunState.FAILED):
            try:
                path = reconcile(self._build_context.ledger, self._build_context.objects, run)
                self._context.log.info("reconciliation: %s", path)
            except ObjectStoreUnavailable as error:
                self._context.log.warning("no reconciliation yet, the sensor build_outcomes tries again: %s", error)
        if run.refusal is None or run.state is not RunState.FAILED:
            return
        key = _FAILS.get(run.refusal.reason)
        if key is not None and key in self._checks - self._judged:
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=key.name,
                passed=False,
                description=run.refusal.message,
                metadata={"reason": run.refusal.reason.value, "field": run.refusal.field or "none"},
            )


def _failure(run: BuildRun) -> dg.Failure:
    """Why there is nothing new, in words."""
    if run.refusal is None:
        return dg.Failure(f"another builder holds {run.run_key}; the sensor shows the outcome", allow_retries=False)
    refusal = run.refusal
    field = f" ({refusal.field})" if refusal.field else ""
    pending = "built, not published yet: " if run.state is RunState.PUBLISH_PENDING else ""
    return dg.Failure(
        f"{pending}{refusal.reason.value}{field}: {refusal.message}",
        metadata={
            "reason": refusal.reason.value,
            "field": refusal.field or "none",
            "state": run.state.value,
            "attempts": f"{run.attempts} of {run.attempt_limit}",
            "publish_attempts": f"{run.publish_attempts} of {run.publish_attempt_limit}",
        },
        allow_retries=False,
    )


def _checks_of(stage: Stage, run: BuildRun, build_context: BuildContext) -> Iterator[_Judged]:
    content = stage.content
    if stage.name == "replay":
        fates = sum(content[name] for name in ("applied", "duplicates", "failed", "ignored", "other_run"))
        yield _result(COMPLETENESS, fates == content["records"], {"records": content["records"], "with_a_fate": fates})
    elif stage.name == "labels":
        assert run.plan is not None  # the stage before
        least_coverage = run.plan.policy.min_label_coverage
        is_gated = isinstance(run.intent, DatasetBuild) and run.intent.purpose is Purpose.TRAINING
        counts = {name: content[name] for name in ("mature", "covered", "coverage")}
        share, mature = Decimal(least_coverage), content["mature"]
        is_covered = content["covered"] >= share * mature and (mature > 0 or share == 0)
        yield _result(COVERAGE, is_covered, {**counts, "policy": least_coverage}, blocks=is_gated)
    elif stage.name == "parity":
        assert run.plan is not None
        policy = run.plan.policy
        counts = {name: content[name] for name in ("anchors", "match", "mismatch", "uncheckable")}
        is_passed = content["mismatch"] == 0 and content["match"] > 0 and _is_within(policy, ParityReceipt(**counts))
        yield _result(PARITY, is_passed, counts, blocks=policy.require_parity and isinstance(run.intent, DatasetBuild))
    elif stage.name == "staged":
        gates = DatasetManifest.model_validate(content["manifest"]).gates
        labelled_rows = 0 if gates.labels is None else gates.labels.labelled
        is_passed = gates.feature_rows_checked > 0 and gates.label_rows_checked >= labelled_rows
        counts = {"feature_rows_checked": gates.feature_rows_checked, "label_rows_checked": gates.label_rows_checked}
        yield _result(LEAKAGE, is_passed, counts)
    elif stage.name == "manifest":
        yield _published(content["dataset_name"], content["dataset_identity"], content["manifest_digest"], build_context)


def _is_within(policy: BuildPolicy, parity: ParityReceipt) -> bool:
    try:
        check_parity(policy, parity)
    except BuildRefused:
        return False
    return True


def _published(dataset_name: str, dataset_identity: str, digest: str, build_context: BuildContext) -> _Judged:
    try:
        manifest = load_manifest(build_context.objects, dataset_name, dataset_identity)
        problems = verify_files(build_context.objects, manifest)
    except (DatasetDamaged, DatasetNotFound) as error:
        return _result(MANIFEST_SCHEMA, False, {"problems": str(error)})
    if manifest.digest != digest:
        problems.append(f"the manifest has the digest {manifest.digest}, the run recorded {digest}")
    metadata = {"contract": f"{manifest.kind} {manifest.contract_version}", "files": len(manifest.files)}
    return _result(MANIFEST_SCHEMA, not problems, {**metadata, "problems": "; ".join(problems[:20]) or "none"})


def _result(key: dg.AssetCheckKey, passed: bool, metadata: Metadata, *, blocks: bool = True) -> _Judged:
    severity = dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN
    return key, dg.AssetCheckResult(
        asset_key=key.asset_key, check_name=key.name, passed=passed, severity=severity, metadata=metadata
    )


build_dataset_job = dg.define_asset_job(
    "build_dataset",
    dg.AssetSelection.assets(*ASSETS.values()),
    description="Build one request of the run ledger, or show the receipts of one that is built. New requests: `submit_build`.",
)
