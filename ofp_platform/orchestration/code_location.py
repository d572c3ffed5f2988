"""The code location of one profile: everything that Dagster shows and drives."""

from __future__ import annotations

import warnings

import dagster as dg

from ofp_platform.online.plane import profile_pack
from ofp_platform.orchestration.log.event_assets import log_events_spec, observe_log_job
from ofp_platform.orchestration.log.ingress_assets import (
    asked_runs,
    control_run,
    ingress_quarantine,
    quarantine_job,
    receipts_asset,
    reconcile_ingress_job,
    request_run_job,
    run_steps,
    verify_world_job,
    world_pack,
)
from ofp_platform.orchestration.log.posture_jobs import hold_posture_job, posture_is_normal, release_posture_job
from ofp_platform.orchestration.offline.archive_assets import archive_job, archive_segment_asset, verify_archive_job
from ofp_platform.orchestration.offline.archive_schedules import archive_closed_hourly, verify_archive_nightly
from ofp_platform.orchestration.offline.audit_schedule import append_audit_hourly, append_audit_job
from ofp_platform.orchestration.offline.build_assets import build_dataset_job, build_stages
from ofp_platform.orchestration.offline.build_sensors import build_intents, build_outcomes
from ofp_platform.orchestration.offline.build_submission import submit_build_job
from ofp_platform.orchestration.offline.bundle_assets import control_bundles, observe_bundles_job
from ofp_platform.orchestration.offline.challenger_assets import challenger_bundle, retrain_job
from ofp_platform.orchestration.offline.decision_assets import decisions_job, loop_decisions, loop_what_if, what_if_job
from ofp_platform.orchestration.offline.loop_assets import (
    audit_heads,
    label_store,
    loop_actions,
    loop_cases,
    loop_reconciliation,
    observe_loop_job,
)
from ofp_platform.orchestration.offline.model_assets import train_model_job, trained_model
from ofp_platform.orchestration.offline.object_reporter import offline_reporter
from ofp_platform.orchestration.offline.parity_assets import correction_ledger_asset, correction_ledger_job
from ofp_platform.orchestration.offline.retention_schedule import retention_daily, retention_job
from ofp_platform.orchestration.online.feature_group_assets import feature_group_specs
from ofp_platform.orchestration.online.projection_assets import (
    catch_up_job,
    posture_is_not_red,
    projection_asset,
    projection_range_asset,
    replay_ranges_job,
)
from ofp_platform.orchestration.online.rebuild_assets import (
    pack_plan,
    plan_job,
    rebuild_beside,
    rebuild_job,
    switch_live_job,
)
from ofp_platform.orchestration.online.schedules import snapshot_set_hourly, verify_ranges_nightly
from ofp_platform.orchestration.online.sensors import commit_reporter, new_offsets
from ofp_platform.orchestration.online.shard_runs import key_shard_job, key_shards
from ofp_platform.orchestration.online.snapshot_assets import snapshot_set_asset, snapshot_set_job
from ofp_platform.orchestration.partitions import log_partitions
from ofp_platform.orchestration.resources import BuildContextResource, FeatureReaderResource, ObjectStoreResource, PlaneResource
from ofp_platform.orchestration.run_failures import run_failures
from ofp_platform.orchestration.run_tags import tagging_executor
from ofp_platform.registry.compile import compile_pack
from ofp_platform.vocabulary.profile import Profile


def _without_config(resource: object) -> dg.ResourceDefinition:
    """A resource that nothing can be told at launch: a plain object would take any configuration, and drop it."""
    return dg.ResourceDefinition(lambda _: resource, config_schema={})


def code_location(profile: Profile, plane: PlaneResource) -> dg.Definitions:
    """The definitions for a profile; `plane` opens the plane of the same profile. Of the log only its partitions are read."""
    partitions = log_partitions(profile, plane.named_dsn())
    settings = {"profile_source": plane.profile_source, "database_url": plane.database_url}
    with warnings.catch_warnings():
        # `backfill_policy` is beta; without single-run backfills, 1,000 ranges are 1,000 runs
        warnings.simplefilter("ignore", dg.BetaWarning)
        ranges, projection = projection_range_asset(profile, partitions), projection_asset(profile, partitions)
        snapshots, receipts = snapshot_set_asset(profile), receipts_asset(profile)
        archive, corrections = archive_segment_asset(profile, partitions), correction_ledger_asset(profile)
    return dg.Definitions(
        assets=[
            world_pack,
            control_run,
            receipts,
            ingress_quarantine,
            log_events_spec(profile, partitions),
            *feature_group_specs(profile, compile_pack(profile_pack(profile))),
            ranges,
            projection,
            snapshots,
            pack_plan,
            rebuild_beside,
            archive,
            build_stages,
            corrections,
            trained_model,
            challenger_bundle,
            control_bundles,
            loop_decisions,
            loop_what_if,
            loop_actions,
            audit_heads,
            loop_cases,
            label_store,
            loop_reconciliation,
        ],
        asset_checks=[posture_is_not_red, posture_is_normal],
        jobs=[
            verify_world_job,
            request_run_job,
            reconcile_ingress_job,
            quarantine_job,
            hold_posture_job,
            release_posture_job,
            observe_log_job,
            catch_up_job,
            replay_ranges_job,
            key_shard_job,
            snapshot_set_job,
            plan_job,
            rebuild_job,
            switch_live_job(profile),
            archive_job,
            verify_archive_job,
            submit_build_job,
            build_dataset_job,
            correction_ledger_job,
            train_model_job,
            retrain_job,
            observe_bundles_job,
            decisions_job,
            what_if_job,
            observe_loop_job,
            append_audit_job,
            retention_job,
        ],
        sensors=[
            asked_runs,
            run_steps,
            new_offsets,
            key_shards,
            commit_reporter,
            build_intents,
            build_outcomes,
            offline_reporter,
            run_failures,
        ],
        schedules=[
            snapshot_set_hourly,
            verify_ranges_nightly,
            archive_closed_hourly,
            verify_archive_nightly,
            append_audit_hourly,
            retention_daily,
        ],
        resources={
            "plane": _without_config(plane),
            "object_store": _without_config(ObjectStoreResource(**settings)),
            "feature_reader": _without_config(FeatureReaderResource(**settings)),
            "builds": _without_config(BuildContextResource(plane.profile_source, plane.database_url)),
        },
        executor=tagging_executor(profile),
    )
