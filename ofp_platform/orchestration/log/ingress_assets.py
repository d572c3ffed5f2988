"""The way from a sealed world to the log as assets: the world, the run over it, receipts by the hour, and what was set aside."""

import time
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from ofp_platform.ingress.class_map import class_map_in_force
from ofp_platform.ingress.receipts import count_receipts, quarantine_by_reason
from ofp_platform.ingress.reconciliation import reconcile_ingress
from ofp_platform.offline.requests.run_facts_view import load_run_facts
from ofp_platform.online.plane import NoControlStream, Plane, profile_pack
from ofp_platform.orchestration.log.event_assets import OWNERS
from ofp_platform.orchestration.partitions import event_hours, hour_start
from ofp_platform.orchestration.receipt_metadata import Metadata, markdown_table
from ofp_platform.orchestration.resources import ObjectStoreResource, PlaneResource
from ofp_platform.orchestration.run_liveness import TICK_SECONDS
from ofp_platform.scenario.runner import RunRefused, ScenarioRunner
from ofp_platform.storage.run_states import read_run_status
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.scenario import RunState, RunStatus
from ofp_platform.vocabulary.times import MICROS_PER_SECOND
from ofp_platform.world.world_rows import WorldFault
from ofp_platform.world.world_store import verify_world

WORLD_PACK = dg.AssetKey(["world", "pack"])
CONTROL_RUN = dg.AssetKey(["control", "run"])
INGRESS_RECEIPTS = dg.AssetKey(["ingress", "receipts"])
INGRESS_QUARANTINE = dg.AssetKey(["ingress", "quarantine"])
SEAL_VERIFIED, EVIDENCE_RESOLVES = "seal_verified", "evidence_resolves"
RECEIPTS_BALANCE, QUARANTINE_SHARE = "receipts_balance", "quarantine_share"
_HOUR = 3_600 * MICROS_PER_SECOND


class WorldConfig(dg.Config):
    """Which world is verified."""

    world: str


class RunConfig(dg.Config):
    """The run as it is asked for. `outputs`: none for all that are streamed; `reference`: empty for STREAM/RUN_ID."""

    world: str
    mode: str = TrafficMode.FRAUD.value
    outputs: list[str] = Field(default_factory=list)
    speedup: str = "0"
    reference: str = ""
    actor: str = "dagster"


class ShareConfig(dg.Config):
    """The share of records set aside from which the check warns."""

    max_share: float = 0.01


@dg.asset(
    key=WORLD_PACK,
    description="A sealed world, looked at whole: seal, manifest, each file and row. `ofp world make` and `seal` write it.",
    group_name="ingress",
    kinds={"parquet"},
    owners=OWNERS,
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            SEAL_VERIFIED, asset=WORLD_PACK, blocking=True, description="Every byte and row of the world is as it was sealed."
        )
    ],
)
def world_pack(
    config: WorldConfig, object_store: dg.ResourceParam[ObjectStoreResource]
) -> Iterator[dg.MaterializeResult[object]]:
    """Verify a world."""
    verification = verify_world(object_store.open(), config.world)
    manifest = verification.manifest
    metadata: Metadata = {"world": config.world}
    if manifest is not None:
        metadata["dagster/row_count"] = manifest.rows
        metadata["manifest_digest"] = manifest.digest
        metadata["outputs"] = markdown_table(
            ["output", "role", "rows", "files"],
            [(item.output, item.role.value, item.rows, len(item.files)) for item in manifest.outputs],
        )
    check = dg.AssetCheckResult(
        check_name=SEAL_VERIFIED,
        passed=not verification.faults and verification.seal is not None,
        description="\n".join(verification.faults[:20]) or None,
    )
    yield dg.MaterializeResult(
        metadata=metadata, check_results=[check], data_version=None if manifest is None else dg.DataVersion(manifest.digest)
    )


@dg.asset(
    key=CONTROL_RUN,
    deps=[WORLD_PACK],
    description="The run of the profile: asked for here, or by `ofp run request`; READY where every gate passed. Its steps are"
    " reported by `run_steps`.",
    group_name="ingress",
    kinds={"postgres"},
    owners=OWNERS,
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            EVIDENCE_RESOLVES,
            asset=CONTROL_RUN,
            blocking=True,
            description="READY names facts that are there, with the evidence of every gate and a plan that says the same.",
        )
    ],
)
def control_run(config: RunConfig, plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.MaterializeResult[object]]:
    """Ask for the run."""
    with plane.open("owner") as opened_plane:
        profile = opened_plane.profile
        reference = config.reference or f"{profile.stream_name}/{profile.context_pins.run_id}"
        runner = ScenarioRunner(opened_plane, config.actor, _now)
        try:
            outcome = runner.request(
                config.world,
                mode=TrafficMode(config.mode),
                outputs=config.outputs or None,
                speedup=config.speedup,
                reference=reference,
            )
        except (RunRefused, WorldFault, NoControlStream, ValueError) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        if outcome.status.state is not RunState.READY:
            gates = markdown_table(["gate", "result"], [(gate.check, gate.status.value) for gate in outcome.evidence])
            raise dg.Failure("\n".join(outcome.problems), metadata={"gates": gates}, allow_retries=False)
        check = _evidence_resolves(opened_plane, outcome.status)
    yield dg.MaterializeResult(metadata=_step_metadata(outcome.status), check_results=[check])


def _now() -> int:
    return time.time_ns() // 1_000


def _evidence_resolves(opened_plane: Plane, status: RunStatus) -> dg.AssetCheckResult:
    profile = opened_plane.profile
    try:
        facts = load_run_facts(opened_plane.pool, str(status.facts_reference), profile.context_pins, profile.stream_name)
    except BuildRefused as refused:
        return dg.AssetCheckResult(check_name=EVIDENCE_RESOLVES, passed=False, description=str(refused))
    rows = [(item.check, item.status.value, item.evidence_digest) for item in facts.evidence]
    gates = markdown_table(["gate", "result", "evidence"], rows)
    return dg.AssetCheckResult(check_name=EVIDENCE_RESOLVES, passed=bool(rows), metadata={"gates": gates})


def _step_metadata(status: RunStatus) -> Metadata:
    metadata: Metadata = {
        "state": status.state.value,
        "scenario_run_id": status.scenario_run_id,
        "at": status.at_utc,
        "actor": status.actor,
        "reason": status.reason,
        "plan_digest": status.plan_digest,
    }
    if status.position is not None:
        metadata["facts"] = f"{status.facts_reference} {status.facts_digest}"
        metadata["message"] = f"{status.message_id} at {status.position.partition_id}/{status.position.offset}"
    return metadata


@dg.sensor(
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports each step of the profile's run (READY, ENDED, CANCELLED, REFUSED) as one of `control/run`.",
    tags={"plane": "online"},
)
def run_steps(context: dg.SensorEvaluationContext, plane: dg.ResourceParam[PlaneResource]) -> dg.SensorResult | dg.SkipReason:
    """One materialisation for a step that was not reported yet."""
    with plane.open("auditor") as opened_plane, opened_plane.pool.connection() as connection:
        status = read_run_status(connection, opened_plane.profile.context_pins)
    if status is None:
        return dg.SkipReason("nobody asked for the run of this profile")
    cursor = f"{status.context_pins.run_id}/{status.scenario_run_id}/{status.sequence}"
    if context.cursor == cursor:
        return dg.SkipReason(f"the run is {status.state} as reported")
    return dg.SensorResult(asset_events=[dg.AssetMaterialization(CONTROL_RUN, metadata=_step_metadata(status))], cursor=cursor)


def receipts_asset(profile: Profile) -> dg.AssetsDefinition:
    """`ingress/receipts`: what came through the door in hours of the clock, and the reconciliation of all of it."""

    @dg.asset(
        key=INGRESS_RECEIPTS,
        deps=[CONTROL_RUN],
        partitions_def=event_hours(profile),
        backfill_policy=dg.BackfillPolicy.single_run(),
        description="Receipts by the hour in which their batches came: sent, admitted, duplicates, set aside.",
        group_name="ingress",
        kinds={"postgres"},
        owners=OWNERS,
        code_version="1",
        check_specs=[
            dg.AssetCheckSpec(
                RECEIPTS_BALANCE,
                asset=INGRESS_RECEIPTS,
                blocking=True,
                description=(
                    "Of the whole run: sent = admitted + duplicates + set aside, and each admitted record stands in the log at"
                    " its position, and no other; to the unit."
                ),
            )
        ],
    )
    def ingress_receipts(
        context: dg.AssetExecutionContext, plane: dg.ResourceParam[PlaneResource]
    ) -> Iterator[dg.MaterializeResult[object] | dg.AssetCheckResult]:
        with plane.open("auditor") as opened_plane, opened_plane.pool.connection() as connection:
            pins = opened_plane.profile.context_pins
            for key in context.partition_keys:
                start = hour_start(key)
                counts = count_receipts(connection, pins, start, start + _HOUR)
                context.add_asset_metadata({"dagster/partition_row_count": counts["sent"], **counts}, partition_key=key)
            class_map = class_map_in_force(profile, profile_pack(profile))
            links = None if opened_plane.known_context_log() is None else opened_plane.context_log()
            result = reconcile_ingress(connection, pins, class_map, opened_plane.log, links)
        yield dg.MaterializeResult(asset_key=INGRESS_RECEIPTS)
        yield dg.AssetCheckResult(
            asset_key=INGRESS_RECEIPTS,
            check_name=RECEIPTS_BALANCE,
            passed=bool(result.batches) and not result.differing,
            description="\n".join(result.differences) or (None if result.batches else "no batch was received for this run"),
            metadata={
                "sent": result.sent_count,
                "admitted": result.admitted_count,
                "duplicates": result.duplicate_count,
                "set_aside": result.quarantined_count,
                "in_log": result.in_log,
                "trimmed": result.trimmed_count,
                "differing": result.differing,
            },
        )

    return ingress_receipts


@dg.asset(
    key=INGRESS_QUARANTINE,
    deps=[dg.AssetDep(INGRESS_RECEIPTS, partition_mapping=dg.AllPartitionMapping())],
    description="Records that ingress set aside, by reason. `ofp quarantine list|show|replay` is for operators.",
    group_name="ingress",
    kinds={"postgres"},
    owners=OWNERS,
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            QUARANTINE_SHARE, asset=INGRESS_QUARANTINE, description="Few of the records that were sent were set aside."
        )
    ],
)
def ingress_quarantine(config: ShareConfig, plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.MaterializeResult[object]]:
    """Count what was set aside."""
    with plane.open("auditor") as opened_plane, opened_plane.pool.connection() as connection:
        pins = opened_plane.profile.context_pins
        reasons, counts = quarantine_by_reason(connection, pins), count_receipts(connection, pins)
    share = counts["set_aside"] / counts["sent"] if counts["sent"] else None
    check = dg.AssetCheckResult(
        check_name=QUARANTINE_SHARE,
        passed=share is not None and share <= config.max_share,
        severity=dg.AssetCheckSeverity.WARN,
        description="nothing was sent" if share is None else f"{share:.3%} of {counts['sent']:,}",
    )
    metadata: Metadata = {"set_aside": counts["set_aside"], "sent": counts["sent"]}
    metadata["reasons"] = markdown_table(["reason", "records"], sorted(reasons.items())) if reasons else "none"
    yield dg.MaterializeResult(metadata=metadata, check_results=[check])


verify_world_job = dg.define_asset_job(
    "verify_world", dg.AssetSelection.assets(WORLD_PACK), description="Look at all of a sealed world."
)
request_run_job = dg.define_asset_job(
    "request_run", dg.AssetSelection.assets(CONTROL_RUN), description="Ask for the run of the profile over a sealed world."
)
reconcile_ingress_job = dg.define_asset_job(
    "reconcile_ingress",
    dg.AssetSelection.assets(INGRESS_RECEIPTS),
    description="Count receipts by the hour, and hold all of them against the log.",
)
quarantine_job = dg.define_asset_job(
    "count_quarantine", dg.AssetSelection.assets(INGRESS_QUARANTINE), description="Count what ingress set aside, by reason."
)
