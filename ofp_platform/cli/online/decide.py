"""`ofp decide`: the example of a decision service, over the newest events of the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ofp_platform.cli.environment import Environment, resolve
from ofp_platform.cli.installation.local_principals import DECISIONS, ensure_local_principals, local_token
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.progress import bar
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.decisions.decision_point import DecisionPoint
    from ofp_platform.decisions.event_reader import ReadEvent
    from ofp_platform.decisions.loop import Tally
    from ofp_platform.online.plane import Plane

_READY_SECONDS = 60.0
_ANSWER_SECONDS = 10.0
_TOGETHER = 500


def decide(
    count: Annotated[int, typer.Option("--count", min=1, help="Decide on this many of the newest events.")] = 1000,
    every: Annotated[bool, typer.Option("--all", help="Decide on all events of the log instead.")] = False,
    url: Annotated[str | None, typer.Option("--url", help="Service to ask; default: one started for the purpose.")] = None,
    token: Annotated[str | None, typer.Option("--token", envvar="OFP_API_TOKEN", help="Bearer token of the service.")] = None,
    connections: Annotated[int, typer.Option("--connections", min=1, max=256, help="Concurrent requests.")] = 8,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Ask for the features of each event with the event itself in the basis, decide by the declared rule, record the decision.

    An event is decided on once. One that lies too far behind the watermark is refused: its state is no longer kept.
    """
    from ofp_platform.cli.online.newest_events import newest_events
    from ofp_platform.decisions.event_reader import EventReader

    environment = resolve(home, profile)
    with environment.open_plane("offline") as plane:
        declared_profile = plane.profile
        point = point_of(plane)
        reader = EventReader(plane.log, declared_profile.context_pins, point.event_type, declared_profile.clock_skew_us)
        if every:
            events = [event for page in reader.pages() for event in page.events]
        else:
            events = newest_events(reader, count)[-count:]
        if not events:
            raise CommandRefused(f"the log {plane.log.stream_name} holds no {point.event_type} of the profile's run")
        with (
            _service(environment, url, token) as service,
            environment.open_plane_without_log("serving") as records,
            bar(Console(stderr=True), "Deciding", len(events)) as advance,
        ):
            start = time.monotonic()
            tally = decide_on(records, point, events, service, connections=connections, advance=advance)
    print_facts(tally, [f"{words_of(tally)}, in {time.monotonic() - start:.1f} s"], as_json=json)
    if tally.refused:
        raise typer.Exit(1)


def point_of(plane: Plane) -> DecisionPoint:
    """The decision point of the plane: the file beside a pack of one's own, else the one that ships with the pack.

    Raises:
        CommandRefused: there is neither. DecisionFileError: the file cannot be used.
    """
    from ofp_platform.decisions.decision_file import FILE_NAME, load_decision_point
    from ofp_platform.decisions.decision_point import SHIPPED

    pack = plane.profile.pack
    if pack.endswith(".yaml") and (file := Path(pack).with_name(FILE_NAME)).exists():
        return load_decision_point(file)
    pack_id = plane.known_registry().pack.pack_id
    if pack_id not in SHIPPED:
        raise CommandRefused(
            f"no rule of decision is declared for pack {pack_id}: write {FILE_NAME} beside the pack;"
            f" one ships for {', '.join(SHIPPED)}"
        )
    return SHIPPED[pack_id]


@dataclass(frozen=True)
class KnownService:
    """Where a service is, and the key to ask it."""

    address: str
    token: str | None


def decide_on(
    plane: Plane,
    point: DecisionPoint,
    events: Sequence[ReadEvent],
    known_service: KnownService,
    *,
    advance: Callable[[int], None],
    connections: int = 8,
) -> Tally:
    """Decide on events through a service, and record the decisions with `plane`, whose role may.

    Raises:
        ContractError | ServiceUnreachable | AnswerNotTrusted: what the service has against it.
    """
    from ofp_platform.client import OfpClient
    from ofp_platform.decisions.loop import DecisionService, Tally
    from ofp_platform.decisions.recorder import DecisionRecorder
    from ofp_platform.decisions.threaded_client import ThreadedClient

    async def run(service: DecisionService) -> Tally:
        total = Tally()
        for start in range(0, len(events), _TOGETHER):
            part = events[start : start + _TOGETHER]
            add(total, await service.decide(part))
            advance(len(part))
        return total

    with (
        OfpClient(known_service.address, token=known_service.token, timeout_seconds=_ANSWER_SECONDS) as client,
        ThreadPoolExecutor(connections) as threads,
    ):
        recorder, pins = DecisionRecorder(plane.pool), plane.profile.context_pins
        asking = ThreadedClient(client, threads)
        service = DecisionService(
            asking, recorder, point, pins, lambda: time.time_ns() // 1000, connections, plane.profile.policy_rev
        )
        return asyncio.run(run(service))


def add(total: Tally, part: Tally) -> None:
    """Count a part into the total."""
    total.recorded += part.recorded
    total.known += part.known
    total.unusable += part.unusable
    total.refused += part.refused
    total.outcomes += part.outcomes


def words_of(tally: Tally) -> str:
    """A tally as one line."""
    parts = [f"{tally.recorded:,} decisions recorded"]
    if tally.outcomes:
        parts[0] += f" ({', '.join(f'{count:,} {name}' for name, count in sorted(tally.outcomes.items()))})"
    if tally.known:
        parts.append(f"{tally.known:,} known already")
    if tally.unusable:
        parts.append(f"{tally.unusable:,} events lack a field")
    parts += [f"{count:,} refused as {reason}" for reason, count in sorted(tally.refused.items())]
    return ", ".join(parts)


@contextmanager
def _service(environment: Environment, url: str | None, token: str | None) -> Iterator[KnownService]:
    """The service: the one named, or one which lives as long as the context."""
    if url is not None:
        yield KnownService(url, token or local_token(environment, DECISIONS, url))
        return
    with serving(environment, environment.profile_source, environment.dsn("owner"), "decide-serve.log") as service:
        yield service


@contextmanager
def serving(environment: Environment, profile_source: str, dsn: str, output: str) -> Iterator[KnownService]:
    """An HTTP service of our own, on a free port, with the key of decisions; what it prints goes to that file of the logs.

    Raises:
        CommandRefused: it does not become ready.
    """

    own = environment.model_copy(update={"principals": None})
    ensure_local_principals(own, environment.read_profile(profile_source).context_pins)
    command = ofp_command("serve", "--port", "0", "--profile", profile_source, "--home", str(environment.folder))
    variables = {"OFP_DATABASE_URL": environment.dsn_of_role(dsn, "serving"), "OFP_PRINCIPALS": str(own.principals_file)}
    with Child("the HTTP service", command, variables, environment.folder / "logs" / output) as service:
        address = service.wait_for_line("serving at ", _READY_SECONDS)
        assert address is not None  # nobody asks it to stop waiting
        yield KnownService(address, local_token(own, DECISIONS))
