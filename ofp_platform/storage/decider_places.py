"""How far a decider has come in each partition of the log: moved in the transaction that records what it decided."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.position import Basis, PartitionBasis, make_basis

_READ = "SELECT partition_id, begin_place, place FROM ofp.decider_place WHERE (pins_digest, stream_name) = (%s, %s)"
_BEGIN = """
    INSERT INTO ofp.decider_place (pins_digest, stream_name, partition_id, begin_place, place) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT DO NOTHING"""
_MOVE = """
    UPDATE ofp.decider_place SET place = %s
    WHERE (pins_digest, stream_name, partition_id) = (%s, %s, %s) AND place = %s"""


class PlaceMoved(Exception):
    """Another decider of the run has come further in a partition meanwhile: what was decided here is not recorded."""


def read_places(connection: Connection[Any], pins: ContextPins, stream_name: str) -> Basis | None:
    """The basis up to which every event of the run is decided on; None: nobody has begun."""
    span = decided_span(connection, pins, stream_name)
    return None if span is None else span[1]


def decided_span(connection: Connection[Any], pins: ContextPins, stream_name: str) -> tuple[Basis, Basis] | None:
    """Where the run was begun, and up to where every event of it is decided on; None: nobody has begun."""
    rows = connection.execute(_READ, (pins_digest(pins), stream_name)).fetchall()
    if not rows:
        return None
    begins = {name: PartitionBasis.model_validate_json(begin) for name, begin, _ in rows}
    places = {name: PartitionBasis.model_validate_json(place) for name, _, place in rows}
    return make_basis(stream_name, begins), make_basis(stream_name, places)


def begin_places(connection: Connection[Any], pins: ContextPins, basis: Basis) -> None:
    """Begin the run at a basis, in the caller's transaction; a partition that somebody has begun stays where it is."""
    for part in basis.partitions:
        connection.execute(_BEGIN, (pins_digest(pins), basis.stream_name, part.partition_id, _text(part), _text(part)))


def move_place(
    connection: Connection[Any], pins: ContextPins, stream_name: str, before: PartitionBasis | None, after: PartitionBasis
) -> None:
    """Move one partition on, in the caller's transaction. `before`: None where nobody has begun it.

    Raises:
        PlaceMoved: it does not stand at `before`.
    """
    key = (pins_digest(pins), stream_name, after.partition_id)
    if before is None:
        moved_count = connection.execute(_BEGIN, (*key, _text(after.start()), _text(after))).rowcount
    else:
        moved_count = connection.execute(_MOVE, (_text(after), *key, _text(before))).rowcount
    if moved_count != 1:
        raise PlaceMoved(f"partition {after.partition_id} of {stream_name} is decided on by somebody else: one decider a run")


def _text(place: PartitionBasis) -> str:
    return canonical_bytes(place.model_dump(mode="json", exclude_none=True)).decode()
