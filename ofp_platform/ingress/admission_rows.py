"""Rows of ingress in the database: which events were admitted and where, a receipt block for each batch, what is set aside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.ingress.batches import BatchReceipt, IdempotencyKey, KeyReused
from ofp_platform.ingress.receipt_block import PlacedAt, RecordOutcome, decode_outcomes, encode_receipts
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome
from ofp_platform.vocabulary.position import offset_columns

# digests come as one text of 32 bytes each; each key is looked up by itself, whatever the statistics say (record 0088)
_DIGEST = "substring({} FROM 32 * k.n::integer - 31 FOR 32)"
_KNOWN = f"""
    SELECT e.event_key, e.payload_hash, e.is_context, e.partition_id, e.record_offset, e.record_token, e.incarnation
    FROM generate_series(1, %(count)s) AS k (n) CROSS JOIN LATERAL (
        SELECT * FROM ofp.admitted_event AS e
        WHERE e.event_key = {_DIGEST.format("%(keys)b::bytea")} AND e.run_number = %(run)s OFFSET 0
    ) AS e"""
_ADMITTED = f"""
    INSERT INTO ofp.admitted_event
        (run_number, event_key, payload_hash, is_context, partition_id, record_offset, record_token, incarnation)
    SELECT %(run)s, {_DIGEST.format("%(keys)b::bytea")}, {_DIGEST.format("%(hashes)b::bytea")}, %(is_context)s,
        (%(names)s::text[])[k.name], k.at, k.token, %(incarnation)s
    FROM unnest(%(name)s::integer[], %(offsets)s::bigint[], %(tokens)s::text[]) WITH ORDINALITY AS k (name, at, token, n)"""
# the server gives the ids in the order of the rows, and the rows in theirs
_BATCHES = """
    INSERT INTO ofp.admission_batch
        (run_number, producer, class_map_digest, received_at, records, admitted, duplicates, quarantined, receipts,
        idempotency_key, request_digest)
    SELECT %(run)s, b.producer, %(class_map)s, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, b.records, b.admitted,
        b.duplicates, b.quarantined, b.receipts, b.key, b.digest
    FROM unnest(%(producers)s::text[], %(records)s::integer[], %(admitted)s::integer[], %(duplicates)s::integer[],
        %(quarantined)s::integer[], %(receipts)s::bytea[], %(keys)s::text[], %(digests)s::bytea[])
        WITH ORDINALITY AS b (producer, records, admitted, duplicates, quarantined, receipts, key, digest, n) ORDER BY b.n
    RETURNING batch_id"""
_SAME_KEY = """
    SELECT batch_id, request_digest, receipts FROM ofp.admission_batch
    WHERE (run_number, producer, idempotency_key) = (%s, %s, %s)"""
_QUARANTINED = """
    INSERT INTO ofp.quarantined_record (batch_id, place, reason, detail, event_type, event_id, object_path)
    SELECT * FROM unnest(%s::bigint[], %s::integer[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])"""


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record that is to be appended. `event_key`: 32 bytes, its identity within the run."""

    event_key: bytes
    is_context: bool


@dataclass(frozen=True, slots=True)
class AsideRecord:
    """A record in the list of quarantine, beside its outcome. `object_path`: where it is kept; None: nowhere."""

    event_type: str | None
    object_path: str | None


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a batch, under which key, and where its records stand among those of all: [begin, end)."""

    producer: str
    idempotency_key: IdempotencyKey | None
    begin: int
    end: int


@dataclass(frozen=True)
class JudgedBatches:
    """Batches of which nothing is open but where their new records will stand. By place among the records of all: `firsts`, of
    which other record one has the position; `new` and `aside`, more of those that are to be appended or were set aside.
    """

    senders: Sequence[Sender]
    outcomes: list[RecordOutcome]
    firsts: Mapping[int, int]
    new: Mapping[int, NewRecord]
    aside: Mapping[int, AsideRecord]


def known_events(connection: Connection[Any], run_number: int, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, PlacedAt]]:
    """Of those identities, the payload hash and place of each that was admitted before."""
    if not keys:
        return {}
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(_KNOWN, {"keys": b"".join(keys), "count": len(keys), "run": run_number}).fetchall()
    return {
        key: (payload_hash, PlacedAt(is_context, partition_id, token if offset is None else offset, incarnation))
        for key, payload_hash, is_context, partition_id, offset, token, incarnation in rows
    }


def answered_before(
    connection: Connection[Any], run_number: int, producer: str, key: IdempotencyKey | None
) -> BatchReceipt | None:
    """The receipt of the batch that came under the same key; None: there is none, or no key.

    Raises:
        KeyReused: it was another batch.
    """
    if key is None:
        return None
    row = connection.execute(_SAME_KEY, (run_number, producer, key.key)).fetchone()
    if row is None:
        return None
    batch_id, request_digest, block = row
    if bytes(request_digest) != key.request_digest:
        raise KeyReused(f"the idempotency key was used for another batch ({batch_id}); each batch has a key of its own")
    return BatchReceipt(batch_id, tuple(decode_outcomes(bytes(block))), repeated=True)


def add_receipts(
    connection: Connection[Any],
    run_number: int,
    class_map_digest: str,
    judgement: JudgedBatches,
    positions: Mapping[int, PlacedAt],
) -> list[BatchReceipt]:
    """Keep what became of batches, in the caller's transaction. `positions`: of each new record, by its place."""
    outcomes = judgement.outcomes
    for place in judgement.new:
        outcomes[place].position = positions[place]
    for place, first_place in judgement.firsts.items():
        outcomes[place].position = outcomes[first_place].position
    add_events(connection, run_number, [_event_row(judgement, place) for place in judgement.new])
    receipts = _add_batches(connection, run_number, class_map_digest, judgement)
    _add_aside(connection, judgement, receipts)
    return receipts


def _event_row(judgement: JudgedBatches, place: int) -> tuple[bytes, bytes, PlacedAt]:
    outcome = judgement.outcomes[place]
    assert outcome.payload_hash is not None
    assert outcome.position is not None
    return judgement.new[place].event_key, outcome.payload_hash, outcome.position


def add_events(connection: Connection[Any], run_number: int, rows: Iterable[tuple[bytes, bytes, PlacedAt]]) -> None:
    """Keep identity, payload hash and place of events; in one order: doors never wait in a circle."""
    by_stream: dict[tuple[bool, str | None], list[tuple[bytes, bytes, PlacedAt]]] = {}
    for row in sorted(rows, key=lambda row: row[0]):
        by_stream.setdefault((row[2].is_context, row[2].incarnation), []).append(row)
    for (is_context, incarnation), own_rows in sorted(by_stream.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        names = sorted({at.partition_id for *_, at in own_rows})
        numbers = {name: number for number, name in enumerate(names, 1)}
        offsets, tokens = zip(*(offset_columns(at.offset) for *_, at in own_rows), strict=True)
        connection.execute(
            _ADMITTED,
            {
                "run": run_number,
                "keys": b"".join([key for key, *_ in own_rows]),
                "hashes": b"".join([payload_hash for _, payload_hash, _ in own_rows]),
                "is_context": is_context,
                "names": names,
                "name": _numbers(numbers[at.partition_id] for *_, at in own_rows),
                # a stream has offsets or tokens, not both
                "offsets": None if offsets[0] is None else _numbers(offset for offset in offsets if offset is not None),
                "tokens": None if tokens[0] is None else list(tokens),
                "incarnation": incarnation,
            },
        )


def _numbers(values: Iterable[int]) -> str:
    """The literal of an array of integers: psycopg's way to one takes ten times as long."""
    return f"{{{','.join(map(str, values))}}}"


def _add_batches(
    connection: Connection[Any], run_number: int, class_map_digest: str, judgement: JudgedBatches
) -> list[BatchReceipt]:
    outcomes_of = [judgement.outcomes[sender.begin : sender.end] for sender in judgement.senders]
    counts_of = [[sum(outcome.outcome is kind for outcome in outcomes) for kind in AdmissionOutcome] for outcomes in outcomes_of]
    keys = [sender.idempotency_key for sender in judgement.senders]
    admitted, duplicates, quarantined = zip(*counts_of, strict=True)
    rows = connection.execute(
        _BATCHES,
        {
            "run": run_number,
            "class_map": class_map_digest,
            "producers": [sender.producer for sender in judgement.senders],
            "records": list(map(len, outcomes_of)),
            "admitted": list(admitted),
            "duplicates": list(duplicates),
            "quarantined": list(quarantined),
            "receipts": [encode_receipts(outcomes) for outcomes in outcomes_of],
            "keys": [None if key is None else key.key for key in keys],
            "digests": [None if key is None else key.request_digest for key in keys],
        },
    ).fetchall()
    ids = sorted(batch_id for (batch_id,) in rows)
    return [BatchReceipt(batch_id, tuple(outcomes)) for batch_id, outcomes in zip(ids, outcomes_of, strict=True)]


def _add_aside(connection: Connection[Any], judgement: JudgedBatches, receipts: Sequence[BatchReceipt]) -> None:
    rows = []
    for sender, receipt in zip(judgement.senders, receipts, strict=True):
        for place in range(sender.begin, sender.end):
            outcome = judgement.outcomes[place]
            if outcome.reason is not None:
                aside = judgement.aside[place]
                facts = outcome.reason.value, outcome.detail or "", aside.event_type, outcome.event_id, aside.object_path
                rows.append((receipt.batch_id, place - sender.begin, *facts))
    if rows:
        connection.execute(_QUARANTINED, tuple(map(list, zip(*rows, strict=True))))
