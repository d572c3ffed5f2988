"""The records that become leaves: for each kind, where they are, in which order they are taken, and what their bytes are.

Another table of records is one entry of `SOURCES` more. `match` finds the record of `wanted.subject`; `order` is that in which
records of one kind are taken, and `late` says of a record without a leaf that the newest head should have had it: by the time at
which it was recorded (before `%(horizon)s`), or by a number that is behind one with a leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, NamedTuple

import orjson
from psycopg import Connection
from psycopg.rows import dict_row

from ofp_platform.storage.objects import ObjectNotFound, ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.audit import AuditLeaf
from ofp_platform.vocabulary.position import order

Row = Mapping[str, Any]
_RUN_NUMBER_IS_PASSED = """EXISTS (
    SELECT FROM {table} AS later JOIN ofp.audit_leaf ON leaf_kind = %(leaf_kind)s AND subject = {later}
    WHERE later.pins_digest = record.pins_digest AND later.sequence > record.sequence)"""


class Transactions(NamedTuple):
    """Those that wrote some records: from `first` on, before `end`. Rows of a database that was restored may bear
    numbers that are not given here yet.
    """

    first: int
    end: int


@dataclass(frozen=True)
class Record:
    """One record as it is now. `content`: its bytes, None: they are gone; `fault`: in which way its row contradicts them."""

    subject: str
    reference: str
    content: bytes | None
    fault: str | None = None
    row: Row | None = None

    @property
    def digest(self) -> str | None:
        """SHA-256 of its bytes."""
        return None if self.content is None else sha256_hex(self.content)

    def leaf(self, leaf_kind: str) -> AuditLeaf:
        """The leaf of a record whose bytes are there."""
        assert self.content is not None
        digest = sha256_hex(self.content)
        return AuditLeaf(leaf_kind=leaf_kind, subject=self.subject, record_digest=digest, reference=self.reference)


@dataclass(frozen=True)
class LeafSource:
    """One kind of records; see the module. `read`: the record of a row."""

    leaf_kind: str
    table: LiteralString
    columns: LiteralString
    subject: LiteralString
    match: LiteralString
    order: LiteralString
    late: LiteralString
    read: Callable[[Row, ObjectStore], Record]

    def pending(
        self, connection: Connection[Any], objects: ObjectStore, transactions: Transactions | None = None
    ) -> Iterator[Record]:
        """Every record without a leaf that is not in quarantine, in order, read as they are taken in the caller's transaction.
        `transactions`: of those transactions alone.
        """
        query = f"""
            SELECT {self.subject} AS subject, {self.columns} FROM {self.table} AS record
            WHERE NOT EXISTS (SELECT FROM ofp.audit_leaf AS leaf
                              WHERE leaf.leaf_kind = %(leaf_kind)s AND leaf.subject = {self.subject})
            AND NOT EXISTS (SELECT FROM ofp.audit_quarantine AS aside
                            WHERE aside.leaf_kind = %(leaf_kind)s AND aside.subject = {self.subject})
            {"" if transactions is None else "AND written_by >= %(first)s AND written_by < %(end)s"} ORDER BY {self.order}"""
        arguments = {"leaf_kind": self.leaf_kind, **({} if transactions is None else transactions._asdict())}
        with connection.cursor(f"pending_{self.leaf_kind}", row_factory=dict_row) as cursor:
            for row in cursor.execute(query, arguments):
                yield self.read(row, objects)

    def records(self, connection: Connection[Any], objects: ObjectStore, subjects: Sequence[str]) -> dict[str, Record]:
        """The records of these subjects that are there."""
        query = f"""
            SELECT wanted.subject, {self.columns} FROM unnest(%s::text[]) AS wanted (subject)
            JOIN {self.table} AS record ON {self.match}"""
        with connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(query, (list(subjects),)).fetchall()
        return {row["subject"]: self.read(row, objects) for row in rows}

    def without_leaf(self, connection: Connection[Any], horizon: str | None) -> Iterator[tuple[str, bool]]:
        """Each record without a leaf that is not in quarantine: its subject, and whether the newest head should have had it.

        `horizon`: up to when records are covered, RFC 3339; None: nothing is known.
        """
        query = f"""
            SELECT {self.subject}, coalesce({self.late}, false) FROM {self.table} AS record
            WHERE NOT EXISTS (SELECT FROM ofp.audit_leaf AS leaf
                              WHERE leaf.leaf_kind = %(leaf_kind)s AND leaf.subject = {self.subject})
            AND NOT EXISTS (SELECT FROM ofp.audit_quarantine AS aside
                            WHERE aside.leaf_kind = %(leaf_kind)s AND aside.subject = {self.subject})
            ORDER BY 1"""
        with connection.cursor() as cursor:
            yield from cursor.execute(query, {"leaf_kind": self.leaf_kind, "horizon": horizon})


def _text_of(row: Row) -> bytes:
    return str(row["content"]).encode()


def _difference(expected_columns: Mapping[str, Any], row: Row) -> str | None:
    """The columns that say something else than the record itself."""
    names = [name for name, value in expected_columns.items() if row[name] != value]
    return f"its columns {', '.join(names)} are not those of its content" if names else None


def _decision(row: Row, objects: ObjectStore) -> Record:
    content = _text_of(row)
    try:
        members = orjson.loads(content)
        at = members["event_position"]
        expected_columns = {
            "decision_id": members["decision_id"],
            "pins_digest": pins_digest(ContextPins.model_validate(members["context_pins"])),
            "stream_name": at["stream_name"],
            "partition_id": at["partition_id"],
            "record_offset": order(at["offset"]),
            "event_id": members["event_id"],
            # v1 may have been decided without a vector; then nothing of one is in it
            "snapshot_hash": members.get("feature_snapshot_hash"),
        }
    except (KeyError, TypeError, ValueError):
        fault: str | None = "its content is no decision record"
    else:
        fault = _difference(expected_columns, row)
    return Record(row["subject"], f"ofp.decision_record/{row['subject']}", content, fault, row)


def _manifest(row: Row, objects: ObjectStore) -> Record:
    path = str(row["manifest_path"])
    try:
        content = objects.get(path)
    except (ObjectNotFound, ValueError):
        return Record(row["subject"], path, None, f"there is no object {path}", row)
    try:
        members = orjson.loads(content)
        expected_columns = {
            "dataset_name": members["dataset_name"],
            "dataset_identity": members["dataset_identity"],
            "manifest_digest": sha256_hex(content),
            "request_id": members["request_id"],
            "supersedes": members.get("supersedes"),
        }
    except (KeyError, TypeError, AttributeError, ValueError):
        fault: str | None = f"{path} is no manifest"
    else:
        fault = _difference(expected_columns, row)
    return Record(row["subject"], path, content, fault, row)


def _label(row: Row, objects: ObjectStore) -> Record:
    # numbers as texts: a row may hold any that PostgreSQL can
    content = canonical_bytes({name: None if value is None else str(value) for name, value in row.items() if name != "subject"})
    return Record(row["subject"], f"ofp.label_assertion/{row['subject']}", content, None, row)


def _run_step(row: Row, objects: ObjectStore) -> Record:
    content = _text_of(row)
    try:
        members = orjson.loads(content)
        run = pins_digest(ContextPins.model_validate(members["context_pins"]))
        fault = _difference({"pins_digest": run, "sequence": members["sequence"], "state": members["state"]}, row)
    except (KeyError, TypeError, ValueError):
        fault = "its content is no step of a run"
    return Record(row["subject"], f"ofp.run_status/{row['subject']}", content, fault, row)


def _bundle_step(row: Row, objects: ObjectStore) -> Record:
    content = _text_of(row)
    try:
        members = orjson.loads(content)
        run = pins_digest(ContextPins.model_validate(members["context_pins"]))
        names = {
            "step": members["step"],
            "bundle_name": members["bundle"]["bundle_name"],
            "bundle_digest": members["bundle"]["digest"],
        }
        fault = _difference({"pins_digest": run, "sequence": members["sequence"], **names}, row)
    except (KeyError, TypeError, ValueError):
        fault = "its content is no step of a bundle"
    return Record(row["subject"], f"ofp.bundle_event/{row['subject']}", content, fault, row)


def _fact(row: Row, objects: ObjectStore) -> Record:
    content = _text_of(row)
    try:
        fault = _difference({"digest": sha256_hex(content), "fact": orjson.loads(content)["fact"]}, row)
    except (KeyError, TypeError, ValueError):
        fault = "its content is no governance fact"
    return Record(row["subject"], f"ofp.governance_fact/{row['subject']}", content, fault, row)


DECISION = "decision"
SOURCES: tuple[LeafSource, ...] = (
    LeafSource(
        DECISION,
        "ofp.decision_record",
        "decision_id, pins_digest, stream_name, partition_id, record_offset, event_id, snapshot_hash, content, submitted_by",
        "record.decision_id",
        "record.decision_id = wanted.subject",
        "record.decision_id",
        "coalesce(record.recorded_at, '-infinity') < %(horizon)s::timestamptz",
        _decision,
    ),
    LeafSource(
        "dataset_manifest",
        "ofp.dataset_index",
        "dataset_name, dataset_identity, manifest_path, manifest_digest, request_id, supersedes",
        "record.dataset_name || ':' || record.dataset_identity",
        "(dataset_name, dataset_identity) = (split_part(wanted.subject, ':', 1), split_part(wanted.subject, ':', 2))",
        "record.dataset_name, record.dataset_identity",
        "coalesce(record.recorded_at, '-infinity') < %(horizon)s::timestamptz",
        _manifest,
    ),
    LeafSource(
        "label_assertion",
        "ofp.label_assertion",
        "pins_digest, sequence, assertion_id, event_class, event_id, label_type, value, effective_time, stated_time,"
        " admitted_time, observed_time, source, submitted_by",
        "record.pins_digest || '/' || record.assertion_id",
        "(pins_digest, assertion_id) = (split_part(wanted.subject, '/', 1), split_part(wanted.subject, '/', 2))",
        "record.pins_digest, record.sequence",
        _RUN_NUMBER_IS_PASSED.format(table="ofp.label_assertion", later="later.pins_digest || '/' || later.assertion_id"),
        _label,
    ),
    LeafSource(
        "run_status",
        "ofp.run_status",
        "pins_digest, sequence, state, content",
        "record.pins_digest || '/' || record.sequence",
        "(pins_digest, sequence) = (split_part(wanted.subject, '/', 1), split_part(wanted.subject, '/', 2)::integer)",
        "record.pins_digest, record.sequence",
        _RUN_NUMBER_IS_PASSED.format(table="ofp.run_status", later="later.pins_digest || '/' || later.sequence"),
        _run_step,
    ),
    LeafSource(
        "bundle_step",
        "ofp.bundle_event",
        "pins_digest, sequence, step, bundle_name, bundle_digest, content",
        "record.pins_digest || '/' || record.sequence",
        "(pins_digest, sequence) = (split_part(wanted.subject, '/', 1), split_part(wanted.subject, '/', 2)::integer)",
        "record.pins_digest, record.sequence",
        _RUN_NUMBER_IS_PASSED.format(table="ofp.bundle_event", later="later.pins_digest || '/' || later.sequence"),
        _bundle_step,
    ),
    LeafSource(
        "governance_fact",
        "ofp.governance_fact",
        "digest, fact, content",
        "record.digest",
        "record.digest = wanted.subject",
        "record.fact_number",
        "record.recorded_at < %(horizon)s::timestamptz",
        _fact,
    ),
)
SOURCE_OF = {source.leaf_kind: source for source in SOURCES}


def kinds_written(connection: Connection[Any], first: int) -> set[str]:
    """The kinds of which that transaction or a later one wrote records, with leaves or without."""
    # the greatest is one look into an index; of EXISTS a planner without statistics makes a walk over the table
    newest = ", ".join(f"(SELECT max(written_by) FROM {source.table})" for source in SOURCES)
    row = connection.execute(f"SELECT {newest}").fetchone()
    assert row is not None
    return {source.leaf_kind for source, last in zip(SOURCES, row, strict=True) if last is not None and last >= first}
