"""`ofp log show`: one record of the log, without the values of its payload unless they are asked for."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AlwaysJson, Home, ProfileSource
from ofp_platform.cli.terminal.readable_json import readable_json
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.raw_identifier import redact

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object", type(None): "null"}


def show(
    position: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="Where the record stands, as in 0002:51233.")],
    payload_values: Annotated[
        bool, typer.Option("--payload-values", help="Show the values of the payload too: they may be personal data.")
    ] = False,
    json: AlwaysJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The record at a position as JSON: its envelope, when it was admitted, the hash of its payload, the payload's fields.

    Of the payload, names and types of its fields only. A record that was trimmed off the log is read from the archive.
    """
    from ofp_platform.log.port import UnreadableRecord
    from ofp_platform.log.record_lookup import record_at

    partition_id, _, offset = position.rpartition(":")
    if not partition_id:
        raise CommandRefused("a position is written PARTITION:OFFSET, as in 0002:51233")
    with resolve(home, profile).open_plane("auditor") as plane:
        record = record_at(plane.archived_log, plane.archive, partition_id, offset)
        stream_name = plane.log.stream_name
    where: dict[str, Any] = {"stream_name": stream_name, "partition_id": partition_id, "offset": offset}
    if isinstance(record, UnreadableRecord):
        typer.echo(readable_json({**where, "unreadable": {"reason": record.reason, "message": record.message}}))
        return
    envelope = record.envelope.model_dump(mode="json", exclude_none=True)
    payload = envelope.pop("payload")
    shown = payload if payload_values else {redact(name): _TYPES[type(value)] for name, value in payload.items()}
    typer.echo(
        readable_json(
            {
                **where,
                "incarnation": record.incarnation,
                "admitted_at_utc": record.admitted_at_utc,
                "payload_hash": record.payload_hash,
                "envelope": envelope,
                "payload" if payload_values else "payload_fields": shown,
            }
        )
    )
