"""Spans: for a key with many chunks, the merged summaries of runs of them, one level above the chunks.

A span stands for the chunks that begin between its first and its last event time. The newest chunks of a key are under no span
(there is always at least a run of them), so an ordinary key has none and a batch that only appends touches none. A read takes a
span's one row where no edge of a window falls inside it, and its chunks where one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import Connection, RawCursor
from psycopg.types.numeric import Int2, Int8

from ofp_platform.kernel.accumulate import ROW_WIDTH, merge_runs
from ofp_platform.kernel.query import LayoutArrays

SPAN_CHUNKS = 32

_SPAN_OF = """
SELECT k.ord - 1, s.first_ts, s.last_ts
FROM unnest($3::text[], $4::bigint[]) WITH ORDINALITY AS k(key_id, ts, ord)
JOIN LATERAL (
    SELECT first_ts, last_ts FROM ofp.span
    WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C" AND first_ts <= k.ts
    ORDER BY first_ts DESC LIMIT 1
) AS s ON s.last_ts >= k.ts
"""
_CHUNKS_BETWEEN = """
SELECT k.ord - 1, c.first_ts, c.last_ts, c.summaries
FROM unnest($3::text[], $4::bigint[], $5::bigint[]) WITH ORDINALITY AS k(key_id, low, high, ord)
JOIN ofp.chunk AS c
    ON c.projection_id = $1 AND c.key_type = $2 AND c.key_id = k.key_id COLLATE "C" AND c.first_ts BETWEEN k.low AND k.high
ORDER BY k.ord, c.first_ts
"""
_UNDER_NO_SPAN = """
SELECT k.ord - 1, c.first_ts, c.last_ts, c.summaries
FROM unnest($3::text[]) WITH ORDINALITY AS k(key_id, ord)
JOIN LATERAL (
    SELECT first_ts, last_ts, summaries FROM ofp.chunk
    WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C" AND first_ts > coalesce((
        SELECT last_ts FROM ofp.span
        WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C" ORDER BY first_ts DESC LIMIT 1
    ), -9223372036854775808)
) AS c ON true
ORDER BY k.ord, c.first_ts
"""
_DELETE = """
DELETE FROM ofp.span AS s USING unnest($3::text[], $4::bigint[]) AS k(key_id, first_ts)
WHERE s.projection_id = $1 AND s.key_type = $2 AND s.key_id = k.key_id COLLATE "C" AND s.first_ts = k.first_ts
"""

_Row = tuple[int, int, bytes]  # first time, last time, summaries


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
        changed: chunks other than a key's newest that were merged into.
        grown: keys whose newest chunk was split.
        span_chunks: chunks of a new span; one that grows past twice that is cut again.
    """
    with RawCursor(connection) as cursor:
        _write(connection, projection_id, key_type, _remade(cursor, projection_id, key_type, plan, changed_chunks, span_chunks))
        # only now: what is under no span is read from the store, and the remade ones must be in it
        _write(connection, projection_id, key_type, _new_spans(cursor, projection_id, key_type, plan, grown_keys, span_chunks))


def _write(connection: Connection[Any], projection_id: int, key_type: int, rows: Sequence[tuple[str, _Row]]) -> None:
    if not rows:
        return
    with (
        connection.cursor() as writer,
        writer.copy(
            "COPY ofp.span (projection_id, key_type, key_id, first_ts, last_ts, summaries) FROM STDIN (FORMAT BINARY)"
        ) as copy,
    ):
        copy.set_types(["int8", "int2", "text", "int8", "int8", "bytea"])
        for key_id, (first_ts, last_ts, summaries) in rows:
            copy.write_row((projection_id, key_type, key_id, Int8(first_ts), Int8(last_ts), summaries))


def _remade(
    cursor: RawCursor[Any],
    projection_id: int,
    key_type: int,
    plan: LayoutArrays,
    changed_chunks: Sequence[ChangedChunk],
    span_chunks: int,
) -> list[tuple[str, _Row]]:
    if not changed_chunks:
        return []
    owner = (projection_id, Int2(key_type))
    cursor.execute(
        _SPAN_OF, (*owner, [chunk.key_id for chunk in changed_chunks], [chunk.first_ts for chunk in changed_chunks]), binary=True
    )
    bounds: dict[tuple[str, int], tuple[int, int]] = {}
    for index, first_ts, last_ts in cursor:
        chunk = changed_chunks[index]
        low, high = bounds.get((chunk.key_id, first_ts), (first_ts, last_ts))
        bounds[chunk.key_id, first_ts] = (min(low, chunk.low), max(high, chunk.high))
    if not bounds:
        return []
    keys = [key_id for key_id, _ in bounds]
    cursor.execute(_DELETE, (*owner, keys, [first_ts for _, first_ts in bounds]))
    lows, highs = [low for low, _ in bounds.values()], [high for _, high in bounds.values()]
    cursor.execute(_CHUNKS_BETWEEN, (*owner, keys, lows, highs), binary=True)
    rows = []
    for index, chunks in _rows_by_key(cursor):
        pieces = max(1, len(chunks) // span_chunks)
        cuts = [len(chunks) * piece // pieces for piece in range(pieces + 1)]
        rows += [(keys[index], row) for row in _merge_rows(plan, chunks, cuts)]
    return rows


def _new_spans(
    cursor: RawCursor[Any], projection_id: int, key_type: int, plan: LayoutArrays, grown_keys: Sequence[str], span_chunks: int
) -> list[tuple[str, _Row]]:
    if not grown_keys:
        return []
    cursor.execute(_UNDER_NO_SPAN, (projection_id, Int2(key_type), list(grown_keys)), binary=True)
    rows = []
    for index, chunks in _rows_by_key(cursor):
        spans = len(chunks) // span_chunks - 1
        if spans > 0:
            cuts = [span_chunks * span for span in range(spans + 1)]
            rows += [(grown_keys[index], row) for row in _merge_rows(plan, chunks, cuts)]
    return rows


def _rows_by_key(cursor: Iterable[tuple[int, int, int, bytes]]) -> list[tuple[int, list[_Row]]]:
    groups: dict[int, list[_Row]] = {}
    for index, first_ts, last_ts, summaries in cursor:
        groups.setdefault(index, []).append((first_ts, last_ts, summaries))
    return list(groups.items())


def _merge_rows(plan: LayoutArrays, chunks: Sequence[_Row], cuts: Sequence[int]) -> list[_Row]:
    """One row per run of chunks [cuts[i], cuts[i+1])."""
    summaries: npt.NDArray[np.int64] = np.frombuffer(b"".join([row[2] for row in chunks]), np.int64).reshape(
        len(chunks), plan.measure_count, ROW_WIDTH
    )
    merged_summaries = merge_runs(summaries, np.array(cuts, np.int64))
    runs = zip(cuts[:-1], cuts[1:], merged_summaries, strict=True)
    return [(chunks[begin][0], chunks[end - 1][1], row.tobytes()) for begin, end, row in runs]
