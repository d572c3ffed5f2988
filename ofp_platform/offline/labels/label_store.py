"""The labels of one run: assertions are appended, never changed; what is known as of a time is resolved on reading.

Each assertion has a sequence number: those of one run are 0, 1, 2, ... in the order in which they became visible, so all in front
of a number are the same assertions for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
from psycopg import Connection

from ofp_platform.log.governance_log import append_facts_with
from ofp_platform.offline.labels.label_columns import OBSERVED_TIME, ResolvedLabels
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.storage.governance_facts import role_of
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.offline.build_intent import SourceClass
from ofp_platform.vocabulary.offline.build_plan import LabelBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.governance_fact import LabelsPublished
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.times import parse_time

_OFFERED = "assertion_id, event_class, event_id, label_type, value, effective_time, stated_time, source, submitted_by"
# one appender of a run at a time: a number is never visible before those in front of it
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('ofp.label_assertion/' || %s, 0))"
_TAKE_OVER = f"""
    INSERT INTO ofp.label_assertion (pins_digest, sequence, observed_time, admitted_time, {_OFFERED})
    SELECT %(run)s, %(next)s - 1 + row_number() OVER (ORDER BY assertion_id),
           greatest(stated_time, admitted), admitted, {_OFFERED}
    FROM (SELECT DISTINCT ON (assertion_id) {_OFFERED},
                 coalesce(admitted_time, now.microseconds) AS admitted
          FROM offered_label, (SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint) AS now (microseconds)
          ORDER BY assertion_id, admitted_time) AS label
    WHERE NOT EXISTS (SELECT FROM ofp.label_assertion AS known
                      WHERE (known.pins_digest, known.assertion_id) = (%(run)s, label.assertion_id))"""
_NEXT = "SELECT coalesce(max(sequence) + 1, 0) FROM ofp.label_assertion WHERE pins_digest = %s"
_TYPES = """
    SELECT DISTINCT label_type FROM ofp.label_assertion WHERE pins_digest = %s AND sequence >= %s ORDER BY label_type"""
_WITHOUT_CLASS = "SELECT EXISTS (SELECT FROM ofp.label_assertion_without_class WHERE pins_digest = %s)"
_RESOLVED = """
    COPY (SELECT DISTINCT ON (event_class, event_id) event_class, event_id, value, observed_time, assertion_id
          FROM ofp.label_assertion
          WHERE (pins_digest, label_type) = (%s, %s) AND observed_time <= %s AND sequence < %s
          ORDER BY event_class, event_id, observed_time DESC, assertion_id DESC)
    TO STDOUT (FORMAT csv)"""
# human before external before automated; the join leaves out nothing: undeclared sources are refused before
_RESOLVED_BY_CLASS = """
    COPY (SELECT DISTINCT ON (event_class, event_id) event_class, event_id, value, observed_time, assertion_id
          FROM ofp.label_assertion JOIN unnest(%s::text[], %s::int[]) AS declared (source, place) USING (source)
          WHERE (pins_digest, label_type) = (%s, %s) AND observed_time <= %s AND sequence < %s
          ORDER BY event_class, event_id, place, observed_time DESC, assertion_id DESC)
    TO STDOUT (FORMAT csv)"""
_UNDECLARED = """
    SELECT DISTINCT source FROM ofp.label_assertion
    WHERE (pins_digest, label_type) = (%s, %s) AND observed_time <= %s AND sequence < %s AND source <> ALL (%s) ORDER BY source"""
_ALL = """
    COPY (SELECT event_class, event_id, value, observed_time, assertion_id FROM ofp.label_assertion
          WHERE (pins_digest, label_type) = (%s, %s) AND sequence < %s
          ORDER BY event_class, event_id, observed_time, assertion_id)
    TO STDOUT (FORMAT csv)"""
_LATEST = """
    SELECT max(observed_time) FROM ofp.label_assertion
    WHERE (pins_digest, label_type) = (%s, %s) AND observed_time <= coalesce(%s, observed_time)"""
_SCHEMA = pa.schema(
    [
        ("event_class", pa.string()),
        ("event_id", pa.string()),
        ("value", pa.int64()),
        ("observed_time", pa.int64()),
        ("assertion_id", pa.string()),
    ]
)


def as_observed(assertion: LabelAssertion) -> int:
    """Admission (microseconds) at the very time that the assertion states: of a record of the log, which was observed when it was
    admitted, and of history by a simulated clock, whose `source` says so."""
    return parse_time(assertion.observed_time_utc)


@dataclass(frozen=True)
class AppendReceipt:
    """Counts of an append: new assertions, and known ones (repeats inside the append included)."""

    new_count: int
    known_count: int


class LabelStore:
    """The assertions of one run: event ids mean something inside a run only. The pool stays the caller's.

    Every method raises BuildRefused(STORE_UNAVAILABLE) when PostgreSQL does not answer; nothing is half done then.
    """

    def __init__(self, pool: Pool, context_pins: ContextPins) -> None:
        self._pool = pool
        self._pins = context_pins
        self._run = pins_digest(context_pins)

    def append(
        self,
        assertions: Iterable[LabelAssertion],
        admitted_at: Callable[[LabelAssertion], int] | None = None,
        submitted_by: str | None = None,
    ) -> AppendReceipt:
        """Append all of them or none, in one transaction. One that is there already stays as it is and counts as known.

        `admitted_at` gives the admission of an assertion, microseconds; without it, the time of the database. No assertion counts
        as observed before its admission, whatever it states. `submitted_by`: the principal who sent them, if it was one. That
        there are new ones, is a governance fact.
        """
        with answering(), self._pool.connection() as connection, connection.transaction():
            connection.execute("""
                CREATE TEMPORARY TABLE offered_label (
                    assertion_id text COLLATE "C", event_class text, event_id text, label_type text, value bigint,
                    effective_time bigint, stated_time bigint, source text, submitted_by text, admitted_time bigint
                ) ON COMMIT DROP""")
            offered_count = 0
            with connection.cursor() as cursor:
                with cursor.copy(f"COPY offered_label ({_OFFERED}, admitted_time) FROM STDIN") as copy:
                    for assertion in assertions:
                        offered_count += 1
                        copy.write_row(
                            (
                                assertion.assertion_id,
                                assertion.event_class,
                                assertion.event_id,
                                assertion.label_type,
                                assertion.value,
                                parse_time(assertion.effective_time_utc),
                                parse_time(assertion.observed_time_utc),
                                assertion.source,
                                submitted_by,
                                None if admitted_at is None else admitted_at(assertion),
                            )
                        )
                connection.execute(_ONE_AT_A_TIME, (self._run,))
                first = self._next(connection)
                new_count = cursor.execute(_TAKE_OVER, {"run": self._run, "next": first}).rowcount
            if new_count:
                self._tell(connection, first, first + new_count, submitted_by)
        return AppendReceipt(new_count, offered_count - new_count)

    def _tell(self, connection: Connection[Any], first: int, behind: int, submitted_by: str | None) -> None:
        rows = connection.execute(_TYPES, (self._run, first)).fetchall()
        fact = LabelsPublished(
            context_pins=self._pins,
            first_sequence=first,
            next_sequence=behind,
            label_types=tuple(label_type for (label_type,) in rows),
            actor=submitted_by or role_of(connection),
        )
        append_facts_with(connection, [fact])

    def next_sequence(self) -> int:
        """The number behind the newest assertion, of whatever type: all in front of it are known, and stay as they are.

        Raises:
            BuildRefused: BASIS_UNRESOLVED, the assertions of the run are of before labels named the class of their event.
        """
        with answering(), self._pool.connection() as connection:
            next_sequence = self._next(connection)
            row = None if next_sequence else connection.execute(_WITHOUT_CLASS, (self._run,)).fetchone()
        if row is not None and row[0]:
            text = "the labels of this run were stored before labels named the class of their event: load them again"
            raise BuildRefused(BuildReason.BASIS_UNRESOLVED, f"{text} (`ofp labels load`)", "label")
        return next_sequence

    @staticmethod
    def next_sequences(pool: Pool) -> Callable[[ContextPins], int]:
        """`next_sequence` of any run."""
        return lambda context_pins: LabelStore(pool, context_pins).next_sequence()

    def resolve(self, basis: LabelBasis) -> ResolvedLabels:
        """The one assertion per event that holds as of `basis.as_of_utc`, by the rule of the basis.

        Raises:
            BuildRefused: BASIS_UNRESOLVED, the store ends in front of the basis, or a source has no class.
        """
        next_sequence = self.next_sequence()
        if next_sequence < basis.next_sequence:
            text = f"the label store ends at {next_sequence}, the label basis at {basis.next_sequence}: it lost assertions"
            raise BuildRefused(BuildReason.BASIS_UNRESOLVED, text, "label")
        as_of = parse_time(basis.as_of_utc)
        known = (self._run, basis.label_type, as_of, basis.next_sequence)
        if basis.source_classes is None:
            return ResolvedLabels(self._read(_RESOLVED, known), basis)
        self._refuse_undeclared(known, list(basis.source_classes))
        order = list(SourceClass)
        places = [order.index(source_class) for source_class in basis.source_classes.values()]
        return ResolvedLabels(self._read(_RESOLVED_BY_CLASS, (list(basis.source_classes), places, *known)), basis)

    def _refuse_undeclared(self, known: tuple[str | int, ...], sources: list[str]) -> None:
        with answering(), self._pool.connection() as connection:
            undeclared = [source for (source,) in connection.execute(_UNDECLARED, (*known, sources)).fetchall()]
        if undeclared:
            text = f"labels by precedence need the class of each source; of {', '.join(undeclared)} none is declared"
            raise BuildRefused(BuildReason.BASIS_UNRESOLVED, text, "label.source_classes")

    def assertions(self, label_type: str, next_sequence: int | None = None) -> pa.Table:
        """Every assertion of that type (in front of `next_sequence`), by class, id, observed time, assertion id.

        Columns: event_class string, event_id string, value int64, observed_time timestamp[us, UTC], assertion_id string.
        """
        return self._read(_ALL, (self._run, label_type, self.next_sequence() if next_sequence is None else next_sequence))

    def known_until(self, label_type: str, until_us: int | None = None) -> int | None:
        """The greatest observed time (microseconds), of those up to `until_us` if given; None without any assertion."""
        with answering(), self._pool.connection() as connection:
            row = connection.execute(_LATEST, (self._run, label_type, until_us)).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def _next(self, connection: Connection[Any]) -> int:
        row = connection.execute(_NEXT, (self._run,)).fetchone()
        assert row is not None  # an aggregate has one
        return int(row[0])

    def _read(self, query: str, parameters: tuple[str | int | list[str] | list[int], ...]) -> pa.Table:
        with (
            answering(),
            self._pool.connection() as connection,
            connection.cursor() as cursor,
            cursor.copy(query, parameters) as copy,
        ):
            text = b"".join(bytes(part) for part in copy)
        if not text:
            table = _SCHEMA.empty_table()
        else:
            # ids hold neither commas nor quotes, so the text needs no unquoting
            table = pyarrow.csv.read_csv(
                pa.py_buffer(text),
                read_options=pyarrow.csv.ReadOptions(column_names=_SCHEMA.names),
                convert_options=pyarrow.csv.ConvertOptions(column_types=_SCHEMA),
            )
        column_index = table.schema.get_field_index("observed_time")
        return table.set_column(column_index, "observed_time", table["observed_time"].cast(OBSERVED_TIME))
