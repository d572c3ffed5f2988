"""`ofp identity`: links between entities, and who belongs to whom."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.online.features import pair_of
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts
from ofp_platform.cli.terminal.refusals import CommandRefused

app = typer.Typer(help="Fold links between entities, and show who belongs to whom.", no_args_is_help=True)
_SHOWN = 20


@app.command("catch-up", short_help="Fold what the context stream holds, then stop.")
def catch_up(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Apply the links and unlinks that the context stream of the profile holds now. `ofp projector run` does so all the time.

    Links are appended by `ofp log append --context`.
    """
    with resolve(home, profile).open_plane("projector", create_stream=True) as plane:
        projector = plane.graph_projector()
        receipts = projector.drain()
        graph = projector.graph()
    records, links = sum(receipt.records for receipt in receipts), sum(receipt.links for receipt in receipts)
    line = f"{records:,} records, {links:,} new links and unlinks; the graph is at version {graph.version}"
    print_facts({"records": records, "links": links, "version": graph.version, "basis": graph.basis}, [line], as_json=json)


@app.command(short_help="Show how far the graph is, and what was not applied.")
def status(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Counts of the graph of the run, its lag, and the first records that are no links; exit code 1 if there is no graph."""
    from ofp_platform.identity.graph_state import anomalies, failures, find_graph, unmet_unlinks

    with resolve(home, profile).open_plane("auditor") as plane:
        log = plane.context_log()
        with plane.pool.connection() as connection:
            graph = find_graph(connection, log.stream_name, plane.profile.context_pins)
            if graph is None:
                raise CommandRefused(f"nobody has folded the context stream {log.stream_name}: `ofp identity catch-up` does")
            refused = failures(connection, graph, _SHOWN)
            unmet, several = unmet_unlinks(connection, graph), anomalies(connection, graph)
        lag = sum(log.ordinal_lag(graph.basis).values())
    lines = [
        f"graph of stream {graph.stream_name}: version {graph.version}, {graph.links:,} links and unlinks, {lag:,} behind",
        f"{graph.records:,} records: {graph.copies:,} copies, {graph.ignored_records:,} ignored,"
        f" {graph.other_run:,} of another run, {graph.failures:,} not applied",
    ]
    if unmet:
        lines.append(f"unlinks of nothing: {unmet:,}")
    if several:
        lines.append(f"anomalies (an id seen again with another payload): {several:,}")
    for partition_id, offset, reason, detail in refused:
        lines += item(f"{partition_id}:{offset}", reason, details=(detail,))
    rows = [
        {"partition_id": partition_id, "offset": offset, "reason": reason, "detail": detail}
        for partition_id, offset, reason, detail in refused
    ]
    counts = {"lag": lag, "unmet_unlinks": unmet, "anomalies": several, "first_failures": rows}
    print_facts({**vars(graph), **counts}, lines, as_json=json)


@app.command(short_help="Print the id of an observed identifier.")
def mint(
    key_type: Annotated[str, typer.Argument(metavar="TYPE", help="Key type, such as device.")],
    id_type: Annotated[str, typer.Argument(metavar="ID_TYPE", help="Type of the identifier, such as email.")],
    id_token: Annotated[str, typer.Argument(metavar="TOKEN", help="Its token: never the address or number itself.")],
    json: AsJson = False,
) -> None:
    """The id of the entity that an observed identifier is, where no engine gave it one: the same wherever it is computed."""
    from ofp_platform.vocabulary.identity import KeyType
    from ofp_platform.vocabulary.identity_link import minted_id
    from ofp_platform.vocabulary.raw_identifier import is_observed_identifier

    if key_type not in list(KeyType):
        raise CommandRefused(f"there is no key type {key_type!r}; there are {', '.join(KeyType)}")
    if is_observed_identifier(id_token):
        raise CommandRefused("the token is a raw identifier (a card number, IBAN, e-mail or IP address): give a token of it")
    key_id = minted_id(KeyType(key_type), id_type, id_token)
    print_facts({"key_type": key_type, "key_id": key_id}, [key_id], as_json=json)


@app.command(short_help="Show the entity that a key belongs to.")
def show(
    key: Annotated[str, typer.Argument(metavar="TYPE:ID", help="Key, such as account:account-0000001.")],
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="RFC 3339 with Z; default: now.", show_default=False)
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The canonical key and the members of the entity, the links of the key, and conflicts: links that do not count."""
    from ofp_platform.vocabulary.identity import FeatureKey, KeyType
    from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time

    key_type, key_id = pair_of(key, "the key", "TYPE:ID")
    try:
        moment = int(time.time() * MICROS_PER_SECOND) if as_of is None else parse_time(as_of)
        asked = FeatureKey(key_type=KeyType(key_type), key_id=key_id)
    except ValueError as error:
        raise CommandRefused(f"{key}: {error}") from None
    with resolve(home, profile).open_plane_without_log("auditor") as plane:
        known = plane.graph_reader().profile(asked, moment)
    lines = [
        f"{key_type}:{key_id} as of {known.as_of_time_utc}, graph version {known.graph_version.graph_version}",
        f"canonical  {key_type}:{known.canonical_id}",
        f"members    {', '.join(known.members)}",
    ]
    for link in known.neighbours:
        counts = "" if link.counts else ", does not count"
        lines.append(f"link       {link.member} to {link.canonical} since {link.effective_time_utc}{counts}")
    lines += [f"conflict   {conflict.kind}: {', '.join(conflict.key_ids)}" for conflict in known.conflicts]
    print_facts(known, lines, as_json=json)
