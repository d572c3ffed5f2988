"""Bundles as an asset: the one in force in each scope of the run, looked at; people put it there, and nothing else."""

from collections.abc import Iterator

import dagster as dg

from ofp_platform.orchestration.log.event_assets import OWNERS
from ofp_platform.orchestration.log.ingress_assets import CONTROL_RUN
from ofp_platform.orchestration.offline.model_assets import MODEL
from ofp_platform.orchestration.receipt_metadata import Metadata, markdown_table
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.storage.bundle_events import (
    BundleDamaged,
    all_in_force,
    bundle_path,
    last_bundle_event,
    load_bundle,
    load_bundle_model,
)
from ofp_platform.vocabulary.canonical import digest_of

CONTROL_BUNDLES = dg.AssetKey(["control", "bundles"])
OBJECTS_WHOLE = "objects_whole"


@dg.asset(
    key=CONTROL_BUNDLES,
    deps=[CONTROL_RUN, dg.AssetDep(MODEL, partition_mapping=dg.AllPartitionMapping())],
    description="The bundle in force in each scope of the run. To materialise it is to look; `ofp bundle` puts bundles in force.",
    group_name="learning",
    kinds={"postgres"},
    owners=OWNERS,
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            OBJECTS_WHOLE,
            asset=CONTROL_BUNDLES,
            description="Each bundle in force, and its model, is in the object store, byte for byte as its digest says.",
        )
    ],
)
def control_bundles(plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.MaterializeResult[object]]:
    """Look at what is in force."""
    problems: list[str] = []
    rows: list[tuple[str, str, int, str]] = []
    with plane.open("auditor") as opened_plane:
        with opened_plane.pool.connection() as connection:
            pins = opened_plane.profile.context_pins
            scopes, last_step = all_in_force(connection, pins), last_bundle_event(connection, pins)
        for entry in scopes:
            ref = entry.in_force.bundle
            model_path = "none"
            try:
                bundle = load_bundle(opened_plane.objects, ref)
                if bundle.model is not None:
                    model_path = bundle.model.path
                    load_bundle_model(opened_plane.objects, bundle.model)
            except BundleDamaged as error:
                problems.append(str(error))
            rows.append((entry.scope.key, bundle_path(ref), entry.in_force.sequence, model_path))
    metadata: Metadata = {
        "in_force": markdown_table(["scope", "bundle", "since step", "model"], rows) if rows else "nothing is in force",
        "steps": 0 if last_step is None else last_step.event.sequence + 1,
    }
    check = dg.AssetCheckResult(
        check_name=OBJECTS_WHOLE,
        passed=bool(rows) and not problems,
        severity=dg.AssetCheckSeverity.ERROR if problems else dg.AssetCheckSeverity.WARN,
        description="\n".join(problems) or (None if rows else "nothing is in force, so there is nothing to look at"),
    )
    version = digest_of([entry.model_dump(mode="json", exclude_none=True) for entry in scopes])
    yield dg.MaterializeResult(metadata=metadata, check_results=[check], data_version=dg.DataVersion(version))


observe_bundles_job = dg.define_asset_job(
    "observe_bundles", dg.AssetSelection.assets(CONTROL_BUNDLES), description="Look at what is in force in each scope of the run."
)
