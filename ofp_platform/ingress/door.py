"""The door: admits batches of records into the log in PostgreSQL, and leaves a receipt for each, in one transaction.

The records, what identifies them, their receipts and the list of what is in quarantine are committed together or not at all, so
it is never unknown whether a record was admitted. A batch that was cut off is sent again: what of it is there is a DUPLICATE.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import accumulate
from typing import Any, cast

import psycopg

from ofp_platform.ingress.class_map import ClassMap
from ofp_platform.ingress.gate import Gate, Passed, Sent, SetAside
from ofp_platform.ingress.receipt_block import PlacedAt, RecordOutcome, decode_outcomes, encode_receipts
from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import AdmittedColumns
from ofp_platform.log.port import EventLog, RecordRefusal
from ofp_platform.log.postgres import PostgresLog, log_answering
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.run_states import admitting_state
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome, QuarantineReason
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.model import IDENTIFIER_PATTERN
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier
from ofp_platform.vocabulary.scenario import RunState

MOST_RECORDS = 10_000
"""Of one batch."""
_ATTEMPTS = 5
_NAME = re.compile(IDENTIFIER_PATTERN, re.ASCII)
_RUN = "INSERT INTO ofp.admission_run (pins_digest) VALUES (%s) ON CONFLICT DO NOTHING"
_RUN_NUMBER = "SELECT run_number FROM ofp.admission_run WHERE pins_digest = %s"
# digests come as one text of 32 bytes each; each key is looked up by itself, whatever the statistics say (record 0088)
_DIGEST = "substring({} FROM 32 * k.n::integer - 31 FOR 32)"
_KNOWN = f"""
    SELECT e.event_key, e.payload_hash, e.is_context, e.partition_id, e.record_offset, e.incarnation
    FROM generate_series(1, %(count)s) AS k (n) CROSS JOIN LATERAL (
        SELECT * FROM ofp.admitted_event AS e
        WHERE e.event_key = {_DIGEST.format("%(keys)b::bytea")} AND e.run_number = %(run)s OFFSET 0
    ) AS e"""
_ADMITTED = f"""
    INSERT INTO ofp.admitted_event (run_number, event_key, payload_hash, is_context, partition_id, record_offset, incarnation)
    SELECT %(run)s, {_DIGEST.format("%(keys)b::bytea")}, {_DIGEST.format("%(hashes)b::bytea")}, %(is_context)s,
        (%(names)s::text[])[k.name], k.at, %(incarnation)s
    FROM unnest(%(name)s::integer[], %(offsets)s::bigint[]) WITH ORDINALITY AS k (name, at, n)"""
_BATCH = """
    INSERT INTO ofp.admission_batch
        (run_number, producer, class_map_digest, received_at, records, admitted, duplicates, quarantined, receipts,
        idempotency_key, request_digest)
    VALUES (%s, %s, %s, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, %s, %s, %s, %s, %s, %s, %s)
    RETURNING batch_id"""
_SAME_KEY = """
    SELECT batch_id, request_digest, receipts FROM ofp.admission_batch
    WHERE (run_number, producer, idempotency_key) = (%s, %s, %s)"""
_QUARANTINED = """
    INSERT INTO ofp.quarantined_record (batch_id, place, reason, detail, event_type, event_id, object_path)
    SELECT * FROM unnest(%s::bigint[], %s::integer[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])"""


class IngressRefused(Exception):
    """A batch cannot be admitted as a whole; the text says why. Nothing of it was."""


class KeyReused(IngressRefused):
    """Another batch came under the same idempotency key of the same producer."""


@dataclass(frozen=True)
class IdempotencyKey:
    """A producer's name for a batch, and the SHA-256 (32 bytes) of what it sent: sent again, it is answered as before."""

    key: str
    request_digest: bytes


class NotTogether(Exception):
    """Two batches of a group must be admitted one after the other."""


@dataclass(frozen=True)
class SentBatch:
    """A batch as a producer sent it; see `Door.admit`."""

    records_sent: Sequence[Sent]
    producer: str
    admitted_at: Sequence[int] | None = None
    idempotency_key: IdempotencyKey | None = None


@dataclass(frozen=True)
class BatchReceipt:
    """The receipt of a batch: how its records ended, in their order. `repeated`: it came before, under the same key."""

    batch_id: int
    outcomes: tuple[RecordOutcome, ...]
    repeated: bool = False

    def count(self, outcome: AdmissionOutcome) -> int:
        """How many ended so."""
        return sum(ended.outcome is outcome for ended in self.outcomes)


def class_map_path(digest: str) -> str:
    """Where a class map is kept."""
    return f"ingress/class_maps/{digest}.json"


@dataclass(frozen=True)
class Door:
    """Of one run. The pool stays the caller's; safe for threads. `needs_ready`: records are admitted while control says READY."""

    pool: Pool
    traffic: PostgresLog
    context: PostgresLog | None
    objects: ObjectStore
    gate: Gate
    run_number: int
    needs_ready: bool = False

    @classmethod
    def open(
        cls,
        pool: Pool,
        traffic: EventLog,
        context: EventLog | None,
        objects: ObjectStore,
        pins: ContextPins,
        class_map: ClassMap,
        *,
        needs_ready: bool = False,
    ) -> Door:
        """The door of a run, for the types of a class map, which is kept under its digest. `needs_ready`: the run has a stream of
        control.

        Raises:
            IngressRefused: the log is none in PostgreSQL. LogUnavailable | ObjectStoreUnavailable: see there.
        """
        if not isinstance(traffic, PostgresLog) or not (context is None or isinstance(context, PostgresLog)):
            raise IngressRefused(
                "ingress admits records and receipts in one transaction, which only the log in PostgreSQL can do (log_kind:"
                " postgres); to a log of another kind producers append themselves"
            )
        objects.put_same(class_map_path(class_map.digest), class_map.stored())
        admissions = [None if log is None else Admission(log.partition_key) for log in (traffic, context)]
        gate = Gate(pins, class_map, cast(Admission, admissions[0]), admissions[1])
        with log_answering(), pool.connection() as connection:
            connection.execute(_RUN, (pins_digest(pins),))
            row = connection.execute(_RUN_NUMBER, (pins_digest(pins),)).fetchone()
        if row is None:
            raise IngressRefused(f"the database role of ingress does not see run {pins.run_id!r}: register it for that run")
        return cls(pool, traffic, context, objects, gate, row[0], needs_ready)

    @property
    def streams(self) -> tuple[str, str | None]:
        """The names of the streams of traffic and of context."""
        return self.traffic.stream_name, None if self.context is None else self.context.stream_name

    @property
    def class_map(self) -> ClassMap:
        """The event types that it takes."""
        return self.gate.class_map

    def admit(
        self,
        records_sent: Sequence[Sent],
        producer: str,
        admitted_at: Sequence[int] | None = None,
        idempotency_key: IdempotencyKey | None = None,
    ) -> BatchReceipt:
        """Admit a batch of 1 to MOST_RECORDS records. `producer`: who sent it. `admitted_at`: of a simulation or a history, the
        declared time of admission of each, microseconds; None: the broker's own.

        Raises:
            IngressRefused: no record, too many, not one time for each, or a producer without a name. KeyReused: see there.
            LogUnavailable | ObjectStoreUnavailable: nothing is known about the batch; send it again, as it is.
        """
        (receipt,) = self.admit_group([SentBatch(records_sent, producer, admitted_at, idempotency_key)])
        return receipt

    def admit_group(self, batches: Sequence[SentBatch]) -> list[BatchReceipt]:
        """Admit batches in one transaction, as if each came behind the one before it; all or none.

        Raises:
            as `admit`, for any of them. NotTogether: two of them must be admitted one after the other.
        """
        for batch in batches:
            _check(batch)
        verdicts_of = [self.gate.examine(batch.records_sent) for batch in batches]
        for attempt in range(_ATTEMPTS):
            try:
                with log_answering(), self.pool.connection() as connection:
                    with connection.transaction():
                        receipts = [self._answer_before(connection, batch) for batch in batches]
                        new_batches = [index for index, receipt in enumerate(receipts) if receipt is None]
                        if not new_batches:
                            return cast(list[BatchReceipt], receipts)
                        _demand_apart([batches[index] for index in new_batches])
                        verdicts = [verdict for index in new_batches for verdict in verdicts_of[index]]
                        open_verdicts = self._while_ready(connection, self._without_copies(verdicts))
                        own_batches = [batches[index] for index in new_batches]
                        for index, receipt in zip(new_batches, self._admit(connection, own_batches, open_verdicts), strict=True):
                            receipts[index] = receipt
                    crash_point("ingress.after_commit")
                    for log in (self.traffic, self.context):
                        if log is not None:
                            log.tell(connection)
                    return cast(list[BatchReceipt], receipts)
            except psycopg.errors.UniqueViolation:  # another door admitted one of them meanwhile: look again
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _answer_before(self, connection: psycopg.Connection[Any], batch: SentBatch) -> BatchReceipt | None:
        idempotency_key = batch.idempotency_key
        if idempotency_key is None:
            return None
        row = connection.execute(_SAME_KEY, (self.run_number, batch.producer, idempotency_key.key)).fetchone()
        if row is None:
            return None
        batch_id, request_digest, block = row
        if bytes(request_digest) != idempotency_key.request_digest:
            raise KeyReused(f"the idempotency key was used for another batch ({batch_id}); each batch has a key of its own")
        return BatchReceipt(batch_id, tuple(decode_outcomes(bytes(block))), repeated=True)

    def _while_ready(
        self, connection: psycopg.Connection[Any], verdicts: list[Passed | SetAside | int]
    ) -> list[Passed | SetAside | int]:
        """The verdicts where the run is READY, which it stays until the transaction ends; else nothing passes."""
        state = admitting_state(connection, self.gate.pins) if self.needs_ready else RunState.READY
        if state is RunState.READY:
            return verdicts
        words = "nobody asked for it" if state is None else f"it is {state}"
        detail = f"pins: of a run that is not READY: {words}"
        return [_not_active(verdict, detail) for verdict in verdicts]

    def _without_copies(self, verdicts: Sequence[Passed | SetAside]) -> list[Passed | SetAside | int]:
        """Of records of one identity in the batch, the first; for a copy of it, its place; others are in conflict with it."""
        firsts: dict[bytes, int] = {}
        outcomes: list[Passed | SetAside | int] = list(verdicts)
        for place, verdict in enumerate(verdicts):
            if not isinstance(verdict, Passed):
                continue
            first_place = firsts.setdefault(verdict.event_key, place)
            if first_place != place:
                first = cast(Passed, verdicts[first_place])
                is_copy = first.record.payload_hash == verdict.record.payload_hash
                outcomes[place] = first_place if is_copy else _conflict(verdict, first_place)
        return outcomes

    def _admit(
        self,
        connection: psycopg.Connection[Any],
        batches: Sequence[SentBatch],
        verdicts: Sequence[Passed | SetAside | int],
    ) -> list[BatchReceipt]:
        """In one transaction; `verdicts` are those of all batches. Objects are written before the heads of the log are locked:
        nobody waits for the store.
        """
        records_sent = [record for batch in batches for record in batch.records_sent]
        admitted_at = _declared_times(batches)
        keys = [verdict.event_key for verdict in verdicts if isinstance(verdict, Passed)]
        arguments = {"keys": b"".join(keys), "count": len(keys), "run": self.run_number}
        with connection.cursor(binary=True) as cursor:
            rows = cursor.execute(_KNOWN, arguments).fetchall() if keys else []
        known_events = {key: (payload_hash, PlacedAt(*rest)) for key, payload_hash, *rest in rows}
        outcomes, firsts = _outcomes(verdicts, known_events)
        aside = [place for place, outcome in enumerate(outcomes) if outcome.outcome is AdmissionOutcome.QUARANTINE]
        paths = keep_in_quarantine(
            self.objects, self.gate.pins, [(records_sent[place], outcomes[place].reason) for place in aside]
        )
        new = {
            place: cast(Passed, verdicts[place])
            for place, outcome in enumerate(outcomes)
            if outcome.outcome is AdmissionOutcome.ADMIT
        }
        for place, position in self._append(connection, new, admitted_at).items():
            outcomes[place].position = position
        for place, first_place in firsts.items():
            outcomes[place].position = outcomes[first_place].position
        crash_point("ingress.appended")
        for is_context in (False, True):
            appended_rows = [
                (verdict.event_key, verdict.record.payload_hash, cast(PlacedAt, outcomes[place].position))
                for place, verdict in new.items()
                if verdict.is_context is is_context
            ]
            self._record(connection, is_context, sorted(appended_rows, key=lambda row: row[0]))
        receipts = [
            self._record_batch(connection, batch, outcomes[begin : begin + len(batch.records_sent)])
            for batch, begin in zip(batches, _begins(batches), strict=True)
        ]
        if aside:
            self._record_aside(connection, batches, receipts, dict(zip(aside, paths, strict=True)))
        crash_point("ingress.recorded")
        return receipts

    def _record_batch(
        self, connection: psycopg.Connection[Any], batch: SentBatch, outcomes: Sequence[RecordOutcome]
    ) -> BatchReceipt:
        counts = [sum(outcome.outcome is kind for outcome in outcomes) for kind in AdmissionOutcome]
        key = batch.idempotency_key
        name = (None, None) if key is None else (key.key, key.request_digest)
        facts = self.run_number, batch.producer, self.class_map.digest, len(outcomes), *counts, encode_receipts(outcomes), *name
        row = connection.execute(_BATCH, facts).fetchone()
        assert row is not None
        return BatchReceipt(int(row[0]), tuple(outcomes))

    @staticmethod
    def _record_aside(
        connection: psycopg.Connection[Any],
        batches: Sequence[SentBatch],
        receipts: Sequence[BatchReceipt],
        paths: Mapping[int, str | None],
    ) -> None:
        """List what was set aside. `paths`: where each is kept, by its place among the records of all batches."""
        rows = []
        for batch, receipt, begin in zip(batches, receipts, _begins(batches), strict=True):
            for place, (record, outcome) in enumerate(zip(batch.records_sent, receipt.outcomes, strict=True)):
                if outcome.reason is not None:
                    facts = outcome.reason.value, outcome.detail or "", _event_type(record, outcome), outcome.event_id
                    rows.append((receipt.batch_id, place, *facts, paths[begin + place]))
        connection.execute(_QUARANTINED, tuple(map(list, zip(*rows, strict=True))))

    def _append(
        self, connection: psycopg.Connection[Any], new: Mapping[int, Passed], admitted_at: Sequence[int] | None
    ) -> dict[int, PlacedAt]:
        """Append the records to their streams; where each stands, by its place in the batch."""
        positions: dict[int, PlacedAt] = {}
        for is_context, log in ((False, self.traffic), (True, self.context)):
            places = [place for place, verdict in new.items() if verdict.is_context is is_context]
            if not places or log is None:
                continue
            records = AdmittedColumns()
            for place in places:
                records.add(place, new[place].record)
            times = None if admitted_at is None else [admitted_at[place] for place in places]
            placements, incarnation = log.append_within(connection, records, times)
            for place, (partition_id, offset) in zip(places, placements, strict=True):
                positions[place] = PlacedAt(is_context, partition_id, offset, incarnation)
        return positions

    def _record(
        self, connection: psycopg.Connection[Any], is_context: bool, rows: Sequence[tuple[bytes, bytes, PlacedAt]]
    ) -> None:
        """Keep identity, payload hash and place of what was appended to a stream; in one order: doors never wait in a circle."""
        if not rows:
            return
        names = sorted({place.partition_id for *_, place in rows})
        numbers = {name: number for number, name in enumerate(names, 1)}
        connection.execute(
            _ADMITTED,
            {
                "run": self.run_number,
                "keys": b"".join([key for key, *_ in rows]),
                "hashes": b"".join([payload_hash for _, payload_hash, _ in rows]),
                "is_context": is_context,
                "names": names,
                "name": [numbers[place.partition_id] for *_, place in rows],
                "offsets": [place.offset for *_, place in rows],
                "incarnation": rows[0][2].incarnation,
            },
        )


def _check(batch: SentBatch) -> None:
    """Refuse a batch that is none."""
    count = len(batch.records_sent)
    if not 1 <= count <= MOST_RECORDS:
        raise IngressRefused(f"a batch has from 1 to {MOST_RECORDS:,} records, and this one has {count:,}")
    if _NAME.fullmatch(batch.producer) is None or holds_raw_identifier(batch.producer):
        raise IngressRefused("a producer's name has 1 to 128 of A-Z a-z 0-9 _ . : / -, the first a letter or digit")
    if batch.admitted_at is not None and len(batch.admitted_at) != count:
        raise IngressRefused(f"{len(batch.admitted_at):,} times of admission for {count:,} records")


def _demand_apart(batches: Sequence[SentBatch]) -> None:
    """Refuse a group in which one batch comes twice, or some have declared times and others not."""
    names = [(batch.producer, batch.idempotency_key.key) for batch in batches if batch.idempotency_key is not None]
    if len(set(names)) < len(names) or len({batch.admitted_at is None for batch in batches}) > 1:
        raise NotTogether


def _begins(batches: Sequence[SentBatch]) -> list[int]:
    """Where the records of each batch begin among those of all."""
    return [0, *accumulate(len(batch.records_sent) for batch in batches)][:-1]


def _declared_times(batches: Sequence[SentBatch]) -> list[int] | None:
    if any(batch.admitted_at is None for batch in batches):
        return None
    return [moment for batch in batches for moment in batch.admitted_at or ()]


def _event_type(record: Sent, outcome: RecordOutcome) -> str | None:
    """The type of an envelope; of what is none nothing is shown."""
    return str(record["event_type"]) if outcome.event_id is not None and not isinstance(record, RecordRefusal) else None


def _not_active(verdict: Passed | SetAside | int, detail: str) -> SetAside | int:
    """A verdict, where nothing of the run passes; what is wrong with a record by itself is said first."""
    if isinstance(verdict, SetAside) and verdict.first_place is not None:
        return replace(verdict, reason=QuarantineReason.RUN_NOT_ACTIVE, detail=detail, first_place=None)
    if not isinstance(verdict, Passed):
        return verdict
    record = verdict.record
    names = verdict.event_class, record.envelope.event_type, record.envelope.event_id
    return SetAside(QuarantineReason.RUN_NOT_ACTIVE, detail, *names, record.payload_hash)


def _conflict(verdict: Passed, first_place: int | None) -> SetAside:
    envelope = verdict.record.envelope
    return SetAside(
        QuarantineReason.EVENT_ID_CONFLICT,
        f"event_id: was admitted with another payload, in class {verdict.event_class}",
        verdict.event_class,
        envelope.event_type,
        envelope.event_id,
        verdict.record.payload_hash,
        first_place,
    )


def _outcomes(
    verdicts: Sequence[Passed | SetAside | int], known_events: Mapping[bytes, tuple[bytes, PlacedAt]]
) -> tuple[list[RecordOutcome], dict[int, int]]:
    """The outcome of each record, and by its place, of which other record of the batch it has the position; what is to be
    appended has none yet.
    """
    outcomes: list[RecordOutcome] = []
    firsts: dict[int, int] = {}
    facts: tuple[str | None, str | None, bytes | None]
    for place, verdict in enumerate(verdicts):
        if isinstance(verdict, int):
            first = outcomes[verdict]
            is_aside = first.outcome is AdmissionOutcome.QUARANTINE
            outcomes.append(replace(first) if is_aside else replace(first, outcome=AdmissionOutcome.DUPLICATE))
            firsts[place] = verdict
            continue
        if isinstance(verdict, Passed):
            facts = verdict.event_class, verdict.record.envelope.event_id, verdict.record.payload_hash
            identity, aside = verdict.event_key, _conflict(verdict, None)
            if identity not in known_events:
                outcomes.append(RecordOutcome(AdmissionOutcome.ADMIT, *facts))
                continue
        else:
            facts, aside = (verdict.event_class, verdict.event_id, verdict.payload_hash), verdict
            if verdict.first_place is None:
                outcomes.append(RecordOutcome(AdmissionOutcome.QUARANTINE, *facts, None, verdict.reason, verdict.detail))
                continue
            first_sent = cast(Passed, verdicts[verdict.first_place])
            identity = first_sent.event_key
            if identity not in known_events:
                outcome = RecordOutcome(AdmissionOutcome.QUARANTINE, *facts, None, verdict.reason, verdict.detail)
                outcomes.append(replace(outcome, admitted_payload_hash=first_sent.record.payload_hash))
                firsts[place] = verdict.first_place
                continue
        payload_hash, position = known_events[identity]
        if payload_hash == facts[2]:
            outcomes.append(RecordOutcome(AdmissionOutcome.DUPLICATE, *facts, position))
        else:
            outcome = RecordOutcome(AdmissionOutcome.QUARANTINE, *facts, position, aside.reason, aside.detail)
            outcomes.append(replace(outcome, admitted_payload_hash=payload_hash))
    return outcomes, firsts


def keep_in_quarantine(
    objects: ObjectStore, pins: ContextPins, records: Sequence[tuple[Sent, QuarantineReason | None]]
) -> list[str | None]:
    """Keep records as they were sent, in objects named by their content; the path of each, with its place behind `#`.

    One that holds a raw identifier is kept nowhere, and neither is what was no JSON object: who read it told why.
    """
    kept_lines = [
        (place, json.dumps(record, default=str).encode())
        for place, (record, reason) in enumerate(records)
        if not isinstance(record, RecordRefusal) and reason is not QuarantineReason.RAW_IDENTIFIER
    ]
    paths: list[str | None] = [None] * len(records)
    if kept_lines:
        content = b"\n".join(text for _, text in kept_lines) + b"\n"
        path = f"quarantine/{pins_digest(pins)[:16]}/{sha256(content).hexdigest()}.jsonl"
        objects.put_same(path, content)
        for line, (place, _) in enumerate(kept_lines):
            paths[place] = f"{path}#{line}"
    return paths
