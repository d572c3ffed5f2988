"""`ofp bundle`: publish what may decide, put it in force by steps of several people, and say what was in force when."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import resolve as resolve_environment
from ofp_platform.cli.files.lineage_destination import OpenLineage, demand_open_lineage, tell_lineage
from ofp_platform.cli.options import Actor, AsJson, Home, ProfileSource, Reason
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.loop.bundle import BundleStep, Slot
from ofp_platform.vocabulary.offline.run_facts import TrafficMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ofp_platform.bundles.bundle_registry import BundleRegistry, StepOutcome
    from ofp_platform.bundles.compatibility import LivePlane
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.loop.bundle import BundleRef
    from ofp_platform.vocabulary.loop.bundle_views import RecordedBundleEvent

_PAGE_STEPS = 1_000
app = typer.Typer(help="Publish bundles, and put in force what decides.", no_args_is_help=True)
Named = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE", help="NAME/DIGEST, or its first digits; NAME alone where one is published.", show_default=False
    ),
]
OfMode = Annotated[TrafficMode, typer.Option("--mode", help="Of which traffic.")]
OfSlot = Annotated[Slot, typer.Option("--slot", help="active: it decides; shadow: it decides beside it, and nothing is done.")]


@app.command(short_help="Make a bundle of a file, and publish it.")
def publish(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A bundle.yaml, or a shipped one: card_payments, handbook.", show_default=False),
    ],
    actor: Actor,
    reason: Reason,
    model: Annotated[
        str | None, typer.Option("--model", metavar="PATH", help="Path of a model in the object store.", show_default=False)
    ] = None,
    report: Annotated[
        str | None, typer.Option("--report", metavar="PATH", help="Path of the report on it.", show_default=False)
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Hold the file, and a model with its report, against the pack of the profile; write the bundle once under its digest, and
    say PUBLISHED on control. Nothing decides by it yet.
    """
    from ofp_platform.bundles.bundle_file import bundle_source, make_bundle, read_bundle_file
    from ofp_platform.bundles.trained_model import load_trained_model
    from ofp_platform.online.plane import profile_pack
    from ofp_platform.registry.compile import compile_pack

    if (model is None) != (report is None):
        raise CommandRefused("a model goes with the report on it: name both, by --model and --report, or neither")
    path = bundle_source(str(Path(file).expanduser()))
    bundle_file = read_bundle_file(path)
    with resolve_environment(home, profile).open_plane_without_log("owner") as plane:
        trained_model = None if model is None or report is None else load_trained_model(plane.objects, model, report)
        bundle = make_bundle(path, bundle_file, compile_pack(profile_pack(plane.profile)), trained_model)
        outcome = _registry(plane, actor).publish(bundle, reason)
    without_gate = trained_model is not None and not trained_model.report.gates
    _print(outcome, json, ["no gate was asked for in the report on its model"] if without_gate else [])


@app.command(short_help="Approve a published bundle.")
def approve(
    bundle: Named,
    actor: Actor,
    reason: Reason,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Say APPROVED on control. Who approves is not who published it, unless the profile says `bundles: {four_eyes: false}`."""
    _step(bundle, actor, (home, profile), json, lambda registry, ref, _: registry.approve(ref, reason))


@app.command(short_help="Put an approved bundle in force.")
def activate(
    bundle: Named,
    actor: Actor,
    reason: Reason,
    mode: OfMode = TrafficMode.FRAUD,
    slot: OfSlot = Slot.ACTIVE,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Say ACTIVATED on control, for a scope: the profile's name, a mode, a slot. It takes the place of what is in force there.
    Refused, in words, where it was made for other features than those that are live, cannot keep a mask of the posture, or an
    object of it is not as its digest says.
    """

    def take(registry: BundleRegistry, ref: BundleRef, plane: Plane) -> StepOutcome:
        return registry.activate(ref, mode, slot, _live(plane), reason)

    _step(bundle, actor, (home, profile), json, take)


@app.command(short_help="Leave the bundle in force, for the one before it.")
def rollback(
    bundle: Named,
    actor: Actor,
    reason: Reason,
    mode: OfMode = TrafficMode.FRAUD,
    slot: OfSlot = Slot.ACTIVE,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Say ROLLED_BACK on control: BUNDLE, which must be in force in the scope, is left, and what was in force before it is so
    again. Once more, with the one that is in force then, goes one further back.
    """

    def take(registry: BundleRegistry, ref: BundleRef, plane: Plane) -> StepOutcome:
        return registry.roll_back(ref, mode, slot, _live(plane), reason)

    _step(bundle, actor, (home, profile), json, take)


@app.command(short_help="Retire a bundle for good.")
def retire(
    bundle: Named,
    actor: Actor,
    reason: Reason,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Say RETIRED on control: the bundle is put in force nowhere again. Refused while it is in force."""
    _step(bundle, actor, (home, profile), json, lambda registry, ref, _: registry.retire(ref, reason))


@app.command(short_help="Say what is, or was, in force.")
def resolve(
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="RFC 3339, UTC.", show_default=False)] = None,
    sequence: Annotated[
        int | None, typer.Option("--sequence", metavar="N", min=0, help="Behind step N.", show_default=False)
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """In each scope of the profile's run, the bundle in force now, at a time, or behind a step of the history (where both
    are said: as far as both reach). Exit code 1 if nothing is.
    """
    from ofp_platform.storage.bundle_events import Moment, NoSuchStep, all_in_force
    from ofp_platform.vocabulary.loop.bundle_views import BundlesInForce
    from ofp_platform.vocabulary.times import parse_time

    try:
        at_time = None if at is None else parse_time(at)
    except ValueError:
        raise CommandRefused("--at: not an RFC 3339 UTC time, as in 2026-02-01T12:00:00Z") from None
    with resolve_environment(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        pins = plane.profile.context_pins
        try:
            scopes = all_in_force(connection, pins, Moment(sequence, at_time))
        except NoSuchStep as error:
            raise CommandRefused(str(error)) from None
    lines = [
        line
        for entry in scopes
        for line in item(entry.scope.key, _name(entry.in_force.bundle), f"since step {entry.in_force.sequence}")
    ]
    facts = BundlesInForce(context_pins=pins, scopes=tuple(scopes))
    print_facts(facts, lines or [f"nothing is in force of run {pins.run_id}"], as_json=json)
    if not scopes:
        raise typer.Exit(1)


@app.command("list", short_help="List the steps of bundles.")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Greatest number of steps to list.")] = 20,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The steps of bundles of the profile's run, the newest first."""
    from ofp_platform.storage.bundle_events import list_bundle_events

    with resolve_environment(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        steps = list_bundle_events(connection, plane.profile.context_pins, limit)
    lines = [line for step in steps for line in _lines(step)]
    print_facts([step.wire() for step in steps], lines or ["no bundle was published for this run"], as_json=json)


@app.command(short_help="Show a bundle.")
def show(bundle: Named, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """A published bundle: its groups, rules and model, and where it comes from."""
    from ofp_platform.storage.bundle_events import load_bundle

    with resolve_environment(home, profile).open_plane_without_log("auditor") as plane:
        shown_bundle = load_bundle(plane.objects, _ref(plane, bundle))
    optional = set(shown_bundle.optional_groups)
    pack = shown_bundle.feature_definition_set
    lines = [
        f"{shown_bundle.ref.bundle_name}/{shown_bundle.ref.digest}",
        f"decides on {shown_bundle.event_type}, with {pack.pack_id} revision {pack.revision} ({pack.digest[:12]})",
    ]
    for group in shown_bundle.groups:
        lines.append(f"  {group.group_name} {group.group_version}{', optional' if group in optional else ''}")
    for rule in shown_bundle.guardrails:
        lines.append(f"  {rule.reason_code}: {rule.outcome.value}, {len(rule.all_of)} comparisons")
    if shown_bundle.model is not None:
        lines.append(f"model {shown_bundle.model.path} {shown_bundle.model.digest[:12]}")
        lines.append(f"  report {(shown_bundle.provenance.eval_report or 'none')[:12]}")
    print_facts(shown_bundle, lines, as_json=json)


@app.command(short_help="Tell a catalogue where a bundle comes from.")
def export(
    bundle: Named, openlineage: OpenLineage, json: AsJson = False, home: Home = None, profile: ProfileSource = None
) -> None:
    """Tell a published bundle as a run of OpenLineage: its dataset, and the digests of model, report and bundle as facets. The
    same bundle is the same run.
    """
    from ofp_platform.bundles.model_provenance import learned_from
    from ofp_platform.storage.bundle_events import load_bundle

    demand_open_lineage()
    from ofp_platform.lineage.open_lineage import bundle_event

    with resolve_environment(home, profile).open_plane_without_log("auditor") as plane:
        ref = _ref(plane, bundle)
        published_bundle, published_at = load_bundle(plane.objects, ref), _published_at(plane, ref)
        learned = learned_from(plane.objects, published_bundle)
        pins, store = plane.profile.context_pins, plane.objects.url
    tell_lineage(lambda: bundle_event(published_bundle, pins, store, published_at, learned), openlineage, as_json=json)


def _published_at(plane: Plane, ref: BundleRef) -> str:
    """When the bundle was said to be published."""
    from ofp_platform.storage.bundle_events import list_bundle_events

    before: int | None = None
    with plane.pool.connection() as connection:
        while steps := list_bundle_events(connection, plane.profile.context_pins, _PAGE_STEPS, before):
            for step in steps:
                if step.event.bundle == ref and step.event.step is BundleStep.PUBLISHED:
                    return step.event.at_utc
            before = steps[-1].event.sequence
    raise CommandRefused(f"{_name(ref)}: control has no step that published it: `ofp bundle list` shows the steps")


def _step(
    bundle: str,
    actor: str,
    where: tuple[Path | None, str | None],
    as_json: bool,
    take: Callable[[BundleRegistry, BundleRef, Plane], StepOutcome],
) -> None:
    """Take a step with the published bundle that a text names, and print it. `where`: home and profile."""
    with resolve_environment(*where).open_plane_without_log("owner") as plane:
        outcome = take(_registry(plane, actor), _ref(plane, bundle), plane)
    _print(outcome, as_json)


def _registry(plane: Plane, actor: str) -> BundleRegistry:
    from ofp_platform.bundles.bundle_registry import BundleRegistry

    control = plane.control_log(create=True)
    return BundleRegistry(plane.pool, plane.objects, control, plane.profile, actor, lambda: time.time_ns() // 1_000)


def _live(plane: Plane) -> LivePlane:
    from ofp_platform.bundles.compatibility import LivePlane

    return LivePlane(plane.known_registry(), has_identity=plane.profile.context_stream is not None)


def _ref(plane: Plane, text: str) -> BundleRef:
    """The published bundle that a text names."""
    from ofp_platform.storage.bundle_events import find_bundles

    name, _, digits = text.partition("/")
    with plane.pool.connection() as connection:
        refs = find_bundles(connection, plane.profile.context_pins, name, digits)
    if not refs:
        raise CommandRefused(f"no published bundle of this run is called {text}: `ofp bundle list` shows those that are")
    if len(refs) > 1:
        raise CommandRefused(f"{text} names several bundles: {', '.join(map(_name, refs))}: write more of the digest")
    return refs[0]


def _name(bundle: BundleRef) -> str:
    from ofp_platform.bundles.lifecycle import name_of

    return name_of(bundle)


def _lines(step: RecordedBundleEvent) -> Iterable[str]:
    event = step.event
    scope = "" if event.scope is None else event.scope.key
    details = [f"{event.actor}: {event.reason}"]
    if event.replaces is not None:
        details.append(f"in place of {_name(event.replaces)}")
    return item(event.sequence, event.step.value, _name(event.bundle), scope, when(event.at_utc), details=details)


def _print(outcome: StepOutcome, as_json: bool, more: Iterable[str] = ()) -> None:
    lines = [*_lines(outcome.step), *more]
    if not outcome.is_new:
        lines.append("it was so before: nothing was done")
    print_facts({**outcome.step.wire(), "is_new": outcome.is_new}, lines, as_json=as_json)
