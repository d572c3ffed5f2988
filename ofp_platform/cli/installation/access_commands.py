"""`ofp access`: who asked the HTTP service for what."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when

app = typer.Typer(help="Show who asked the HTTP service for what.", no_args_is_help=True)


@app.callback()
def access() -> None:
    """Who asked the HTTP service for what, when, and what came of it; never a value."""


@app.command("list")
def list_accesses(
    principal: Annotated[str | None, typer.Option(help="List only requests of this principal.")] = None,
    credential: Annotated[str | None, typer.Option(help="Only by this, as in 'key 0123456789abcdef' or 'issuer NAME'.")] = None,
    digest: Annotated[str | None, typer.Option("--hash", help="List only requests for this snapshot hash or run key.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="List only requests since then, as in 2026-11-28T00:00:00Z.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Greatest number of requests to list, the newest.")] = 100,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """List accesses, oldest first, as the services of this home wrote them."""
    from ofp_platform.api.access_log import FOLDER, read_accesses
    from ofp_platform.cli.terminal.refusals import CommandRefused
    from ofp_platform.vocabulary.times import format_time, parse_time

    try:
        begin = "" if since is None else format_time(parse_time(since))
    except ValueError:
        raise CommandRefused("--since is a time in UTC, as in 2026-11-28T00:00:00Z") from None
    newest: deque[dict[str, object]] = deque(maxlen=count)
    for fields in read_accesses(resolve(home, needs_home=True).folder / FOLDER):
        if principal not in (None, fields["principal"]) or digest not in (None, fields["digest"]):
            continue
        if credential not in (None, fields.get("credential")):
            continue
        if begin and parse_time(str(fields["at_utc"]) or begin) < parse_time(begin):
            continue
        newest.append(fields)
    lines = (line for fields in newest for line in _access_lines(fields))
    print_facts(list(newest), lines, as_json=json)


def _access_lines(fields: Mapping[str, object]) -> Iterator[str]:
    many = (f"x{fields['times']}",) if "times" in fields else ()
    time = fields["at_utc"]
    head = (when(str(time)) if time else "-", fields["principal"] or "-", fields["route"], fields["outcome"], *many)
    # whole: `--hash` and `ofp snapshot show` take no beginning of it
    yield from item(*head, details=(str(fields["digest"]),) if fields["digest"] else ())
