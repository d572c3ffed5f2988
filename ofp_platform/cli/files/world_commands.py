"""`ofp world`: history, sealed before anything of it is streamed or learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from ofp_platform.cli.environment import Environment, resolve
from ofp_platform.cli.files.import_commands import RULES
from ofp_platform.cli.files.run_door import door_of
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts, short
from ofp_platform.cli.terminal.progress import bar
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome

if TYPE_CHECKING:
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.world import WorldManifest
    from ofp_platform.world.makers import MadeWorld
    from ofp_platform.world.streamer import Send

app = typer.Typer(help="Make, seal, verify and show worlds: history that never changes.", no_args_is_help=True)
_SHOWN = 20
_ATTEMPTS = 12
WorldName = Annotated[str, typer.Argument(metavar="WORLD", help="Name of the world: a-z, 0-9, _ and -.", show_default=False)]


@app.command(short_help="Write a world from a simulation or from a file.")
def make(
    name: WorldName,
    payments: Annotated[
        int | None, typer.Option("--payments", min=1, help="So many simulated card payments.", show_default=False)
    ] = None,
    rings: Annotated[bool, typer.Option("--rings", help="Simulated transfers, and the links of their accounts.")] = False,
    handbook: Annotated[
        Path | None,
        typer.Option("--handbook", metavar="FILE.parquet", help="A handbook file, with its outcomes.", show_default=False),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option("--rows", metavar="FILE", help="Events of one's own: CSV, .parquet or .jsonl.", show_default=False),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="With --rows: what turned out to be true of them.", show_default=False),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option("--rules", metavar="FILE", help="How rows are read; default: import.yaml in the home.", show_default=False),
    ] = None,
    leave_out: Annotated[bool, typer.Option("--leave-out", help="With --rows: make it without the rows that are wrong.")] = False,
    seal: Annotated[bool, typer.Option("--seal", help="Seal it at once.")] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Write files and manifest of a world into the object store; `ofp world seal` closes it. The same source gives the same
    bytes, so a call that was cut off is made again.

    A row that is wrong is printed as FILE:PLACE: column: reason, and no world is made, unless --leave-out says so.
    """
    from ofp_platform.world.world_store import seal_world, write_world

    sources = {
        "--payments": payments is not None,
        "--rings": rings,
        "--handbook": handbook is not None,
        "--rows": rows is not None,
    }
    if sum(sources.values()) != 1:
        raise CommandRefused(f"say what the world is made of: one of {', '.join(sources)}")
    if rows is None and (labels is not None or rules is not None or leave_out):
        raise CommandRefused("--labels, --rules and --leave-out go with --rows")
    environment = resolve(home, profile)
    made_world = (
        _of_rows(environment, rows, labels, rules) if rows is not None else _simulated_world(environment, payments, handbook)
    )
    for file, fault in made_world.faults[:_SHOWN]:
        typer.echo(f"{file}:{fault.place}: {fault.column}: {fault.message}", err=True)
    if len(made_world.faults) > _SHOWN:
        typer.echo(f"and {len(made_world.faults) - _SHOWN:,} more rows that cannot be read", err=True)
    if made_world.faults and not leave_out:
        raise CommandRefused(
            f"{len(made_world.faults):,} rows are wrong: mend them, or make the world without them (--leave-out)"
        )
    manifest = write_world(environment.open_objects(), name, made_world.maker, made_world.outputs)
    if seal:
        seal_world(environment.open_objects(), name)
    lines = [*_lines(manifest), "sealed" if seal else f"not sealed yet: `ofp world seal {name}`"]
    print_facts({**manifest.wire(), "digest": manifest.digest}, lines, as_json=json)


@app.command("seal", short_help="Seal a world that was made.")
def seal_(name: WorldName, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Check all of a world against its manifest and write the seal, once. From then on it never changes."""
    from ofp_platform.world.world_store import seal_world

    world_seal, is_new = seal_world(resolve(home, profile).open_objects(), name)
    line = f"{'sealed' if is_new else 'was sealed'}: {name}, manifest {world_seal.manifest_digest}"
    print_facts({**world_seal.wire(), "is_new": is_new}, [line], as_json=json)


@app.command(short_help="Check a world against its seal, to the byte.")
def verify(name: WorldName, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Look at seal, manifest, every file, its rows and their order. Exit code 1 if anything is not as it was sealed, or no seal
    is there.
    """
    from ofp_platform.world.world_store import verify_world

    verification = verify_world(resolve(home, profile).open_objects(), name)
    manifest = verification.manifest
    lines = [f"{name}: {fault}" for fault in verification.faults]
    if not lines and manifest is not None:
        files = sum(len(output.files) for output in manifest.outputs)
        lines = [f"as it was sealed: {name}, {manifest.rows:,} rows in {files} files, manifest {manifest.digest}"]
    facts = {
        "world": name,
        "manifest_digest": None if manifest is None else manifest.digest,
        "sealed": verification.seal is not None,
        "faults": list(verification.faults),
    }
    print_facts(facts, lines, as_json=json)
    if verification.faults:
        raise typer.Exit(1)


@app.command(short_help="Show what a world is made of.")
def show(name: WorldName, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """The outputs of a sealed world, with rows, files and times, and what it was made from."""
    from ofp_platform.world.world_store import open_world

    world = open_world(resolve(home, profile).open_objects(), name)
    manifest = world.manifest
    print_facts({**manifest.wire(), "digest": manifest.digest}, _lines(manifest), as_json=json)


@app.command(short_help="Stream a sealed world to the run.")
def stream(
    name: WorldName,
    as_arrived: Annotated[
        bool,
        typer.Option("--as-arrived", help="In the order of arrival, admitted then by a simulated clock; else by event time."),
    ] = False,
    url: Annotated[
        str | None, typer.Option("--url", help="HTTP door (`ofp ingress serve`); default: by this process.", show_default=False)
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", envvar="OFP_API_TOKEN", help="Bearer token of the HTTP door.", show_default=False)
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option("--speedup", min=0, help="Event time over this; default: as the run says, else as fast as it goes."),
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Send the events of a sealed world through the door of the profile's run, all outputs but truth side by side. Cut off, it
    goes on where it was; what is sent twice is a duplicate. Times of events are never rewritten. Where the profile has a
    stream of control, the run must be READY, and the world the one that its facts name.
    """
    import time

    from ofp_platform.scenario.ready_run import ready_run, world_of
    from ofp_platform.world.streamer import Pace, Streamer, StreamTally
    from ofp_platform.world.world_store import open_world

    if url is not None and as_arrived:
        raise CommandRefused(
            "--as-arrived declares times of admission, and over HTTP a door takes none but its own: leave one out"
        )
    environment = resolve(home, profile)
    with environment.open_plane("ingress", create_stream=True) as plane, ExitStack() as stack:
        only_outputs: Sequence[str] | None = None
        if plane.profile.control_stream is None:
            world = open_world(plane.objects, name)
        else:
            run = ready_run(plane)
            world, only_outputs = world_of(plane, run), run.scenario.outputs
            if run.scenario.world != name:
                raise CommandRefused(f"the run that is READY is of world {run.scenario.world}, not of {name}")
            speedup = float(run.plan.request.speedup) if speedup is None else speedup
        send = _through_http(stack, url, token) if url is not None else _through_door(plane, name)
        pace = Pace(speedup or 0.0, time.monotonic, time.sleep)
        streamer = Streamer(world, plane.profile.context_pins, plane.pool, send, pace, as_arrived, only_outputs)
        rows = sum(output.rows for output in world.manifest.outputs if output.output in streamer.outputs())
        tally = StreamTally()
        with bar(Console(stderr=True), "Streaming", rows) as advance:
            streamer.run(tally, advance)
    counts = {outcome.value: tally.outcomes[outcome.value] for outcome in AdmissionOutcome}
    lines = [
        f"{tally.sent_rows:,} sent now, {tally.resumed_rows:,} before: {counts['ADMIT']:,} admitted,"
        f" {counts['DUPLICATE']:,} duplicates,"
        f" {counts['QUARANTINE']:,} set aside (`ofp quarantine list`)"
    ]
    print_facts({"sent": tally.sent_rows, "resumed": tally.resumed_rows, **counts}, lines, as_json=json)


def _through_door(plane: Plane, name: str) -> Send:
    """Into the log, by this process."""
    from ofp_platform.log.port import LogUnavailable
    from ofp_platform.storage.objects import ObjectStoreUnavailable

    door = door_of(plane)

    @retry(
        retry=retry_if_exception_type((LogUnavailable, ObjectStoreUnavailable)),
        wait=wait_exponential(multiplier=0.2, max=10),
        stop=stop_after_attempt(_ATTEMPTS),
        reraise=True,
    )
    def send(envelopes: Sequence[Mapping[str, Any]], admitted_at: Sequence[int] | None) -> Mapping[str, int]:
        receipt = door.admit(envelopes, f"world/{name}", admitted_at)
        return Counter(outcome.outcome.value for outcome in receipt.outcomes)

    return send


def _through_http(stack: ExitStack, url: str, token: str | None) -> Send:
    """To a service, which admits them under the name of the token's principal."""
    from ofp_platform.client import EventSender

    sender = stack.enter_context(EventSender(url, token=token))

    def send(envelopes: Sequence[Mapping[str, Any]], admitted_at: Sequence[int] | None) -> Mapping[str, int]:
        assert admitted_at is None  # refused before
        return Counter(receipt.outcome.value for receipt in sender.send(envelopes).receipts)

    return send


@app.command("list", short_help="List worlds.")
def list_(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """All worlds of the object store, sealed or not. Their files are not looked at: `ofp world verify` does that."""
    from ofp_platform.world.world_store import list_worlds

    facts: list[dict[str, object]] = []
    lines: list[str] = []
    for name, manifest, world_seal in list_worlds(resolve(home, profile).open_objects()):
        is_sealed = manifest is not None and world_seal is not None and world_seal.manifest_digest == manifest.digest
        state = "sealed" if is_sealed else "not sealed" if world_seal is None else "damaged"
        about = "no manifest" if manifest is None else f"{manifest.rows:,} rows, from {manifest.maker.maker}"
        lines += item(name, state, about, "" if manifest is None else short(manifest.digest))
        digest = None if manifest is None else manifest.digest
        facts.append({"world": name, "state": state, "manifest_digest": digest, "rows": manifest and manifest.rows})
    print_facts(facts, lines or ["no world: `ofp world make` writes one"], as_json=json)


def _simulated_world(environment: Environment, payments: int | None, handbook: Path | None) -> MadeWorld:
    from ofp_platform.simulation.payments import PaymentSimulation
    from ofp_platform.simulation.rings import RingSimulation
    from ofp_platform.world.makers import handbook_world, payments_world, rings_world

    pins = environment.load_profile().context_pins
    if handbook is not None:
        return handbook_world(handbook, pins)
    if payments is None:
        return rings_world(RingSimulation(pins))
    try:
        simulation = PaymentSimulation(pins, payments=payments)
    except ValueError as error:
        raise CommandRefused(f"--payments: {error}") from None
    return payments_world(simulation)


def _of_rows(environment: Environment, rows: Path, labels: Path | None, rules: Path | None) -> MadeWorld:
    from ofp_platform.online.plane import profile_pack
    from ofp_platform.registry.models import event_class
    from ofp_platform.tables.import_rules import load_import_rules
    from ofp_platform.world.makers import table_world

    source = rules or environment.folder / RULES
    import_rules = load_import_rules(source)
    label_class = None
    if labels is not None:
        if import_rules.labels is None:
            raise CommandRefused(
                f"{source}: has no section labels: say there which column names the event and which says since when"
            )
        events = profile_pack(environment.load_profile()).events
        if import_rules.labels.event_type not in events:
            raise CommandRefused(
                f"{source}: labels.event_type: the pack knows no {import_rules.labels.event_type}; it has {', '.join(events)}"
            )
        label_class = event_class(events, import_rules.labels.event_type)
    return table_world(rows, labels, import_rules, label_class)


def _lines(manifest: WorldManifest) -> list[str]:
    maker = manifest.maker
    sources = "".join(f", {source.name} {short(source.digest)}" for source in maker.sources)
    lines = [f"world {manifest.world}: {manifest.rows:,} rows, from {maker.maker}{sources}", f"manifest {manifest.digest}"]
    for output in manifest.outputs:
        span = f"{output.files[0].first_ts_utc} to {output.files[-1].last_ts_utc}" if output.files else "no row"
        lines += item(output.output, output.role.value, details=(f"{output.rows:,} rows, {len(output.files)} files, {span}",))
    return lines
