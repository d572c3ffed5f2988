"""A build from its intent to its outcome, stage by stage, under the lease of its run.

Whoever holds the lease goes through the stages and records a receipt after each. A builder that dies leaves a run that can be
claimed again and a scratch folder that the next attempt deletes; nothing of an unfinished build is visible. A dataset that is
built but cannot be published waits as PUBLISH_PENDING with its files kept: publishing alone is tried again then.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from pydantic import ValidationError

from ofp_platform.kernel.native import load_loops
from ofp_platform.offline.datasets.publication import LocalFile, name_files, publish_files, publish_manifest
from ofp_platform.offline.replay.memory_budget import MemoryTooSmall
from ofp_platform.offline.replay.spark_fold import SparkFold
from ofp_platform.offline.requests.parity_policy import check_parity, demand_anchors
from ofp_platform.offline.requests.resolver import resolve
from ofp_platform.offline.runs import build_stages, replay_stage
from ofp_platform.offline.runs.anchor_comparison import compare_anchors
from ofp_platform.offline.runs.build_bounds import (
    SIZE,
    BuildGuard,
    BuildSize,
    check_day,
    check_folded_size,
    check_plan_size,
    folded_size,
    plan_size,
)
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.run_lease import LeaseLost, RunLease
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.offline.runs.scratch_folders import held_folder, remove_dead_folders
from ofp_platform.offline.runs.snapshot_rebuild import rebuild_snapshot
from ofp_platform.offline.sources.spark_engine import SparkUnavailable
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.postgres import DatabaseUnavailable
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.offline.build_intent import DatasetBuild, ForensicRebuild
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused, Refusal
from ofp_platform.vocabulary.offline.build_run import BuildRun
from ofp_platform.vocabulary.offline.dataset_manifest import (
    DatasetManifest,
    Gates,
    LabelReceipt,
    ParityReceipt,
    manifest_of,
    manifest_path,
)
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine

STAGED = "staged"
_NOTHING_COMPARED = ParityReceipt(anchors=0, match=0, mismatch=0, uncheckable=0)


@dataclass(frozen=True)
class Stage:
    """A finished stage: its name, its receipt as stored, and the receipt's digest."""

    name: str
    content: dict[str, Any]
    digest: str


def build(build_context: BuildContext, run_key: str) -> BuildRun:
    """Claim a run, build it, and return it as it stands then. One that another builder holds, or that ended, stays as it is.

    Raises:
        UnknownRun: there is none. LeaseLost: the attempt was taken from this builder; another goes on.
    """
    with build_context.ledger.claim(run_key) as lease:
        if lease is not None:
            for _ in stages(build_context, lease):
                pass
    return build_context.ledger.show(run_key)


def stages(build_context: BuildContext, lease: RunLease) -> Iterator[Stage]:
    """Build the run of the lease and yield each stage when its receipt is stored. The run has its outcome at the end.

    A refusal ends the run as FAILED (or PUBLISH_PENDING) and the iteration; it is not raised.
    """
    remove_dead_folders(build_context.scratch, build_context.ledger)
    threading.Thread(target=load_loops, name="load loops", daemon=True).start()  # while the plan is resolved and records are read
    try:
        with held_folder(build_context.scratch, lease.run_key):
            yield from _held_stages(build_context, lease)
    except OSError as error:  # it cannot be held
        lease.fail(_scratch_refusal(build_context, error))


def _held_stages(build_context: BuildContext, lease: RunLease) -> Iterator[Stage]:
    steps = _Steps(build_context, lease)
    try:
        if lease.publish_only:
            yield from steps.publish(_staged_manifest(build_context.ledger, lease.run_key))
            return
        resolved_plan = resolve(lease.run.intent, build_context.sources, build_context.ofs_code_release_id)
        steps.check_plan(resolved_plan)
        plan = lease.store_plan(resolved_plan)
        yield steps.record("plan", plan.wire())
        crash_point("build.planned")
        if isinstance(plan.intent, DatasetBuild):
            yield from steps.dataset(plan)
        elif isinstance(plan.intent, ForensicRebuild):
            yield from steps.snapshot(plan, plan.intent)
        else:
            yield from steps.parity(plan)
    except LeaseLost:
        if build_context.ledger.is_cancelled(lease.run_key):
            shutil.rmtree(build_context.run_folder(lease.run_key), ignore_errors=True)
        raise
    except BuildRefused as refused:
        if steps.is_staged and refused.reason is BuildReason.STORE_UNAVAILABLE:
            lease.publish_pending(refused.refusal)
            return
        lease.fail(refused.refusal)
    except (MemoryTooSmall, SparkUnavailable) as error:
        lease.fail(BuildRefused(BuildReason.STORE_UNAVAILABLE, str(error)).refusal)
    except OSError as error:  # the scratch folder: full, read-only, gone
        lease.fail(_scratch_refusal(build_context, error))
    if not steps.is_staged:
        shutil.rmtree(build_context.run_folder(lease.run_key), ignore_errors=True)


def _scratch_refusal(build_context: BuildContext, error: OSError) -> Refusal:
    return BuildRefused(BuildReason.STORE_UNAVAILABLE, f"the scratch folder {build_context.scratch}: {error}").refusal


class _Steps:
    """The stages of one attempt."""

    def __init__(self, build_context: BuildContext, lease: RunLease) -> None:
        self._build_context = build_context
        self._lease = lease
        self._folder = build_context.run_folder(lease.run_key)
        self.is_staged = lease.publish_only
        self._guard = BuildGuard(
            self._folder,
            build_context.limits.max_bytes,
            self._demand_running,
            build_context.clock,
            on_look=build_context.on_look,
        )

    def record(self, name: str, content: dict[str, Any]) -> Stage:
        """Record the receipt of a finished stage."""
        return Stage(name, content, self._lease.record_receipt(name, content))

    def _demand_running(self) -> None:
        """Look whether the attempt still runs; a ledger that does not answer for a moment ends nothing: the lease will tell."""
        try:
            self._build_context.ledger.demand_running(self._lease.run)
        except (psycopg.Error, DatabaseUnavailable) as error:
            if not is_transient(error):
                raise

    def check_plan(self, plan: BuildPlan) -> None:
        """Hold a plan against the limits of the profile."""
        records = replay_stage.replay_records(self._build_context, plan.replay_basis)
        registry = None if plan.scope is None else build_stages.plan_registry(self._build_context, plan)
        if registry is not None:
            build_stages.check_engine(self._build_context, plan, registry)
        check_plan_size(plan_size(plan, registry, records), plan, self._build_context.limits)

    def _account(self, plan: BuildPlan, size: BuildSize) -> None:
        """Hold the rows that are known now against the limits, and record them for the quota of a day."""
        build_context, run = self._build_context, self._lease.run
        check_folded_size(size, build_context.limits)
        check_day(build_context.pool, run.run_key, run.intent.submitted_by, size, build_context.limits)
        self.record(SIZE, {"records": size.records, "rows": size.rows, "bytes": size.bytes})

    def dataset(self, plan: BuildPlan) -> Iterator[Stage]:
        build_context = self._build_context
        intent = plan.intent
        assert isinstance(intent, DatasetBuild)  # see stages
        demand_anchors(plan)
        registry = build_stages.plan_registry(build_context, plan)
        self._empty()
        with replay_stage.start_replay(build_context, plan, registry, self._folder / "replay") as running_fold:
            compared_positions = replay_stage.check_archive(build_context, plan)
            folded_replay, amended_events, receipt = replay_stage.replay(
                build_context, plan, registry, self._folder / "replay", running_fold, self._guard
            )
            spark_fold = running_fold if isinstance(running_fold, SparkFold) else None
            yield self.record(
                "replay", {**receipt.model_dump(mode="json", exclude_none=True), "positions_cross_checked": compared_positions}
            )
            crash_point("build.replayed")
            parity: ParityReceipt | None = None
            if plan.parity_anchors:
                local_replay = folded_replay if spark_fold is None else None  # executors hold the events of the other
                parity = compare_anchors(build_context, plan, self._folder / "parity", local_replay, self._guard)
                yield self.record("parity", parity.model_dump(mode="json"))
            elif intent.parity_anchors != "none":
                parity = _NOTHING_COMPARED
            check_parity(plan.policy, parity or _NOTHING_COMPARED)
            label_joiner = build_stages.labels(build_context, plan, registry, amended_events)
            self._account(plan, folded_size(plan, registry, folded_replay))
            built_dataset = build_stages.dataset(
                build_context, plan, registry, folded_replay, label_joiner, self._folder / "dataset", self._guard, spark_fold
            )
        build_stages.check_values(plan, built_dataset.values_out_of_range)
        labels: LabelReceipt | None = None
        if label_joiner is not None:
            labels, diagnostics = label_joiner.receipt()
            yield self.record("labels", {**labels.model_dump(mode="json"), "by_day": diagnostics.days()})
            build_stages.check_labels(plan, diagnostics)
        files = [
            LocalFile(path, rows) for path, rows in zip(built_dataset.files.paths, built_dataset.files.rows_per_file, strict=True)
        ]
        gates = Gates(
            completeness=receipt,
            label_rows_checked=0 if label_joiner is None else label_joiner.rows_checked,
            feature_rows_checked=built_dataset.feature_rows_checked,
            labels=labels,
            parity=parity,
            served=built_dataset.served,
        )
        manifest = manifest_of(
            plan,
            row_count=built_dataset.files.rows,
            row_order=plan.row_order,
            content_digest=built_dataset.files.content_digest,
            columns=built_dataset.columns,
            features_left_out=built_dataset.features_left_out,
            values_out_of_range=built_dataset.values_out_of_range,
            skew=built_dataset.skew,
            files=name_files(intent.dataset_name, plan.dataset_identity, files),
            gates=gates,
        )
        shutil.rmtree(self._folder / "replay", ignore_errors=True)
        staged_content = {"manifest": manifest.wire(), "events_without_decision": built_dataset.undecided_events}
        if build_context.engine is not FeatureEngine.PROCESSES:
            staged_content["engine"] = build_context.engine.value
        yield self.record(STAGED, staged_content)
        self.is_staged = True
        crash_point("build.staged")
        yield from self.publish(manifest)

    def publish(self, staged_manifest: DatasetManifest) -> Iterator[Stage]:
        """Put the staged files, then the manifest that names them. Nothing is replayed or computed here."""
        build_context = self._build_context
        publish_files(build_context.objects, staged_manifest.files, self._folder / "dataset" / "files")
        crash_point("build.files_published")
        build_context.index.check_identity(staged_manifest)
        with self._lease.running():  # whoever cancels the run comes before all of it, or after
            published_manifest = publish_manifest(build_context.objects, staged_manifest)
            crash_point("build.manifest_published")
            build_context.index.add(published_manifest)
            outcome = {
                "dataset_name": published_manifest.dataset_name,
                "dataset_identity": published_manifest.dataset_identity,
                "manifest_path": manifest_path(published_manifest.dataset_name, published_manifest.dataset_identity),
                "manifest_digest": published_manifest.digest,
                "content_digest": published_manifest.content_digest,
                "rows": published_manifest.row_count,
            }
            stage = self.record("manifest", outcome)
            self._lease.succeed(outcome)
        yield stage
        shutil.rmtree(self._folder, ignore_errors=True)

    def parity(self, plan: BuildPlan) -> Iterator[Stage]:
        self._empty()
        parity = compare_anchors(self._build_context, plan, self._folder, None, self._guard)
        yield self.record("parity", parity.model_dump(mode="json"))
        self._lease.succeed(parity.model_dump(mode="json"))

    def snapshot(self, plan: BuildPlan, intent: ForensicRebuild) -> Iterator[Stage]:
        self._empty()
        outcome = rebuild_snapshot(self._build_context, plan, intent, self._folder, self._guard)
        yield self.record("snapshot", outcome)
        self._lease.succeed(outcome)

    def _empty(self) -> None:
        """Empty the folder of this run: nothing of an earlier attempt stays."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)


def _staged_manifest(ledger: RunLedger, run_key: str) -> DatasetManifest:
    """The manifest of the dataset that an earlier attempt built.

    Raises:
        BuildRefused: REPLAY_INCOMPLETE, no attempt got that far, or only one of another release.
    """
    for receipt in reversed(ledger.receipts(run_key)):
        if receipt.stage == STAGED:
            try:
                return DatasetManifest.model_validate(receipt.content["manifest"])
            except ValidationError:
                text = "a release of another form built it: build again (`ofp intent retry --rebuild`)"
                raise BuildRefused(BuildReason.REPLAY_INCOMPLETE, text) from None
    raise BuildRefused(BuildReason.REPLAY_INCOMPLETE, "nothing was built that could be published")
