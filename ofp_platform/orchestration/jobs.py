"""Jobs over the assets: what sensors, schedules and operators start by name."""

from __future__ import annotations

import dagster as dg

from ofp_platform.orchestration.offline_archive import ARCHIVE_SEGMENT
from ofp_platform.orchestration.offline_builds import ASSETS
from ofp_platform.orchestration.offline_models import MODEL
from ofp_platform.orchestration.offline_parity import CORRECTION_LEDGER
from ofp_platform.orchestration.projection_assets import PROJECTION, PROJECTION_RANGE
from ofp_platform.orchestration.rebuild_assets import REBUILD
from ofp_platform.orchestration.snapshot_assets import SNAPSHOT_SET

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
snapshot_set_job = dg.define_asset_job(
    "snapshot_sets", dg.AssetSelection.assets(SNAPSHOT_SET), description="Materialise the snapshots of an hour of event time."
)
rebuild_job = dg.define_asset_job(
    "rebuild",
    dg.AssetSelection.assets(REBUILD),
    description="Build the projection of the profile's pack beside the live one, and compare. Then: `switch_live`.",
)
archive_job = dg.define_asset_job(
    "archive",
    dg.AssetSelection.assets(ARCHIVE_SEGMENT),
    description="Archive closed offset ranges, or prove those that are archived.",
)
build_dataset_job = dg.define_asset_job(
    "build_dataset",
    dg.AssetSelection.assets(*ASSETS.values()),
    description="Build one request of the run ledger, or show the receipts of one that is built. New requests: `submit_build`.",
)
correction_ledger_job = dg.define_asset_job(
    "correction_ledger",
    dg.AssetSelection.assets(CORRECTION_LEDGER),
    description="Show which decisions of a day late events would have changed, as the comparisons so far found them.",
)
train_model_job = dg.define_asset_job(
    "train_model",
    dg.AssetSelection.assets(MODEL),
    description="Train the baseline models on the published dataset of a request; the first day may be given in the run config.",
)
