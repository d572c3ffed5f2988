"""The posture of who decides: the kill switch as jobs, and the mode in force as a check beside `control/run`."""

import time

import dagster as dg

from ofp_platform.ingress.own_streams import MessageRefused
from ofp_platform.online.plane import NoControlStream, Plane
from ofp_platform.orchestration.log.ingress_assets import CONTROL_RUN
from ofp_platform.orchestration.receipt_metadata import Metadata
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.posture.keeper import KeeperOutcome, PostureKeeper, PostureRefused
from ofp_platform.storage.posture_changes import last_posture_change
from ofp_platform.storage.posture_looks import posture_watched
from ofp_platform.vocabulary.loop.posture import Mode, PostureChange

POSTURE = "posture"


class HoldConfig(dg.Config):
    """The mode that is to be in force, and why."""

    mode: str
    reason: str
    actor: str = "dagster"


class ReleaseConfig(dg.Config):
    """Why the mode is released."""

    reason: str
    actor: str = "dagster"


@dg.op(description="Holds a mode: no decision made under the former one is committed behind it.")
def hold_mode(context: dg.OpExecutionContext, config: HoldConfig, plane: dg.ResourceParam[PlaneResource]) -> None:
    """The kill switch."""
    if config.mode not in list(Mode):
        raise dg.Failure(f"there is no mode {config.mode}; there are {', '.join(Mode)}", allow_retries=False)
    with plane.open_without_log("decider") as opened_plane:
        _take(context, opened_plane, config.actor, Mode(config.mode), config.reason)


@dg.op(description="Lets signals change the mode again.")
def release_mode(context: dg.OpExecutionContext, config: ReleaseConfig, plane: dg.ResourceParam[PlaneResource]) -> None:
    """The end of a hold."""
    with plane.open_without_log("decider") as opened_plane:
        _take(context, opened_plane, config.actor, None, config.reason)


def _take(context: dg.OpExecutionContext, opened_plane: Plane, actor: str, mode: Mode | None, reason: str) -> None:
    profile = opened_plane.profile
    try:
        control = opened_plane.control_log(create=True)
        keeper = PostureKeeper(
            opened_plane.pool, control, profile.context_pins, profile.policy_rev, lambda: time.time_ns() // 1_000, actor
        )
        outcome: KeeperOutcome = keeper.release(reason) if mode is None else keeper.hold(mode, reason)
    except (NoControlStream, PostureRefused, MessageRefused) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    context.add_output_metadata({**_metadata(outcome.change), "is_new": outcome.is_new})


@dg.job(name="hold_posture", description="The kill switch: puts a mode in force until it is released.", tags={"plane": "online"})
def hold_posture_job() -> None:
    """Hold a mode."""
    hold_mode()


@dg.job(name="release_posture", description="Lets signals change the mode that is held.", tags={"plane": "online"})
def release_posture_job() -> None:
    """Release it."""
    release_mode()


@dg.asset_check(
    asset=CONTROL_RUN,
    name=POSTURE,
    description="Everything that a bundle knows may decide: the mode in force is NORMAL, and somebody watches the signals.",
)
def posture_is_normal(plane: dg.ResourceParam[PlaneResource]) -> dg.AssetCheckResult:
    """The mode in force of the profile's run; where nobody ever said anything it fails, for then it is FAIL_CLOSED. Also where
    the policy has thresholds and nobody looks: NORMAL would stay, whatever happens.
    """
    with plane.open_without_log("auditor") as opened_plane, opened_plane.pool.connection() as connection:
        pins = opened_plane.profile.context_pins
        change = last_posture_change(connection, pins)
        watched = posture_watched(connection, pins, opened_plane.profile.posture)
    if change is None:
        words = "nobody ever said anything of it: FAIL_CLOSED is in force"
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description=words)
    said = f"{change.mode}{', held' if change.held else ''} since {change.at_utc}: {'; '.join(change.reasons)}"
    return dg.AssetCheckResult(
        passed=change.mode is Mode.NORMAL and (watched is None or watched.is_watched),
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join([said, *([] if watched is None else [watched.words])]),
        metadata=_metadata(change),
    )


def _metadata(change: PostureChange) -> Metadata:
    return {
        "mode": change.mode.value,
        "held": change.held,
        "since": change.at_utc,
        "actor": change.actor,
        "reasons": "\n".join(change.reasons),
        "sequence": change.sequence,
        "message_id": change.message_id,
    }
