"""The code location of one profile: everything that Dagster shows and drives."""

from __future__ import annotations

import warnings

import dagster as dg

from ofp_platform.orchestration.jobs import (
    archive_job,
    build_dataset_job,
    catch_up_job,
    correction_ledger_job,
    rebuild_job,
    replay_ranges_job,
    snapshot_set_job,
    train_model_job,
)
from ofp_platform.orchestration.log_assets import log_events_spec, observe_log_job
from ofp_platform.orchestration.offline_archive import archive_segment_asset, verify_archive_job
from ofp_platform.orchestration.offline_builds import build_stages
from ofp_platform.orchestration.offline_models import trained_model
from ofp_platform.orchestration.offline_parity import correction_ledger_asset
from ofp_platform.orchestration.offline_reporter import offline_reporter
from ofp_platform.orchestration.offline_sensors import build_intents, build_outcomes
from ofp_platform.orchestration.offline_submission import submit_build_job
from ofp_platform.orchestration.partitions import log_partitions
from ofp_platform.orchestration.projection_assets import posture_is_not_red, projection_asset, projection_range_asset
from ofp_platform.orchestration.rebuild_assets import rebuild_beside, switch_live_job
from ofp_platform.orchestration.resources import FeatureReaderResource, ObjectStoreResource, PlaneResource, WorkshopResource
from ofp_platform.orchestration.schedules import (
    archive_closed_hourly,
    snapshot_set_hourly,
    verify_archive_nightly,
    verify_ranges_nightly,
)
from ofp_platform.orchestration.sensors import commit_reporter, new_offsets, run_failures
from ofp_platform.orchestration.snapshot_assets import snapshot_set
from ofp_platform.vocabulary.profile import Profile


def code_location(profile: Profile, plane: PlaneResource) -> dg.Definitions:
    """The definitions for a profile; `plane` opens the plane of the same profile. Nothing is connected to yet."""
    partitions = log_partitions(profile)
    settings = {"profile_source": plane.profile_source, "database_url": plane.database_url}
    with warnings.catch_warnings():
        # `backfill_policy` is beta; without single-run backfills, 1,000 ranges are 1,000 runs
        warnings.simplefilter("ignore", dg.BetaWarning)
        ranges, projection = projection_range_asset(profile, partitions), projection_asset(profile, partitions)
        archive, corrections = archive_segment_asset(profile, partitions), correction_ledger_asset()
    return dg.Definitions(
        assets=[
            log_events_spec(profile, partitions),
            ranges,
            projection,
            snapshot_set,
            rebuild_beside,
            archive,
            build_stages,
            corrections,
            trained_model,
        ],
        asset_checks=[posture_is_not_red],
        jobs=[
            observe_log_job,
            catch_up_job,
            replay_ranges_job,
            snapshot_set_job,
            rebuild_job,
            switch_live_job,
            archive_job,
            verify_archive_job,
            submit_build_job,
            build_dataset_job,
            correction_ledger_job,
            train_model_job,
        ],
        sensors=[new_offsets, commit_reporter, build_intents, build_outcomes, offline_reporter, run_failures],
        schedules=[snapshot_set_hourly, verify_ranges_nightly, archive_closed_hourly, verify_archive_nightly],
        resources={
            "plane": plane,
            "object_store": ObjectStoreResource(**settings),
            "feature_reader": FeatureReaderResource(**settings),
            "workshop": WorkshopResource(profile_source=plane.profile_source, database_url=plane.database_url),
        },
        # a run is one or two steps of one process: a process per step would double the time from change to success
        executor=dg.in_process_executor,
    )
