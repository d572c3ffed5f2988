"""`ofp plan`, `ofp apply`, `ofp rollback`: put another pack live beside the one that serves, and go back."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import ConnectsAs, Environment, resolve
from ofp_platform.cli.options import ActorOrUser, AsJson, FactReason, Home, ProfileSource, actor_or_user
from ofp_platform.cli.terminal.printed_facts import item, print_facts, short, when
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ofp_platform.online.plane import Plane
    from ofp_platform.online.projecting.projector import ApplyReceipt
    from ofp_platform.online.ranges.pack_apply import Order
    from ofp_platform.online.ranges.rebuild import RebuildReceipt
    from ofp_platform.vocabulary.pack_plan import PackPlan, PlannedGroup

_LEAST_DIGITS = 8
PackSource = Annotated[str, typer.Argument(metavar="PACK", help="Pack file, or name of a shipped pack.")]
Share = Annotated[
    float,
    typer.Option("--share", min=0.05, max=1.0, help="Share of the time that the build works: less keeps the live one fresher."),
]


def plan(pack: PackSource, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Say what a pack would change if it went live, and what that would cost. Nothing is written.

    Groups that come, go and stay, who reads them, how far back their windows reach, records to fold, time and bytes.
    """
    pack_plan = _plan(resolve(home, profile), pack, measured=True)
    lines = list(_plan_lines(pack_plan))
    if not pack_plan.unchanged:
        lines += ["apply with:", f"ofp apply {pack} --plan {short(pack_plan.digest())} --reason '...'"]
    print_facts({**pack_plan.wire(), "plan_digest": pack_plan.digest()}, lines, as_json=json)


def apply(
    pack: PackSource,
    digest: Annotated[
        str,
        typer.Option("--plan", metavar="DIGEST", help="Digest of the plan; its first 8 digits are enough.", show_default=False),
    ],
    reason: FactReason,
    actor: ActorOrUser = None,
    share: Share = 0.5,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Carry out a plan: build the pack beside the live one, compare the two by hash, switch at one basis.

    Serving and projecting go on meanwhile. The former projection is kept as long as the profile keeps retired ones; until then
    `ofp rollback` makes it live again. If it is stopped, the same call continues. Then name the pack in the profile: services and
    projectors follow the live projection by themselves.
    """
    from ofp_platform.online.ranges.pack_apply import apply_plan

    environment = resolve(home, profile)
    pack_plan = _plan(environment, pack, measured=False)
    if len(digest) < _LEAST_DIGITS or not pack_plan.digest().startswith(digest):
        raise CommandRefused(
            f"--plan: the plan of {pack} is {short(pack_plan.digest())} now, asked for was {digest}: the pack or what is live"
            f" changed since, or it is another one; look again with `ofp plan {pack}`"
        )
    with (
        _open_plane(environment, pack, "projector") as plane,
        _folding(plane, pack_plan.estimate.records) as on_commit,
    ):
        receipt = apply_plan(plane, pack_plan, _fold(plane), _order(actor, reason, share), on_commit)
    print_facts(receipt, _switch_lines(receipt), as_json=json)


def rollback(
    reason: FactReason,
    actor: ActorOrUser = None,
    share: Share = 0.5,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Make live again what the last `ofp apply` retired: bring it to the basis of the live projection, compare, switch."""
    from ofp_platform.online.ranges.pack_apply import roll_back

    environment = resolve(home, profile)
    with _open_plane(environment, None, "projector") as plane, _folding(plane, None) as on_commit:
        receipt = roll_back(plane, _fold(plane), _order(actor, reason, share), on_commit)
    print_facts(receipt, _switch_lines(receipt), as_json=json)


@contextmanager
def _open_plane(environment: Environment, pack: str | None, role: ConnectsAs) -> Iterator[Plane]:
    """The plane of the profile, with that pack in it: a plan reads what the offline plane published, an apply writes state."""
    from ofp_platform.online.plane import Plane
    from ofp_platform.registry.pack import SHIPPED_PACKS

    profile = environment.load_profile()
    if pack is not None:
        path = pack if pack in SHIPPED_PACKS else str(Path(pack).expanduser().resolve())
        profile = profile.model_copy(update={"pack": path})
    with Plane.open(profile, environment.dsn(role), create_stream=False) as plane:
        yield plane


def _plan(environment: Environment, pack: str, *, measured: bool) -> PackPlan:
    """`measured`: whether a part of the records is folded for the estimate, where no build was measured here yet."""
    from ofp_platform.online.plane import profile_pack
    from ofp_platform.online.ranges.pack_plan import plan_pack
    from ofp_platform.vocabulary.times import MICROS_PER_SECOND

    now = int(time.time() * MICROS_PER_SECOND)
    with _open_plane(environment, pack, "offline") as plane:
        return plan_pack(plane, profile_pack(plane.profile), _fold(plane) if measured else None, planned_at=now)


def _fold(plane: Plane) -> Callable[..., list[str]]:
    from ofp_platform.offline.parity.projection_fold import ProjectionFold

    return ProjectionFold(plane.log, plane.archive, plane.profile)


def _order(actor: str | None, reason: str, share: float) -> Order:
    from ofp_platform.online.ranges.pack_apply import Order
    from ofp_platform.vocabulary.times import MICROS_PER_SECOND

    return Order(actor_or_user(actor), reason, int(time.time() * MICROS_PER_SECOND), share)


@contextmanager
def _folding(plane: Plane, records: int | None) -> Iterator[Callable[[ApplyReceipt], None]]:
    from rich.console import Console

    from ofp_platform.cli.terminal.progress import bar

    count = sum(plane.log.ordinal_lag(plane.known_live().basis).values()) if records is None else records
    with bar(Console(stderr=True), "Folding", count) as advance:
        yield lambda receipt: advance(receipt.records)


def _plan_lines(plan: PackPlan) -> Iterator[str]:
    yield f"live  registry {short(plan.live_registry)}, projection {plan.live_projection} of stream {plan.stream_name}"
    yield f"new   registry {short(plan.new_registry)}, pack {plan.pack_id} revision {plan.revision}"
    if plan.unchanged:
        yield "the pack is the live one: nothing to do"
        return
    for event in plan.changed_events:
        yield f"~ event {event}"
    for group in plan.groups:
        yield from _group_lines(group)
    if not plan.readers_known:
        yield from item("who reads these groups is not known: more datasets and models are published than are looked at")
    estimate = plan.estimate
    yield f"folds {estimate.records:,} records; about {estimate.state_bytes / 1e6:,.1f} MB of state beside the live one"
    if estimate.seconds is None:
        yield f"time unknown: measured was {estimate.measured}"
    else:
        rate = f"{estimate.records_per_second:,} records/s"
        yield from item(f"about {estimate.seconds:,.0f} s of work at {rate}, measured on {estimate.measured}")


def _group_lines(group: PlannedGroup) -> Iterator[str]:
    from ofp_platform.vocabulary.pack_plan import GroupChange
    from ofp_platform.vocabulary.times import format_duration

    sign = {GroupChange.ADDED: "+", GroupChange.REMOVED: "-", GroupChange.KEPT: "="}[group.change]
    features = "1 feature" if group.features == 1 else f"{group.features} features"
    details = []
    if group.replaces:
        details.append(f"in the place of {', '.join(group.replaces)}")
    if group.folded_from_utc is not None:
        details.append(f"reaches back {format_duration(group.reach_us)}: events from {when(group.folded_from_utc)} on")
    if group.change is not GroupChange.KEPT:
        details += [f"read by {one.kind.replace('_', ' ')} {one.name} ({short(one.reference)})" for one in group.read_by]
    yield from item(f"{sign} group {group.group_name} {group.group_version}", f"({group.key_type}, {features})", details=details)


def _switch_lines(receipt: RebuildReceipt) -> Iterator[str]:
    if receipt.unchanged or receipt.comparison is None:
        yield "the pack is the live one: nothing to do"
        return
    comparison, beside = receipt.comparison, receipt.beside
    yield f"compared {len(comparison.compared_keys)} groups of {comparison.keys} keys: equal, {short(comparison.beside_hash)}"
    yield f"projection {beside.projection_id} is live, registry {short(beside.registry_digest)}, version {beside.version}"
    yield f"projection {receipt.live.projection_id} is kept as long as the profile keeps retired ones; back with:"
    yield "ofp rollback --reason '...'"
