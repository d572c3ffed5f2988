"""Spans: for a key with many chunks, the merged summaries of runs of them, in levels above the chunks.

A span of level 1 stands for the chunks that begin between its first and its last event time, one of level 2 for the spans of
level 1 that do. The newest rows of each level are under no span (there is always at least a run of them), so an ordinary key has
none and a batch that only appends touches none. A read takes a span's one row where no edge of a window falls inside it, and what
is under it where one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from psycopg import Connection, RawCursor
from psycopg.types.numeric import Int2, Int8

from ofp_platform.kernel.accumulate import ROW_WIDTH, merge_runs
from ofp_platform.kernel.query import LayoutArrays

SPAN_CHUNKS = 32
SPAN_LEVELS = 2

_SPAN_OF = """
SELECT k.ord - 1, s.first_ts, s.last_ts
FROM unnest($3::text[], $4::bigint[]) WITH ORDINALITY AS k(key_id, ts, ord)
JOIN LATERAL (
    SELECT first_ts, last_ts FROM ofp.span
    WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C" AND level = {level} AND first_ts <= k.ts
    ORDER BY first_ts DESC LIMIT 1
) AS s ON s.last_ts >= k.ts
"""
_BETWEEN = """
SELECT k.ord - 1, c.first_ts, c.last_ts, c.summaries, c.amended_ts
FROM unnest($3::text[], $4::bigint[], $5::bigint[]) WITH ORDINALITY AS k(key_id, low, high, ord)
CROSS JOIN LATERAL (
    SELECT c.first_ts, c.last_ts, c.summaries, c.amended_ts FROM {below} AS c
    WHERE c.projection_id = $1 AND c.key_type = $2 AND c.key_id = k.key_id COLLATE "C" AND c.first_ts BETWEEN k.low AND k.high
        {of_level}
    OFFSET 0
) AS c
ORDER BY k.ord, c.first_ts
"""
_UNDER_NO_SPAN = """
SELECT k.ord - 1, c.first_ts, c.last_ts, c.summaries, c.amended_ts
FROM unnest($3::text[]) WITH ORDINALITY AS k(key_id, ord)
JOIN LATERAL (
    SELECT c.first_ts, c.last_ts, c.summaries, c.amended_ts FROM {below} AS c
    WHERE c.projection_id = $1 AND c.key_type = $2 AND c.key_id = k.key_id COLLATE "C" {of_level} AND c.first_ts > coalesce((
        SELECT last_ts FROM ofp.span
        WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C" AND level = {level}
        ORDER BY first_ts DESC LIMIT 1
    ), -9223372036854775808)
    OFFSET 0
) AS c ON true
ORDER BY k.ord, c.first_ts
"""
_DELETE = """
DELETE FROM ofp.span WHERE ctid = ANY (ARRAY(
    SELECT (
        SELECT ctid FROM ofp.span
        WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C" AND level = {level}
            AND first_ts = k.first_ts
    ) FROM unnest($3::text[], $4::bigint[]) AS k(key_id, first_ts)
))
"""

_Row = tuple[int, int, bytes, int | None]  # first time, last time, summaries, time of the newest amendment


@dataclass(frozen=True)
class ChangedChunk:
    """One chunk that was merged into: its key, its first time before, and what its events now span (microseconds)."""

    key_id: str
    first_ts: int
    low: int
    high: int


def refresh_spans(
    connection: Connection[Any],
    projection_id: int,
    key_type: int,
    plan: LayoutArrays,
    changed_chunks: Sequence[ChangedChunk],
    grown_keys: Sequence[str],
    span_chunks: int = SPAN_CHUNKS,
) -> None:
    """Bring the spans of a key type up to date after its chunks were written, in the same transaction.

    Args:
        changed_chunks: chunks other than a key's newest that were merged into.
        grown_keys: keys whose newest chunk was split.
        span_chunks: rows under a new span; one that grows past twice that is cut again.
    """
    changed_rows = changed_chunks
    with RawCursor(connection) as cursor:
        for level in range(1, SPAN_LEVELS + 1):
            if not changed_rows and not grown_keys:
                return
            spans = _Spans(cursor, projection_id, key_type, level, plan, span_chunks)
            changed_rows, remade_rows = spans.remake(changed_rows)
            spans.write(remade_rows)
            # only now: what is under no span is read from the store, and the remade ones must be in it
            new_rows = spans.extend(grown_keys)
            spans.write(new_rows)
            grown_keys = sorted({key_id for key_id, _ in (*remade_rows, *new_rows)})


@dataclass(frozen=True)
class _Spans:
    """The spans of one level of a key type; those of level 1 are over chunks, the others over the spans of the level below."""

    cursor: RawCursor[Any]
    projection_id: int
    key_type: int
    level: int
    plan: LayoutArrays
    span_chunks: int

    def remake(self, changed_rows: Sequence[ChangedChunk]) -> tuple[list[ChangedChunk], list[tuple[str, _Row]]]:
        """Delete the spans over changed rows; return which, with what they span now, and the rows in their place."""
        if not changed_rows:
            return [], []
        self._execute(_SPAN_OF, [row.key_id for row in changed_rows], [row.first_ts for row in changed_rows])
        bounds: dict[tuple[str, int], tuple[int, int]] = {}
        for index, first_ts, last_ts in self.cursor:
            row = changed_rows[index]
            low, high = bounds.get((row.key_id, first_ts), (first_ts, last_ts))
            bounds[row.key_id, first_ts] = (min(low, row.low), max(high, row.high))
        if not bounds:
            return [], []
        changed_spans = [ChangedChunk(key_id, first_ts, low, high) for (key_id, first_ts), (low, high) in bounds.items()]
        keys = [span.key_id for span in changed_spans]
        self._execute(_DELETE, keys, [span.first_ts for span in changed_spans])
        self._execute(_BETWEEN, keys, [span.low for span in changed_spans], [span.high for span in changed_spans])
        rows = []
        for index, below in _rows_by_key(self.cursor):
            pieces = max(1, len(below) // self.span_chunks)
            cuts = [len(below) * piece // pieces for piece in range(pieces + 1)]
            rows += [(keys[index], row) for row in _merge_rows(self.plan, below, cuts)]
        return changed_spans, rows

    def extend(self, grown_keys: Sequence[str]) -> list[tuple[str, _Row]]:
        """New spans over the oldest of what is under none."""
        if not grown_keys:
            return []
        self._execute(_UNDER_NO_SPAN, list(grown_keys))
        rows = []
        for index, below in _rows_by_key(self.cursor):
            spans = len(below) // self.span_chunks - 1
            if spans > 0:
                cuts = [self.span_chunks * span for span in range(spans + 1)]
                rows += [(grown_keys[index], row) for row in _merge_rows(self.plan, below, cuts)]
        return rows

    def write(self, rows: Sequence[tuple[str, _Row]]) -> None:
        if not rows:
            return
        with (
            self.cursor.connection.cursor() as writer,
            writer.copy(
                "COPY ofp.span (projection_id, key_type, level, key_id, first_ts, last_ts, summaries, amended_ts)"
                " FROM STDIN (FORMAT BINARY)"
            ) as copy,
        ):
            copy.set_types(["int8", "int2", "int2", "text", "int8", "int8", "bytea", "int8"])
            for key_id, (first_ts, last_ts, summaries, amended_ts) in rows:
                newest_amendment = None if amended_ts is None else Int8(amended_ts)
                times = Int8(first_ts), Int8(last_ts)
                copy.write_row((self.projection_id, self.key_type, self.level, key_id, *times, summaries, newest_amendment))

    def _execute(self, statement: str, *arguments: list[Any]) -> None:
        below, of_level = ("ofp.chunk", "") if self.level == 1 else ("ofp.span", f"AND c.level = {self.level - 1}")
        text = statement.format(level=self.level, below=below, of_level=of_level)
        self.cursor.execute(text, (self.projection_id, Int2(self.key_type), *arguments), binary=True)


def _rows_by_key(cursor: Iterable[tuple[int, int, int, bytes, int | None]]) -> list[tuple[int, list[_Row]]]:
    groups: dict[int, list[_Row]] = {}
    for index, *row in cursor:
        groups.setdefault(index, []).append(cast(_Row, tuple(row)))
    return list(groups.items())


def _merge_rows(plan: LayoutArrays, chunks: Sequence[_Row], cuts: Sequence[int]) -> list[_Row]:
    """One row per run of chunks [cuts[i], cuts[i+1])."""
    summaries: npt.NDArray[np.int64] = np.frombuffer(b"".join([row[2] for row in chunks]), np.int64).reshape(
        len(chunks), plan.measure_count, ROW_WIDTH
    )
    merged_summaries = merge_runs(summaries, np.array(cuts, np.int64))
    runs = zip(cuts[:-1], cuts[1:], merged_summaries, strict=True)
    return [
        (chunks[begin][0], chunks[end - 1][1], row.tobytes(), _newest([chunk[3] for chunk in chunks[begin:end]]))
        for begin, end, row in runs
    ]


def _newest(times: Sequence[int | None]) -> int | None:
    return max((time for time in times if time is not None), default=None)
