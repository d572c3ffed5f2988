"""The way from a sealed world to the log as assets: the world, the run over it, receipts by the hour, and what was set aside."""

import time
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from ofp_platform.ingress.class_map import class_map_in_force
from ofp_platform.ingress.receipt_segments import HOUR, is_over, verify_segments, write_segments
from ofp_platform.ingress.receipts import count_receipts, quarantine_by_reason
from ofp_platform.ingress.reconciliation import reconcile_ingress
from ofp_platform.offline.requests.run_facts_view import load_run_facts
from ofp_platform.online.plane import NoControlStream, Plane, profile_pack
from ofp_platform.orchestration.log.event_assets import INGRESS_RECEIPTS, OWNERS
from ofp_platform.orchestration.log.group_assets import CODE_VERSION, group_asset
from ofp_platform.orchestration.partitions import event_hours, hour_start
from ofp_platform.orchestration.receipt_metadata import Metadata, markdown_table
from ofp_platform.orchestration.resources import ObjectStoreResource, PlaneResource
from ofp_platform.orchestration.run_liveness import TICK_SECONDS
from ofp_platform.scenario.asked_runs import NoSuchAsk, answer_ask
from ofp_platform.storage.run_asks import TooManyAsks, add_ask, pending_asks
from ofp_platform.storage.run_states import read_run_status
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.scenario import RunAsk, RunState, RunStatus
from ofp_platform.world.world_store import verify_world

WORLD_PACK = dg.AssetKey(["world", "pack"])
CONTROL_RUN = dg.AssetKey(["control", "run"])
INGRESS_QUARANTINE = dg.AssetKey(["ingress", "quarantine"])
SEAL_VERIFIED, EVIDENCE_RESOLVES = "seal_verified", "evidence_resolves"
RECEIPTS_BALANCE, SEGMENTS_WHOLE = "receipts_balance", "segments_whole"
QUARANTINE_SHARE = "quarantine_share"
_GROUP = "ingress"


class WorldConfig(dg.Config):
    """Which world is verified."""

    world: str


class RunConfig(dg.Config):
    """The run as it is asked for. `outputs`: none for all that are streamed; `reference`: empty for STREAM/RUN_ID.
    `ask_id`: of an ask that came over HTTP or by a file; then the ask says all of it.
    """

    world: str = ""
    mode: str = TrafficMode.FRAUD.value
    outputs: list[str] = Field(default_factory=list)
    speedup: str = "0"
    reference: str = ""
    actor: str = "dagster"
    ask_id: int | None = None


class ShareConfig(dg.Config):
    """The share of records set aside from which the check warns."""

    max_share: float = 0.01


@group_asset(
    _GROUP,
    WORLD_PACK,
    description="A sealed world, looked at whole: seal, manifest, each file and row. `ofp world make` and `seal` write it.",
    kind="parquet",
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


@group_asset(
    _GROUP,
    CONTROL_RUN,
    deps=[WORLD_PACK],
    description="The run of the profile: asked for here, or by `ofp run request`; READY where every gate passed. Its steps are"
    " reported by `run_steps`.",
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
        try:
            opened_plane.control_log(create=True)
            with opened_plane.pool.connection() as connection:
                pins = opened_plane.profile.context_pins
                ask_id = config.ask_id or add_ask(connection, pins, _ask_of(config), config.actor)
            answer, outcome = answer_ask(opened_plane, ask_id, _now)
        except (NoSuchAsk, TooManyAsks, NoControlStream, ValueError) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        if outcome is None:
            raise dg.Failure("\n".join(answer.problems) or "the ask was answered before", allow_retries=False)
        if outcome.status.state is not RunState.READY:
            gates = markdown_table(["gate", "result"], [(gate.check, gate.status.value) for gate in outcome.evidence])
            raise dg.Failure("\n".join(outcome.problems), metadata={"gates": gates}, allow_retries=False)
        check = _evidence_resolves(opened_plane, outcome.status)
    yield dg.MaterializeResult(metadata=_step_metadata(outcome.status), check_results=[check])


def _ask_of(config: RunConfig) -> RunAsk:
    fields = {
        "world": config.world,
        "mode": config.mode,
        "outputs": config.outputs or None,
        "speedup": config.speedup,
        "reference": config.reference or None,
    }
    return RunAsk.model_validate(fields)


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


@dg.sensor(
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    job_name="request_run",
    description="Asks for the run that came over HTTP or by a file: a run of `request_run` looks at each gate.",
    tags={"plane": "online"},
)
def asked_runs(plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """A run for each ask that nobody has answered."""
    with plane.open("auditor") as opened_plane, opened_plane.pool.connection() as connection:
        pending = pending_asks(connection, opened_plane.profile.context_pins)
    if not pending:
        yield dg.SkipReason("nobody waits for an answer")
    for ask_id in pending:
        config = {"ops": {CONTROL_RUN.to_python_identifier(): {"config": {"ask_id": ask_id}}}}
        yield dg.RunRequest(run_key=f"ask-{ask_id}", run_config=config)


def receipts_asset(profile: Profile) -> dg.AssetsDefinition:
    """`ingress/receipts`: what came through the door in hours of the clock, and the reconciliation of all of it."""

    @dg.asset(
        key=INGRESS_RECEIPTS,
        deps=[CONTROL_RUN],
        partitions_def=event_hours(profile),
        backfill_policy=dg.BackfillPolicy.single_run(),
        description="Receipts by the hour in which their batches came, counted, and kept in segments when it is over.",
        group_name=_GROUP,
        kinds={"postgres"},
        owners=OWNERS,
        code_version=CODE_VERSION,
        check_specs=[
            dg.AssetCheckSpec(
                RECEIPTS_BALANCE,
                asset=INGRESS_RECEIPTS,
                blocking=True,
                description=(
                    "Of the whole run: sent = admitted + duplicates + set aside, and each admitted record stands in the log at"
                    " its position, and no other; to the unit."
                ),
            ),
            dg.AssetCheckSpec(
                SEGMENTS_WHOLE,
                asset=INGRESS_RECEIPTS,
                description="The receipts of hours that are over stand in write-once segments, all of them, byte for byte.",
            ),
        ],
    )
    def ingress_receipts(
        context: dg.AssetExecutionContext, plane: dg.ResourceParam[PlaneResource]
    ) -> Iterator[dg.MaterializeResult[object] | dg.AssetCheckResult]:
        problems: list[str] = []
        open_hours: list[str] = []
        in_segments = 0
        with plane.open("offline") as opened_plane, opened_plane.pool.connection() as connection:
            pins = opened_plane.profile.context_pins
            for key in context.partition_keys:
                start = hour_start(key)
                counts = count_receipts(connection, pins, start, start + HOUR)
                context.add_asset_metadata({"dagster/partition_row_count": counts["sent"], **counts}, partition_key=key)
                if not is_over(connection, start):
                    open_hours.append(key)
                    continue
                write_segments(connection, opened_plane.objects, pins, start)
                receipts, words = verify_segments(connection, opened_plane.objects, pins, start)
                in_segments += receipts
                problems += words
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
                "in_flight": result.in_flight,
                "differing": result.differing,
            },
        )
        yield dg.AssetCheckResult(
            asset_key=INGRESS_RECEIPTS,
            check_name=SEGMENTS_WHOLE,
            passed=not problems,
            description="\n".join(problems) or (f"not over yet: {', '.join(open_hours[:5])}" if open_hours else None),
            metadata={"receipts_in_segments": in_segments, "hours_not_over": len(open_hours)},
        )

    return ingress_receipts


@group_asset(
    _GROUP,
    INGRESS_QUARANTINE,
    deps=[dg.AssetDep(INGRESS_RECEIPTS, partition_mapping=dg.AllPartitionMapping())],
    description="Records that ingress set aside, by reason. `ofp quarantine list|show|replay` is for operators.",
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
    "request_run",
    # not every check beside it: the posture is no matter of who asks for a run
    dg.AssetSelection.assets(CONTROL_RUN).without_checks()
    | dg.AssetSelection.checks(dg.AssetCheckKey(CONTROL_RUN, EVIDENCE_RESOLVES)),
    description="Ask for the run of the profile over a sealed world.",
)
reconcile_ingress_job = dg.define_asset_job(
    "reconcile_ingress",
    dg.AssetSelection.assets(INGRESS_RECEIPTS),
    description="Count receipts by the hour, and hold all of them against the log.",
)
quarantine_job = dg.define_asset_job(
    "count_quarantine", dg.AssetSelection.assets(INGRESS_QUARANTINE), description="Count what ingress set aside, by reason."
)
