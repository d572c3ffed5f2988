"""Governance facts, appended: each to its table and, in the same transaction, to the stream of governance. Neither is without the
other.

The stream is one of the database, in PostgreSQL whatever the log of traffic is. Who may append facts appends to it through a
function of the schema, and has no right to append to any other stream by that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import Admitted, AdmittedColumns
from ofp_platform.log.block import encode, split
from ofp_platform.log.port import RecordBatch
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.governance_fact import GovernanceFact, GovernanceMessage
from ofp_platform.vocabulary.position import place
from ofp_platform.vocabulary.times import format_time

GOVERNANCE_STREAM = "ofp.governance"
GOVERNANCE_FACT = "governance_fact"
"""The type of its events; the id of one is the digest of the fact."""
NO_RUN = ContextPins(scenario_id="ofp.governance", run_id="none", manifest_fingerprint="0" * 64, parameter_hash="0" * 64)
"""The pins of a fact that is about no run."""
_PARTITION = "0000"
_PAGE = 2_000
_ADD = "INSERT INTO ofp.governance_fact (digest, fact, content) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_APPEND = "SELECT ofp.append_governance_block(%s, %s, %s::smallint, %s, %b)"
_DIGESTS = """
    SELECT digest FROM ofp.governance_fact
    WHERE fact_number >= (SELECT first_fact_number FROM ofp.governance_stream) ORDER BY fact_number"""


def append_facts(pool: Pool, facts: Sequence[GovernanceFact], pins: ContextPins = NO_RUN) -> int:
    """Append facts, all or none, and return how many were new. A fact that is there already stays as it is. `pins`: of the run
    that those are about which name none.

    Raises:
        psycopg.Error: nothing was appended; call again.
    """
    with pool.connection() as connection, connection.transaction():
        return append_facts_with(connection, facts, pins)


def append_facts_with(connection: Connection[Any], facts: Sequence[GovernanceFact], pins: ContextPins = NO_RUN) -> int:
    """As `append_facts`, in the caller's transaction: with what they are about, or not at all. Who locks other streams appends to
    those first: the head of this one is locked until the transaction ends.
    """
    new_facts: list[tuple[str, GovernanceFact]] = []
    for fact in facts:
        content = canonical_bytes(fact.wire())
        digest = sha256_hex(content)
        if connection.execute(_ADD, (digest, fact.fact, content.decode("utf-8"))).rowcount:
            new_facts.append((digest, fact))
    if new_facts:
        _append(connection, new_facts, pins)
    return len(new_facts)


def _append(connection: Connection[Any], facts: Sequence[tuple[str, GovernanceFact]], pins: ContextPins) -> None:
    [(now,)] = connection.execute(_NOW).fetchall()
    admission, records = Admission("event_id"), AdmittedColumns()
    for index, (digest, fact) in enumerate(facts):
        records.add(index, _admitted(admission, index, digest, fact, (pins, now)))
    for low, high in split(records.payloads):
        block = encode(records.take(list(range(low, high))), [now] * (high - low), is_declared=False)
        connection.execute(_APPEND, (block.record_count, now, block.codec, block.raw_bytes, block.data))


def _admitted(admission: Admission, index: int, digest: str, fact: GovernanceFact, default: tuple[ContextPins, int]) -> Admitted:
    """The record of a fact; one that no log takes, for its size or a number in somebody's words, goes by reference."""
    own_pins, own_time = getattr(fact, "context_pins", None), getattr(fact, "at_utc", None)
    for content in (fact, None):
        message = GovernanceMessage(fact=fact.fact, digest=digest, content=content)
        envelope = {
            "event_id": digest,
            "event_type": GOVERNANCE_FACT,
            "schema_version": "v1",
            "ts_utc": own_time or format_time(default[1]),
            **(own_pins or default[0]).wire(),
            "payload": message.wire(),
        }
        outcome = admission.admit(index, envelope)
        if isinstance(outcome, Admitted):
            return outcome
    raise AssertionError(f"fact {digest} is refused, though a name and a digest is all that would be appended")


@dataclass(frozen=True)
class ComparedFacts:
    """The table of facts held against the stream; digests of those that only one of them has."""

    fact_count: int
    message_count: int
    without_message: tuple[str, ...]
    without_fact: tuple[str, ...]


def compare_facts(pool: Pool) -> ComparedFacts:
    """Hold every fact since there is a stream against its message, and every message against its fact.

    Raises:
        LogError: the stream does not answer. psycopg.Error: the database does not.
    """
    facts = _digests(pool)  # before the stream: who commits meanwhile is in it then
    messages = [event_id for batch in _batches(pool) for event_id in batch.event_ids]
    without_message = sorted(set(facts) - set(messages))
    without_fact = sorted(set(messages) - set(_digests(pool)))
    late_count = len(set(messages) - set(facts)) - len(without_fact)
    return ComparedFacts(len(facts) + late_count, len(messages), tuple(without_message), tuple(without_fact))


def _digests(pool: Pool) -> list[str]:
    with pool.connection() as connection:
        return [digest for (digest,) in connection.execute(_DIGESTS).fetchall()]


def _batches(pool: Pool) -> Iterator[RecordBatch]:
    """The stream in order, to where it ends now; the last batch may go on behind that."""
    log = PostgresLog.open(pool, GOVERNANCE_STREAM)
    end = log.ends().by_partition()[_PARTITION]
    at = log.position_kind.start(_PARTITION)
    while place(at) < place(end):
        batch = log.read(_PARTITION, at, _PAGE)
        yield batch
        at = batch.next
