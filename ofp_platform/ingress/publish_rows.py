"""Batches on their way into a log that somebody else keeps: noted before they are sent, and gone when their receipts are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from psycopg import Connection
from psycopg.rows import dict_row

from ofp_platform.ingress.admission_rows import AsideRecord, JudgedBatches, NewRecord, Sender
from ofp_platform.ingress.batches import IdempotencyKey, SentBatch
from ofp_platform.ingress.receipt_block import decode_outcomes, encode_receipts
from ofp_platform.log.port import LogUnavailable
from ofp_platform.vocabulary.position import Basis, basis_text

IN_FLIGHT, AMBIGUOUS = "PUBLISH_IN_FLIGHT", "PUBLISH_AMBIGUOUS"
_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_ADD = f"""
    INSERT INTO ofp.admission_publish
        (run_number, state, begun_at, producer, class_map_digest, idempotency_key, request_digest, traffic_head, context_head,
        outcomes, content)
    VALUES (%s, '{IN_FLIGHT}', {_CLOCK}, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING publish_id"""
_ADD_RECORDS = """
    INSERT INTO ofp.admission_publish_record (publish_id, run_number, event_key, event_type, place, is_context)
    SELECT %s, %s, * FROM unnest(%s::bytea[], %s::text[], %s::integer[], %s::boolean[])"""
_HOLD = "SELECT state FROM ofp.admission_publish WHERE publish_id = %s FOR UPDATE"
_LOOSE = f"""
    UPDATE ofp.admission_publish SET state = '{AMBIGUOUS}', ambiguous_at = coalesce(ambiguous_at, {_CLOCK}), looked_at = {_CLOCK}
    WHERE publish_id IN (
        SELECT publish_id FROM ofp.admission_publish
        WHERE run_number = %(run)s AND publish_id > %(after)s AND (looked_at IS NULL OR looked_at <= {_CLOCK} - %(pause)s)
            AND (state = '{AMBIGUOUS}' OR begun_at <= {_CLOCK} - %(start)s)
        ORDER BY publish_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) RETURNING publish_id"""
_ONE = f"""
    SELECT producer, class_map_digest, idempotency_key, request_digest, traffic_head, context_head, outcomes, content,
        {_CLOCK} - ambiguous_at AS ambiguous_us, {_CLOCK} - begun_at AS age_us
    FROM ofp.admission_publish WHERE publish_id = %s AND state = '{AMBIGUOUS}'"""
_RECORDS = "SELECT place, event_key, event_type, is_context FROM ofp.admission_publish_record WHERE publish_id = %s"
_SAME_KEY = "SELECT 1 FROM ofp.admission_publish WHERE (run_number, producer, idempotency_key) = (%s, %s, %s)"
_COUNTS = """
    SELECT p.state, count(*) FROM ofp.admission_publish_record AS r JOIN ofp.admission_publish AS p USING (publish_id)
        JOIN ofp.admission_run AS run ON run.run_number = p.run_number
    WHERE run.pins_digest = %s GROUP BY p.state"""
_KEYS = """
    SELECT r.event_key FROM ofp.admission_publish_record AS r JOIN ofp.admission_run AS run USING (run_number)
    WHERE run.pins_digest = %s"""


class PublishUnsettled(LogUnavailable):
    """Whether records of a batch are in the log is not known yet; nobody sends them again before it is. Send the batch again."""


class _Content(msgspec.Struct, array_like=True):
    """`firsts`: place and place of the first; `aside`: place, event type, path."""

    firsts: list[tuple[int, int]]
    aside: list[tuple[int, str | None, str | None]]


@dataclass(frozen=True)
class AmbiguousBatch:
    """A batch of which nobody knows what of it was appended. `event_types`: of each new record, by its place; `heads`: of traffic
    and context, noted before anything was sent; `age_us`, `ambiguous_us`: since when it is noted, and ambiguous, by the clock of
    the database, microseconds.
    """

    publish_id: int
    class_map_digest: str
    judgement: JudgedBatches
    event_types: Mapping[int, str]
    heads: tuple[Basis, Basis | None]
    age_us: int
    ambiguous_us: int


def note_batch(
    connection: Connection[Any],
    run_number: int,
    class_map_digest: str,
    judgement: JudgedBatches,
    event_types: Mapping[int, str],
    heads: tuple[Basis, Basis | None],
) -> int:
    """Note a batch before it is sent, in the caller's transaction; its number.

    Raises:
        psycopg.errors.UniqueViolation: one of its records is on its way already, or its key.
    """
    [sender] = judgement.senders
    key = sender.idempotency_key
    content = _Content(
        list(judgement.firsts.items()),
        [(place, record.event_type, record.object_path) for place, record in judgement.aside.items()],
    )
    row = connection.execute(
        _ADD,
        (
            run_number,
            sender.producer,
            class_map_digest,
            None if key is None else key.key,
            None if key is None else key.request_digest,
            basis_text(heads[0]),
            None if heads[1] is None else basis_text(heads[1]),
            encode_receipts(judgement.outcomes),
            msgspec.msgpack.encode(content),
        ),
    ).fetchone()
    assert row is not None
    # in one order: who notes the same records waits for the other one, and neither for each other
    records = sorted((record.event_key, event_types[place], place, record.is_context) for place, record in judgement.new.items())
    connection.execute(_ADD_RECORDS, (row[0], run_number, *map(list, zip(*records, strict=True))))
    return int(row[0])


def hold_batch(connection: Connection[Any], publish_id: int) -> str | None:
    """Hold a batch until the transaction ends; its state: IN_FLIGHT may be sent, AMBIGUOUS may be settled. None: it is gone."""
    row = connection.execute(_HOLD, (publish_id,)).fetchone()
    return None if row is None else str(row[0])


def mark_ambiguous(connection: Connection[Any], publish_id: int) -> None:
    """Say that nobody knows what became of a batch."""
    connection.execute(
        f"UPDATE ofp.admission_publish SET state = '{AMBIGUOUS}', ambiguous_at = {_CLOCK} WHERE publish_id = %s", (publish_id,)
    )


def forget_batch(connection: Connection[Any], publish_id: int) -> None:
    """Remove a batch whose receipts are kept, or of which nothing was sent."""
    connection.execute("DELETE FROM ofp.admission_publish_record WHERE publish_id = %s", (publish_id,))
    connection.execute("DELETE FROM ofp.admission_publish WHERE publish_id = %s", (publish_id,))


def loose_batches(
    connection: Connection[Any], run_number: int, after: int, pause_us: int, start_us: int, limit: int
) -> list[int]:
    """Batches with numbers behind `after` that nobody holds; they are ambiguous from now on. None that was looked at within
    `pause_us`, or noted within `start_us`: who has just noted one is about to hold it.
    """
    arguments = {"run": run_number, "after": after, "pause": pause_us, "start": start_us, "limit": limit}
    with connection.transaction():
        rows = connection.execute(_LOOSE, arguments).fetchall()
    return sorted(publish_id for (publish_id,) in rows)


def ambiguous_batch(connection: Connection[Any], publish_id: int) -> AmbiguousBatch | None:
    """A batch that is ambiguous; None: it was settled meanwhile."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_ONE, (publish_id,)).fetchone()
    if row is None:
        return None
    outcomes = decode_outcomes(bytes(row["outcomes"]))
    content = msgspec.msgpack.decode(bytes(row["content"]), type=_Content)
    key = row["idempotency_key"]
    sender = Sender(row["producer"], None if key is None else IdempotencyKey(key, bytes(row["request_digest"])), 0, len(outcomes))
    records = connection.execute(_RECORDS, (publish_id,)).fetchall()
    judgement = JudgedBatches(
        [sender],
        outcomes,
        dict(content.firsts),
        {place: NewRecord(bytes(event_key), is_context) for place, event_key, _, is_context in sorted(records)},
        {place: AsideRecord(event_type, path) for place, event_type, path in content.aside},
    )
    heads = [None if text is None else Basis.model_validate_json(text) for text in (row["traffic_head"], row["context_head"])]
    assert heads[0] is not None
    event_types = {place: event_type for place, _, event_type, _ in records}
    ages = row["age_us"], row["ambiguous_us"]
    return AmbiguousBatch(publish_id, row["class_map_digest"], judgement, event_types, (heads[0], heads[1]), *ages)


def demand_key_free(connection: Connection[Any], run_number: int, batch: SentBatch) -> None:
    """Refuse a batch whose key is that of one on its way.

    Raises:
        PublishUnsettled: it is.
    """
    key = batch.idempotency_key
    if key is not None and connection.execute(_SAME_KEY, (run_number, batch.producer, key.key)).fetchone() is not None:
        raise PublishUnsettled("the batch of that key is on its way: what became of it is not settled yet")


def count_on_their_way(connection: Connection[Any], run_digest: str) -> tuple[int, int]:
    """Records of a run that are in flight, and those of which nobody knows."""
    counts = dict(connection.execute(_COUNTS, (run_digest,)).fetchall())
    return counts.get(IN_FLIGHT, 0), counts.get(AMBIGUOUS, 0)


def keys_on_their_way(connection: Connection[Any], run_digest: str) -> set[bytes]:
    """The identities of those records."""
    return {bytes(key) for (key,) in connection.execute(_KEYS, (run_digest,)).fetchall()}
