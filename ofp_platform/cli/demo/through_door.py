"""From a sealed world to the log: the run of a demo becomes READY, is streamed through the door, and balances to the unit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from ofp_platform.cli.files.run_door import door_of
from ofp_platform.cli.offline.facts_commands import reference_of
from ofp_platform.cli.terminal.progress import bar, done
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.ingress.door import Door
from ofp_platform.ingress.receipts import read_batches
from ofp_platform.ingress.reconciliation import IngressReconciliation, reconcile_ingress
from ofp_platform.online.plane import Plane
from ofp_platform.scenario.ready_run import ready_run, world_of
from ofp_platform.scenario.runner import ScenarioRunner
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.position import make_basis
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.world.makers import MadeWorld
from ofp_platform.world.streamer import Pace, Streamer, StreamTally
from ofp_platform.world.world_rows import WorldFault
from ofp_platform.world.world_store import World, open_world, seal_world, write_world

ACTOR = "demo"


def controlled_profile(profile: Profile) -> Profile:
    """The profile with a stream of control beside that of its events: its run needs READY."""
    return profile.model_copy(update={"control_stream": f"{profile.stream_name}-control"})


def stream_world(profile: Profile, dsn: str, make: Callable[[], MadeWorld], console: Console) -> IngressReconciliation:
    """Seal the world of a run where it is not sealed yet, make the run READY, stream what was not streamed, and reconcile.

    Raises:
        CommandRefused: the log holds records that came around the door, a gate failed, or the receipts do not balance.
    """
    with Plane.open(controlled_profile(profile), dsn) as plane:
        demand_only_admitted(plane)
        world = _sealed_world(plane, make, console)
        runner = ScenarioRunner(plane, ACTOR, lambda: time.time_ns() // 1_000)
        name = world.manifest.world
        outcome = runner.request(name, mode=TrafficMode.FRAUD, reference=reference_of(profile))
        if outcome.problems:
            raise CommandRefused("the run is not READY:\n" + "\n".join(outcome.problems))
        gates = f"{len(outcome.evidence)} gates passed" if outcome.is_new else "was so before"
        done(console, "Run", f"{outcome.status.state}: {outcome.status.scenario_run_id}, {gates}")
        door = door_of(plane)
        tally, seconds = _stream(plane, door, console)
        done(console, "Admitted to the log", _words(tally, seconds))
        result = _reconcile(plane, door, console)
        if result.differing:
            raise CommandRefused("receipts and log differ:\n" + "\n".join(result.differences))
        done(console, "Reconciled", reconciliation_words(result))
        return result


def demand_only_admitted(plane: Plane) -> None:
    """Refuse a log that was filled before there was a door: streamed again, its records would stand in it twice.

    Raises:
        CommandRefused: it has records, and no receipt.
    """
    with plane.pool.connection() as connection:
        batches = read_batches(connection, plane.profile.context_pins, limit=1)
    if not batches and _records_of(plane):
        raise CommandRefused(
            f"stream {plane.log.stream_name} holds records that did not come through the door (an earlier version put them there,"
            " or `ofp log append`): take another home (--home), or a database of its own"
        )


def reconciliation_words(result: IngressReconciliation) -> str:
    """The sums, in a line."""
    return (
        f"{result.sent_count:,} sent = {result.admitted_count:,} admitted + {result.duplicate_count:,} duplicates +"
        f" {result.quarantined_count:,} set aside; {result.in_log + result.trimmed_count:,} stand in the log: to the unit"
    )


def _sealed_world(plane: Plane, make: Callable[[], MadeWorld], console: Console) -> World:
    """The world of the run, named as its stream."""
    name, objects = plane.profile.stream_name, plane.objects
    try:
        world = open_world(objects, name)
    except WorldFault:  # not made, or not sealed: what is there of it must be the same
        made_world = make()
        write_world(objects, name, made_world.maker, made_world.outputs)
        seal_world(objects, name)
        world = open_world(objects, name)
    manifest = world.manifest
    done(console, "Sealed world", f"{name}: {manifest.rows:,} rows, manifest {manifest.digest[:12]}")
    return world


def _stream(plane: Plane, door: Door, console: Console) -> tuple[StreamTally, float]:
    def send(envelopes: Sequence[Mapping[str, Any]], admitted_at: Sequence[int] | None) -> Mapping[str, int]:
        receipt = door.admit(envelopes, f"world/{plane.profile.stream_name}", admitted_at)
        return Counter(outcome.outcome.value for outcome in receipt.outcomes)

    run = ready_run(plane)
    world = world_of(plane, run)
    pace = Pace(0, time.monotonic, time.sleep)
    streamer = Streamer(world, run.facts.context_pins, plane.pool, send, pace, True, run.scenario.outputs)
    rows = sum(item.rows for item in world.manifest.outputs if item.output in streamer.outputs())
    start = time.monotonic()
    with bar(console, "Streaming through the door", rows) as advance:
        tally = streamer.run(advance=advance)
    return tally, time.monotonic() - start


def _records_of(plane: Plane) -> int:
    """How many the log of events holds."""
    return sum(plane.log.ordinal_lag(make_basis(plane.log.stream_name, {})).values())


def _words(tally: StreamTally, seconds: float) -> str:
    if not tally.sent_rows:
        return f"nothing: all {tally.resumed_rows:,} records of this world were streamed"
    counts = tally.outcomes
    return (
        f"{counts['ADMIT']:,} records in {seconds:.1f} s, {tally.sent_rows / seconds:,.0f} sent/s;"
        f" {counts['DUPLICATE']:,} duplicates, {counts['QUARANTINE']:,} set aside"
    )


def _reconcile(plane: Plane, door: Door, console: Console) -> IngressReconciliation:
    with bar(console, "Holding receipts against the log", _records_of(plane)) as advance, plane.pool.connection() as connection:
        return reconcile_ingress(connection, plane.profile.context_pins, door.class_map, door.traffic, door.context, advance)
