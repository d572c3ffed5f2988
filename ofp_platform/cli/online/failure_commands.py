"""`ofp projector failures` and `ofp projector anomalies`: which records, where they stand and why; never what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.online.state.recorded_failures import Place, RecordedAnomaly, RecordedFailure

After = Annotated[
    str | None,
    typer.Option("--after", metavar="PARTITION:OFFSET", help="List what stands behind this record.", show_default=False),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Greatest number of records to list.")]
ProjectionId = Annotated[
    int | None, typer.Option("--projection", metavar="ID", help="Another projection than the live one.", show_default=False)
]


def failures(
    reason: Annotated[
        str | None, typer.Option("--reason", help="Reason of the failures to list, as `status` shows it.", show_default=False)
    ] = None,
    after: After = None,
    limit: Limit = 50,
    projection: ProjectionId = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Records that the live projection did not apply, to any group or to some: position, time, reason and the field at fault.

    Nothing of their content is shown; `ofp log show POSITION` shows an envelope. A page at a time, in the order of the log.
    """
    from ofp_platform.online.state.recorded_failures import read_failures
    from ofp_platform.registry.apply_failure import ApplyFailureReason

    if reason is not None and reason not in list(ApplyFailureReason):
        raise CommandRefused(f"there is no reason {reason!r}; there are {', '.join(ApplyFailureReason)}")
    place = _place(after)
    with resolve(home, profile).open_plane_without_log("auditor") as plane:
        projection_id = plane.known_live().projection_id if projection is None else plane.row(projection).projection_id
        with plane.pool.connection() as connection:
            page = read_failures(connection, projection_id, after=place, limit=limit + 1, reason=reason)
    lines = [
        line
        for failure in page[:limit]
        for line in item(
            f"{failure.partition_id}:{failure.offset}",
            when(failure.event_time_utc, "no time"),
            failure.reason,
            details=(f"{failure.detail} (not fed: {failure.groups or 'every group'})",),
        )
    ]
    lines += _rest("no record failed", page, limit)
    print_facts(_facts("failures", projection_id, page, limit), lines, as_json=json)


def anomalies(
    after: After = None,
    limit: Limit = 50,
    projection: ProjectionId = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Records that bring another payload under an id that was known: their position, and that of the record known first.

    Both count as events. Nothing of their content is shown; `ofp log show POSITION` shows an envelope and its payload hash.
    """
    from ofp_platform.online.state.recorded_failures import read_anomalies

    place = _place(after)
    with resolve(home, profile).open_plane_without_log("auditor") as plane:
        projection_id = plane.known_live().projection_id if projection is None else plane.row(projection).projection_id
        with plane.pool.connection() as connection:
            page = read_anomalies(connection, projection_id, after=place, limit=limit + 1)
    lines = [
        line
        for anomaly in page[:limit]
        for line in item(
            f"{anomaly.partition_id}:{anomaly.offset}",
            f"another payload than {anomaly.first_partition_id}:{anomaly.first_offset} has under the same id",
        )
    ]
    lines += _rest("no id came with two payloads", page, limit)
    print_facts(_facts("anomalies", projection_id, page, limit), lines, as_json=json)


def _place(text: str | None) -> Place | None:
    if text is None:
        return None
    partition_id, _, offset = text.rpartition(":")
    if not (partition_id and offset.isascii() and offset.isdigit()):
        raise CommandRefused("--after is written PARTITION:OFFSET, as in 0002:51233")
    return partition_id, offset


def _facts(name: str, projection_id: int, page: Sequence[RecordedFailure | RecordedAnomaly], limit: int) -> dict[str, Any]:
    following = f"{page[limit - 1].partition_id}:{page[limit - 1].offset}" if len(page) > limit else None
    return {"projection_id": projection_id, name: page[:limit], "next_after": following}


def _rest(nothing: str, page: Sequence[RecordedFailure | RecordedAnomaly], limit: int) -> Iterator[str]:
    if not page:
        yield nothing
    if len(page) > limit:
        last = page[limit - 1]
        yield f"there are more: --after {last.partition_id}:{last.offset}"
