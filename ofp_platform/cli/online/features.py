"""`ofp features`: ask for features from the command line, in process or over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import Environment, resolve
from ofp_platform.cli.installation.local_principals import DECISIONS, local_token
from ofp_platform.cli.options import AlwaysJson, Home, ProfileSource
from ofp_platform.cli.terminal.readable_json import readable_response
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.raw_identifier import redact

if TYPE_CHECKING:
    from ofp_platform.vocabulary.position import Position
    from ofp_platform.vocabulary.serving import GetFeaturesRequest

app = typer.Typer(help="Ask for features.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Ask for features."""


@app.command("get", short_help="Get features of entities at an instant.")
def get_features(
    key: Annotated[list[str], typer.Option("--key", metavar="TYPE:ID", help="Key, such as account:account-0000001.")],
    feature_group: Annotated[
        list[str], typer.Option("--group", metavar="NAME:VERSION", help="Feature group, such as account_activity:v1.")
    ],
    as_of: Annotated[
        str, typer.Option("--as-of", metavar="TIME", help="As-of time, RFC 3339 with Z. There is no default, not even now.")
    ],
    context: Annotated[
        list[str] | None,
        typer.Option("--context", metavar="NAME=VALUE", help="Field of request_context; digits are an integer."),
    ] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option("--at-least", metavar="PARTITION:OFFSET", help="Record that must be in the basis of the answer."),
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="Service to ask; default: the database itself.")] = None,
    token: Annotated[str | None, typer.Option("--token", envvar="OFP_API_TOKEN", help="Bearer token of the service.")] = None,
    json: AlwaysJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Get features of entities at an instant, as the whole JSON response; a refusal goes to stderr with exit code 1."""
    from ofp_platform.client import make_request

    environment = resolve(home, profile)
    declared_profile = environment.load_profile()
    request = make_request(
        context_pins=declared_profile.context_pins,
        feature_keys=[pair_of(text, "--key", "TYPE:ID") for text in key],
        feature_groups=[pair_of(text, "--group", "NAME:VERSION") for text in feature_group],
        as_of_time_utc=as_of,
        request_context=_request_context(context) if context else None,
        at_least_basis=None if not at_least else [_position(text, declared_profile.stream_name) for text in at_least],
    )
    if url is None:
        body = _in_process(environment, request)
    else:
        body = _over_http(url, token or local_token(environment, DECISIONS, url), request)
    typer.echo(readable_response(body))


def _in_process(environment: Environment, request: GetFeaturesRequest) -> bytes:
    from ofp_platform.log.port import StreamNotFound
    from ofp_platform.online.plane import unknown_run
    from ofp_platform.online.ranges.log_progress import observe
    from ofp_platform.online.serving.posture import posture_of

    try:
        plane = environment.open_plane("serving")
    except StreamNotFound:
        raise unknown_run(environment.load_profile()) from None
    with plane:
        row = plane.known_live()
        posture = posture_of(observe(plane, row, stalled_seconds=0.0), plane.profile.thresholds)
        return plane.reader(row, posture).answer(request).body


def _over_http(url: str, token: str | None, request: GetFeaturesRequest) -> bytes:
    from ofp_platform.client import OfpClient, verify

    with OfpClient(url, token=token) as client:
        answer = client.ask(request)
    verify(answer)
    return answer.body


def pair_of(text: str, option: str, form: str) -> tuple[str, str]:
    first, colon, second = text.partition(":")
    if not (first and colon and second):
        raise CommandRefused(f"{option} is written {form}")
    return first, second


def _request_context(texts: list[str]) -> dict[str, int | str]:
    fields = [_context(text) for text in texts]
    names = [name for name, _ in fields]
    for name in names:
        if names.count(name) > 1:
            raise CommandRefused(f"--context names {redact(name)} twice")
    return dict(fields)


def _context(text: str) -> tuple[str, int | str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise CommandRefused("--context is written NAME=VALUE")
    digits = value.removeprefix("-")
    return name, int(value) if digits.isascii() and digits.isdigit() else value


def _position(text: str, stream_name: str) -> Position:
    from pydantic import ValidationError

    from ofp_platform.vocabulary.position import Position

    partition_id, _, offset = text.rpartition(":")
    try:
        # a sequence number of Kinesis has far more digits than a dense offset ever gets
        number: int | str = int(offset) if len(offset) < 16 else offset
        return Position(stream_name=stream_name, partition_id=partition_id, offset=number)
    except (ValueError, ValidationError):
        raise CommandRefused("--at-least is written PARTITION:OFFSET, as in 0002:51233") from None
