"""`ofp facts`: what is on record about a run, and the evidence without which nothing of it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.offline.build_context import open_build_context
from ofp_platform.cli.options import AlwaysJson, AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.readable_json import readable_json
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.offline.run_facts import RunFacts
    from ofp_platform.vocabulary.profile import Profile

app = typer.Typer(
    help="Publish and show run facts: the pins of a run, and the evidence that its checks passed.", no_args_is_help=True
)
Reference = Annotated[
    str | None,
    typer.Argument(
        metavar="[REFERENCE]", help="Reference of the facts; default: STREAM/RUN_ID of the profile.", show_default=False
    ),
]


def reference_of(profile: Profile) -> str:
    """The reference under which the facts of a profile's run are published when none is named."""
    return f"{profile.stream_name}/{profile.context_pins.run_id}"


def examine(plane: Plane, reference: str) -> RunFacts:
    """Look at the run of a plane that has no stream of control, in place of the scenario runner."""
    from ofp_platform.offline.requests.run_facts_view import examine_run
    from ofp_platform.vocabulary.offline.build_plan import PinnedPack

    registry = plane.known_registry()
    pack = PinnedPack(pack_id=registry.pack.pack_id, revision=registry.pack.revision, digest=registry.digest)
    return examine_run(plane.pool, plane.log, plane.profile, pack, reference)


def _facts_of_ready(plane: Plane, reference: str | None) -> RunFacts | None:
    """The facts that READY names; None for a run without control, or that nobody asked the scenario runner for.

    Raises:
        CommandRefused: the run needs READY and has none, or they stand under another reference.
        BuildRefused: see load_run_facts.
    """
    from ofp_platform.offline.requests.run_facts_view import load_run_facts
    from ofp_platform.storage.run_states import read_run_status

    pins = plane.profile.context_pins
    with plane.pool.connection() as connection:
        status = read_run_status(connection, pins)
    if status is None or status.facts_reference is None:
        if plane.profile.control_stream is not None:
            raise CommandRefused("the facts of a run under control are published by the scenario runner: `ofp run request WORLD`")
        return None
    if reference not in (None, status.facts_reference):
        raise CommandRefused(f"the facts of this run are those that READY names, under {status.facts_reference!r}")
    return load_run_facts(plane.pool, status.facts_reference, pins, plane.profile.stream_name)


@app.command(short_help="Examine the run and publish its facts.")
def publish(reference: Reference = None, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Check the run of the profile and publish its facts. What a reference names never changes. Of a run that the scenario runner
    made READY, they are published already, and are shown.
    """
    from ofp_platform.offline.requests.run_facts_view import publish_run_facts

    with open_build_context(resolve(home, profile)) as (plane, _):
        facts = _facts_of_ready(plane, reference) or examine(plane, reference or reference_of(plane.profile))
        digest = publish_run_facts(plane.pool, facts)
    lines = [f"published {facts.reference} {digest}"]
    lines += [f"  {evidence.check} {evidence.status.value} {evidence.evidence_digest}" for evidence in facts.evidence]
    print_facts({**facts.wire(), "digest": digest}, lines, as_json=json)


@app.command(short_help="Show the facts under a reference.")
def show(reference: Reference = None, json: AlwaysJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """The facts, if they are of the profile's run and every required check passed; a refusal otherwise."""
    from ofp_platform.offline.requests.run_facts_view import load_run_facts

    with open_build_context(resolve(home, profile)) as (plane, _):
        declared_profile = plane.profile
        name = reference or reference_of(declared_profile)
        facts = load_run_facts(plane.pool, name, declared_profile.context_pins, declared_profile.stream_name)
    typer.echo(readable_json({**facts.wire(), "digest": facts.digest}))
