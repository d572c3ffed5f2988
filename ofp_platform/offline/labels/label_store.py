"""The labels of one run: assertions are appended, never changed; what is known as of a time is resolved on reading."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv

from ofp_platform.offline.labels.label_columns import OBSERVED_TIME, ResolvedLabels
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.offline.build_plan import LabelBasis
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.times import parse_time

_COLUMNS = "assertion_id, event_id, label_type, value, effective_time, observed_time, source"
# in the order of their ids: two appenders of the same assertions wait for each other, and never in a circle
_TAKE_OVER = f"""
    INSERT INTO ofp.label_assertion (pins_digest, {_COLUMNS})
    SELECT DISTINCT ON (assertion_id) %s, {_COLUMNS} FROM offered_label ORDER BY assertion_id
    ON CONFLICT (pins_digest, assertion_id) DO NOTHING"""
_RESOLVED = """
    COPY (SELECT DISTINCT ON (event_id) event_id, value, observed_time, assertion_id FROM ofp.label_assertion
          WHERE (pins_digest, label_type) = (%s, %s) AND observed_time <= %s
          ORDER BY event_id, observed_time DESC, assertion_id DESC)
    TO STDOUT (FORMAT csv)"""
_ALL = """
    COPY (SELECT event_id, value, observed_time, assertion_id FROM ofp.label_assertion
          WHERE (pins_digest, label_type) = (%s, %s) ORDER BY event_id, observed_time, assertion_id)
    TO STDOUT (FORMAT csv)"""
_LATEST = """
    SELECT max(observed_time) FROM ofp.label_assertion
    WHERE (pins_digest, label_type) = (%s, %s) AND observed_time <= coalesce(%s, observed_time)"""
_SCHEMA = pa.schema(
    [("event_id", pa.string()), ("value", pa.int64()), ("observed_time", pa.int64()), ("assertion_id", pa.string())]
)


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
        self._run = pins_digest(context_pins)

    def append(self, assertions: Iterable[LabelAssertion]) -> AppendReceipt:
        """Append all of them or none, in one transaction. One that is there already stays as it is and counts as known."""
        with answering(), self._pool.connection() as connection, connection.transaction():
            connection.execute("""
                CREATE TEMPORARY TABLE offered_label (
                    assertion_id text COLLATE "C", event_id text, label_type text, value bigint,
                    effective_time bigint, observed_time bigint, source text
                ) ON COMMIT DROP""")
            offered_count = 0
            with connection.cursor() as cursor:
                with cursor.copy(f"COPY offered_label ({_COLUMNS}) FROM STDIN") as copy:
                    for assertion in assertions:
                        offered_count += 1
                        copy.write_row(
                            (
                                assertion.assertion_id,
                                assertion.event_id,
                                assertion.label_type,
                                assertion.value,
                                parse_time(assertion.effective_time_utc),
                                parse_time(assertion.observed_time_utc),
                                assertion.source,
                            )
                        )
                new_count = cursor.execute(_TAKE_OVER, (self._run,)).rowcount
        return AppendReceipt(new_count, offered_count - new_count)

    def resolve(self, basis: LabelBasis) -> ResolvedLabels:
        """The one assertion per event that holds as of `basis.as_of_utc`, by the rule of the basis."""
        as_of = parse_time(basis.as_of_utc)
        table = self._read(_RESOLVED, (self._run, basis.label_type, as_of))
        return ResolvedLabels(basis, table)

    def assertions(self, label_type: str) -> pa.Table:
        """Every assertion of that type, whenever it was observed, in the order of (event_id, observed_time, assertion_id).

        Columns: event_id string, value int64, observed_time timestamp[us, UTC], assertion_id string.
        """
        return self._read(_ALL, (self._run, label_type))

    def known_until(self, label_type: str, until_us: int | None = None) -> int | None:
        """The greatest observed time (microseconds), of those up to `until_us` if given; None without any assertion."""
        with answering(), self._pool.connection() as connection:
            row = connection.execute(_LATEST, (self._run, label_type, until_us)).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def _read(self, query: str, parameters: tuple[str | int, ...]) -> pa.Table:
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
