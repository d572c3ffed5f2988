"""A new registry: its projection as an asset beside the live one, and the job that makes it live."""

import time
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from ofp_platform.log.archive_segment import SegmentDamaged
from ofp_platform.log.archive_store import ReceiptDamaged, SegmentMissing
from ofp_platform.log.port import LogRefused
from ofp_platform.log.span_records import ReplayGap
from ofp_platform.offline.parity.forensic_rebuild import NotRebuildable
from ofp_platform.offline.parity.projection_fold import ProjectionFold
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.ranges.pack_apply import Order, apply_plan
from ofp_platform.online.ranges.pack_plan import PlanRefused, plan_pack
from ofp_platform.online.ranges.rebuild import RebuildReceipt, RebuildRefused, reason_against, rebuild
from ofp_platform.online.state.projection import RegistryRefused
from ofp_platform.orchestration.log.event_assets import LOG_EVENTS, OWNERS
from ofp_platform.orchestration.online.projection_assets import PROJECTION, PROJECTOR_VERSION, RETRIES
from ofp_platform.orchestration.partitions import REGISTRY_DIGEST, registry_key
from ofp_platform.orchestration.progress_lines import ProgressLines
from ofp_platform.orchestration.receipt_metadata import Metadata, comparison_metadata, plan_metadata
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.registry.pack import pack_digest
from ofp_platform.vocabulary.pack_plan import PackPlan
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

PACK_PLAN = dg.AssetKey(["online", "pack_plan"])
REBUILD = dg.AssetKey(["online", "rebuild"])
EQUAL = "equal_on_common_groups"


REFUSALS = (
    LogRefused,
    NotRebuildable,
    PlanRefused,
    RebuildRefused,
    ReceiptDamaged,
    RegistryRefused,
    ReplayGap,
    SegmentDamaged,
    SegmentMissing,
)


def _fold(plane: Plane) -> ProjectionFold:
    return ProjectionFold(plane.log, plane.archive, plane.profile)


def _now() -> int:
    return int(time.time() * MICROS_PER_SECOND)


def _plan(plane: Plane, fold: ProjectionFold | None) -> PackPlan:
    return plan_pack(plane, profile_pack(plane.profile), fold, planned_at=_now())


def _demand_pack(plane: Plane, partition_key: str) -> None:
    """Refuse a partition of another registry than that of the profile's pack."""
    pack = profile_pack(plane.profile)
    digest = pack_digest(pack)
    if partition_key not in (digest, key := registry_key(pack, digest)):
        raise dg.Failure(
            f"the profile's pack is {key}, registry {digest}; to build {partition_key}, name its pack in the profile",
            allow_retries=False,
        )


@dg.asset(
    key=PACK_PLAN,
    deps=[dg.AssetDep(PROJECTION, partition_mapping=dg.AllPartitionMapping())],
    partitions_def=REGISTRY_DIGEST,
    description=(
        "What the profile's pack would change if it went live: groups that come, go and stay, who reads them, how far back their"
        " windows reach, and what a build beside the live projection would cost. Nothing is written to the plane."
    ),
    group_name="online",
    kinds={"python"},
    owners=OWNERS,
    retry_policy=RETRIES,
)
def pack_plan(context: dg.AssetExecutionContext, plane: dg.ResourceParam[PlaneResource]) -> dg.MaterializeResult[object]:
    """Plan."""
    with plane.open("offline") as opened_plane:
        _demand_pack(opened_plane, context.partition_key)
        try:
            plan = _plan(opened_plane, _fold(opened_plane))
        except REFUSALS as error:
            raise dg.Failure(str(error), allow_retries=False) from error
    return dg.MaterializeResult(asset_key=PACK_PLAN, metadata=plan_metadata(plan), data_version=dg.DataVersion(plan.digest()))


def rebuild_metadata(receipt: RebuildReceipt) -> Metadata:
    """One build and its comparison."""
    metadata: Metadata = {
        "live_projection": receipt.live.projection_id,
        "live_registry": receipt.live.registry_digest,
        "projection": receipt.beside.projection_id,
        "registry": receipt.beside.registry_digest,
        "records": receipt.records,
        "events": receipt.applied,
    }
    return metadata if receipt.comparison is None else {**metadata, **comparison_metadata(receipt.comparison)}


@dg.asset(
    key=REBUILD,
    deps=[
        dg.AssetDep(LOG_EVENTS, partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep(PROJECTION, partition_mapping=dg.AllPartitionMapping()),
    ],
    partitions_def=REGISTRY_DIGEST,
    description=(
        "The projection of the profile's pack, built from archive and log beside the live one and brought to its basis. On a"
        " sample of keys the group versions that both have must serve the same bytes, and new ones what another fold of the"
        " records gives; then the job `switch_live` may make it live."
    ),
    group_name="online",
    kinds={"python", "postgres"},
    owners=OWNERS,
    code_version=PROJECTOR_VERSION,
    retry_policy=RETRIES,
    check_specs=[
        dg.AssetCheckSpec(
            EQUAL,
            asset=REBUILD,
            blocking=True,
            description="On one basis, values and last updates of the group versions that both have are equal, by hash.",
        )
    ],
)
def rebuild_beside(
    context: dg.AssetExecutionContext, plane: dg.ResourceParam[PlaneResource]
) -> Iterator[dg.MaterializeResult[object] | dg.AssetCheckResult]:
    """Build and compare."""
    with plane.open() as opened_plane:
        _demand_pack(opened_plane, context.partition_key)
        try:
            opened_plane.ensure_live()
            records = sum(opened_plane.log.ordinal_lag(opened_plane.open_beside().basis).values())
            progress = ProgressLines(context.log.info, "rebuild", "records", records)
            receipt = rebuild(opened_plane, _fold(opened_plane), on_commit=lambda receipt: progress.add(receipt.records))
        except REFUSALS as error:
            raise dg.Failure(str(error), allow_retries=False) from error
    yield dg.MaterializeResult(
        asset_key=REBUILD,
        metadata=rebuild_metadata(receipt),
        data_version=dg.DataVersion(f"{receipt.beside.projection_id}:{receipt.beside.version}"),
    )
    if receipt.unchanged:
        description = "the profile's pack is the live one: there is nothing to build"
    elif receipt.comparison is not None and not receipt.may_go_live:
        description = f"projection {receipt.beside.projection_id} {reason_against(receipt.comparison)}; it stays beside"
    else:
        description = "equal"
    yield dg.AssetCheckResult(
        asset_key=REBUILD,
        check_name=EQUAL,
        passed=receipt.unchanged or receipt.may_go_live,
        description=description,
        metadata=rebuild_metadata(receipt),
    )


class SwitchConfig(dg.Config):
    """Which registry is to go live."""

    registry: str = Field(
        description=(
            "Partition of `online/rebuild` that is to go live, as in card_payments-2.efd4b69b, or the whole digest of its"
            " registry. It has to be that of the profile's pack."
        )
    )
    reason: str = Field(default="", description="Reason, kept with the operation.")


@dg.op(
    description="Compares once more, then makes the projection of that registry live; the basis that is served never goes back."
)
def make_rebuilt_projection_live(
    context: dg.OpExecutionContext, config: SwitchConfig, plane: dg.ResourceParam[PlaneResource]
) -> None:
    """The switch."""
    with plane.open() as opened_plane:
        pack = profile_pack(opened_plane.profile)
        digest = pack_digest(pack)
        key = registry_key(pack, digest)
        try:
            if config.registry not in (key, digest):
                raise RebuildRefused(
                    f"the profile's pack is {key}, registry {digest}; asked for was {config.registry}: what would be compared is"
                    " not what would go live"
                )
            order = Order("dagster", config.reason or f"run {context.run_id}", _now(), share=1.0)
            with plane.open("offline") as planning_plane:  # who reads the groups is known to that role
                plan = _plan(planning_plane, None)
            receipt = apply_plan(opened_plane, plan, _fold(opened_plane), order)
        except REFUSALS as error:
            raise dg.Failure(str(error), allow_retries=False) from error
    metadata = {**rebuild_metadata(receipt), "switched": not receipt.unchanged}
    context.log_event(dg.AssetObservation(REBUILD, partition=key, metadata=metadata))
    context.log.info(
        "registry %s is live (projection %d; before: %d)",
        digest,
        receipt.beside.projection_id,
        receipt.live.projection_id,
    )


def switch_live_job(profile: Profile) -> dg.JobDefinition:
    """The job `switch_live`; its launchpad begins with the registry of the profile's pack."""
    pack = profile_pack(profile)

    @dg.job(
        name="switch_live",
        description="Makes the projection that `online/rebuild` built live. Switching back is the same with the former pack.",
        tags={"plane": "online"},
        config={"ops": {"make_rebuilt_projection_live": {"config": {"registry": registry_key(pack, pack_digest(pack))}}}},
    )
    def switch_live_job() -> None:
        make_rebuilt_projection_live()

    return switch_live_job


plan_job = dg.define_asset_job(
    "plan_pack",
    dg.AssetSelection.assets(PACK_PLAN),
    description="Say what the profile's pack would change if it went live, and what that would cost.",
)
rebuild_job = dg.define_asset_job(
    "rebuild",
    dg.AssetSelection.assets(REBUILD),
    description="Build the projection of the profile's pack beside the live one, and compare. Then: `switch_live`.",
)
