"""Decisions as they were recorded: appended once, read by id or by the place of their event in the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from psycopg import Connection

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.offline.decision_record import DecisionRecord
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis, order, place

_COLUMNS = "decision_id, pins_digest, stream_name, partition_id, record_offset, event_id, snapshot_hash, content"
# in the order of their ids: two appenders of the same decisions wait for each other, and never in a circle
_TAKE_OVER = f"""
    INSERT INTO ofp.decision_record ({_COLUMNS})
    SELECT DISTINCT ON (decision_id) {_COLUMNS} FROM offered_decision ORDER BY decision_id
    ON CONFLICT (decision_id) DO NOTHING"""
# materialised: in search of a first row that never comes, the planner would compare every pair
_OTHER = """
    WITH other AS MATERIALIZED (
        SELECT decision_id FROM offered_decision JOIN ofp.decision_record recorded USING (decision_id)
        WHERE recorded.content <> offered_decision.content)
    SELECT decision_id FROM other ORDER BY decision_id LIMIT 1"""


class DecisionConflict(Exception):
    """A decision of that id is recorded with other content; what was decided is never decided again."""

    def __init__(self, decision_id: str) -> None:
        super().__init__(f"decision {decision_id} is recorded already, with other content")
        self.decision_id = decision_id


def append_decisions(connection: Connection[Any], records: Iterable[DecisionRecord]) -> tuple[int, int]:
    """Append all of them or none, in one transaction. How many were new, and how many were there with equal content.

    Raises:
        DecisionConflict: one is there, or twice among `records`, with other content; nothing was appended.
    """
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TEMPORARY TABLE offered_decision ON COMMIT DROP AS SELECT {_COLUMNS} FROM ofp.decision_record LIMIT 0"
        )
        offered_count = 0
        with cursor.copy(f"COPY offered_decision ({_COLUMNS}) FROM STDIN") as copy:
            for record in records:
                offered_count += 1
                at = record.event_position
                copy.write_row(
                    (
                        record.decision_id,
                        pins_digest(record.context_pins),
                        at.stream_name,
                        at.partition_id,
                        order(at.offset),
                        record.event_id,
                        record.feature_snapshot_hash,
                        canonical_bytes(record.wire()).decode("utf-8"),
                    )
                )
        new = cursor.execute(_TAKE_OVER).rowcount
        # a statement of its own sees what another appender has committed meanwhile
        conflict = cursor.execute(_OTHER).fetchone()
        if conflict is not None:
            raise DecisionConflict(conflict[0])
    return new, offered_count - new


def recorded_ids(connection: Connection[Any], decision_ids: Sequence[str]) -> set[str]:
    """Which of these decisions are recorded."""
    rows = connection.execute(
        "SELECT decision_id FROM ofp.decision_record WHERE decision_id = ANY(%s)", (list(decision_ids),)
    ).fetchall()
    return {decision_id for (decision_id,) in rows}


def read_decisions(connection: Connection[Any], decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
    """The records by id; ids that are not recorded are left out."""
    rows = connection.execute(
        "SELECT decision_id, content FROM ofp.decision_record WHERE decision_id = ANY(%s)", (list(decision_ids),)
    ).fetchall()
    return {decision_id: DecisionRecord.model_validate_json(content) for decision_id, content in rows}


def ids_by_basis(connection: Connection[Any], decision_ids: Sequence[str]) -> Iterator[tuple[Basis, list[str]]]:
    """The recorded decisions among these, by the input basis that they recorded; many decisions have the same."""
    rows = connection.execute(
        "SELECT content::json ->> 'input_basis', array_agg(decision_id) FROM ofp.decision_record"
        " WHERE decision_id = ANY(%s) GROUP BY 1",
        (list(decision_ids),),
    ).fetchall()
    for basis, ids in rows:
        yield Basis.model_validate_json(basis), ids


def decision_ids_in(connection: Connection[Any], pins: ContextPins, basis: ReplayBasis) -> list[str]:
    """The ids of the run's decisions whose event lies in the replay basis, sorted."""
    decision_ids: set[str] = set()
    for span in basis.partitions:
        rows = connection.execute(
            "SELECT decision_id FROM ofp.decision_record"
            " WHERE (pins_digest, stream_name, partition_id) = (%s, %s, %s) AND record_offset > %s AND record_offset <= %s",
            (pins_digest(pins), basis.stream_name, span.partition_id, place(span.first), place(span.end)),
        ).fetchall()
        decision_ids.update(decision_id for (decision_id,) in rows)
    return sorted(decision_ids)
