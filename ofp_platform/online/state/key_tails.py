"""Tails: the newest events of a key, in a row of their own that grows in place; chunks have only what is not newer.

A tail has a time, `after_ts`: every event of the key's chunks is at or before it, every event of the tail behind it. A newer
event goes in front of the row's bytes by one update that no index follows, and whose WAL is the event and little more; nothing is
read for it. A tail that would grow too long, or whose key gets an event at or before `after_ts`, is emptied: its events go to the
chunks together with the new ones. A key that gets many events at once loses its tail in the same way; the next one begins behind
the newest chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import Connection, RawCursor
from psycopg.types.numeric import Int2, Int8

from ofp_platform.online.state.binary_rows import BigintArray, Column, TextArray
from ofp_platform.online.state.tail_codec import read_records, write_records

Int64 = npt.NDArray[np.int64]

TAIL_BYTES = 640
"""The longest tail: some 16 events."""

MOST_APPENDED = 4
"""Events of a key that a commit appends; more go to the chunks at once, which a catch-up would soon rewrite anyway."""

_BULK = 16

# Each row is looked up by itself, whatever the statistics of the table say: as a join with a table that was never analysed,
# PostgreSQL reads all tails of the key type for the few keys of a commit.
_PLACE = """(
    SELECT t.ctid FROM ofp.tail AS t WHERE t.projection_id = $1 AND t.key_type = $2 AND t.key_id = k.key_id COLLATE "C"
)"""
_APPEND = f"""
UPDATE ofp.tail AS t
SET last_ts = greatest(t.last_ts, k.high), block = substring($4::bytea FROM k.start FOR k.size) || t.block
FROM (
    SELECT k.*, {_PLACE} AS place
    FROM unnest($3::text[], $5::bigint[], $6::bigint[], $7::integer[], $8::integer[])
        WITH ORDINALITY AS k(key_id, low, high, start, size, ord)
    OFFSET 0
) AS k
WHERE t.ctid = k.place AND t.after_ts < k.low AND octet_length(t.block) + k.size <= $9
RETURNING k.ord - 1
"""
_READ = """
SELECT k.ord - 1, t.last_ts, t.block
FROM unnest($3::text[]) WITH ORDINALITY AS k(key_id, ord)
CROSS JOIN LATERAL (
    SELECT last_ts, block FROM ofp.tail WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C" OFFSET 0
) AS t
"""
_EMPTY = f"""
UPDATE ofp.tail AS t SET after_ts = k.after_ts, last_ts = k.after_ts, block = ''
FROM (
    SELECT k.after_ts, {_PLACE} AS place FROM unnest($3::text[], $4::bigint[]) AS k(key_id, after_ts) OFFSET 0
) AS k
WHERE t.ctid = k.place
"""
_DELETE = f"""
DELETE FROM ofp.tail WHERE ctid = ANY (ARRAY(SELECT {_PLACE} FROM unnest($3::text[]) AS k(key_id)))
"""
_NEWEST_CHUNKS = """
SELECT k.ord - 1, c.last_ts
FROM unnest($3::text[]) WITH ORDINALITY AS k(key_id, ord)
CROSS JOIN LATERAL (
    SELECT last_ts FROM ofp.chunk
    WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C" ORDER BY first_ts DESC LIMIT 1
) AS c
"""


@dataclass(frozen=True)
class ForChunks:
    """The events that tails do not take, each key's former tail among them, in the order of their arrival.

    `key_ids` of those keys; `keys` int64[m] indexes them; `matrix` int64[C, m]. `tails`: rows of tails written.
    """

    key_ids: list[str]
    keys: Int64
    matrix: Int64
    tails: int


def append_to_tails(
    connection: Connection[Any],
    projection_id: int,
    key_type: int,
    key_ids: Sequence[str],
    keys: Int64,
    matrix: Int64,
    *,
    horizon: int,
    tail_bytes: int,
) -> ForChunks:
    """Put new events (key index, int64[C, m]) into the tails of their keys; the rest is for the chunks.

    Args:
        horizon: all events are behind it, but for those of chunks and tails that are still to be pruned: events of emptied tails
            at or before it are dropped, and no tail begins before it.
        tail_bytes: the longest tail. 0: all events are for the chunks.
    """
    counts = np.bincount(keys, minlength=len(key_ids))
    is_small = counts <= (MOST_APPENDED if tail_bytes else 0)
    few = np.flatnonzero(is_small[keys])
    if len(few) * _BULK < len(keys):  # hardly any key of a catch-up's commit: then none, and nothing is copied
        few, is_small = few[:0], np.zeros(len(key_ids), np.bool_)
    order = few[np.lexsort((-few, keys[few]))]  # the newest arrival first
    data, offsets = write_records(np.ascontiguousarray(matrix[:, order]))
    present, begins = np.unique(keys[order], return_index=True)
    ends = np.append(begins[1:], len(order))
    starts, sizes = offsets[begins], offsets[ends] - offsets[begins]
    times = matrix[0, order]
    low, high = (extreme.reduceat(times, begins) if len(begins) else times for extreme in (np.minimum, np.maximum))
    names = [key_ids[key] for key in present.tolist()]
    owner = (projection_id, Int2(key_type))
    is_folded = (counts > 0) & ~is_small
    with RawCursor(connection) as cursor:
        done = _append(cursor, owner, names, data, (low, high, starts, sizes), tail_bytes)
        rest = np.flatnonzero(~done)
        is_folded[present[rest]] = True
        candidates = np.flatnonzero(is_folded)
        cursor.execute(_READ, (*owner, TextArray.of(Column.of_texts(key_ids).take(candidates))), binary=True)
        former_tails = {int(candidates[index]): (last_ts, block) for index, last_ts, block in cursor}
        # without a tail: the key is new, or had many events at once
        beginning = [place for place in rest.tolist() if int(present[place]) not in former_tails and sizes[place] <= tail_bytes]
        after = np.full(len(beginning), horizon, np.int64)
        cursor.execute(_NEWEST_CHUNKS, (*owner, [names[place] for place in beginning]), binary=True)
        for index, last_ts in cursor:
            after[index] = max(last_ts, horizon)
        rows = []
        for place, after_ts in zip(beginning, after.tolist(), strict=True):
            if low[place] > after_ts:
                is_folded[present[place]] = False
                rows.append((names[place], after_ts, int(high[place]), data[starts[place] : starts[place] + sizes[place]]))
        _insert(connection, projection_id, key_type, rows)
        emptied = [place for place in rest.tolist() if int(present[place]) in former_tails]
        after_emptied = [max(former_tails[int(present[place])][0], int(high[place])) for place in emptied]
        if emptied:
            cursor.execute(_EMPTY, (*owner, [names[place] for place in emptied], after_emptied), binary=True)
        left = [key_ids[key] for key in former_tails if not is_small[key]]
        if left:
            cursor.execute(_DELETE, (*owner, left))
    folded_keys = np.flatnonzero(is_folded)
    former, former_offsets = read_records([block for _, block in former_tails.values()], matrix.shape[0])
    number_of = np.full(len(key_ids), -1, np.int64)
    number_of[folded_keys] = np.arange(len(folded_keys))
    former_keys = np.repeat(number_of[np.array(list(former_tails), np.int64)], np.diff(former_offsets))
    servable = former[0] > horizon
    is_for_chunks = is_folded[keys]
    if not is_for_chunks.all():
        keys, matrix = keys[is_for_chunks], matrix[:, is_for_chunks]
    keys = number_of[keys]
    if former.shape[1]:
        keys = np.concatenate([former_keys[servable], keys])
        matrix = np.concatenate([former[:, servable], matrix], axis=1)
    return ForChunks([key_ids[key] for key in folded_keys.tolist()], keys, matrix, int(np.count_nonzero(done)) + len(rows))


def _append(
    cursor: RawCursor[Any],
    owner: tuple[int, Int2],
    names: Sequence[str],
    data: bytes,
    columns: tuple[Int64, Int64, Int64, Int64],
    tail_bytes: int,
) -> npt.NDArray[np.bool_]:
    """Which keys' tails took their new events."""
    done = np.zeros(len(names), np.bool_)
    low, high, starts, sizes = columns
    places = np.flatnonzero(sizes <= tail_bytes)
    if not len(places):
        return done
    arguments = (
        TextArray.of(Column.of_texts(names).take(places)),
        data,
        BigintArray.of(low[places]),
        BigintArray.of(high[places]),
        (starts[places] + 1).tolist(),
        sizes[places].tolist(),
        tail_bytes,
    )
    cursor.execute(_APPEND, (*owner, *arguments), binary=True)
    done[places[[index for (index,) in cursor]]] = True
    return done


def _insert(connection: Connection[Any], projection_id: int, key_type: int, rows: Sequence[tuple[str, int, int, bytes]]) -> None:
    """Copy in the tails of new keys (key id, after, last, block)."""
    if not rows:
        return
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY ofp.tail (projection_id, key_type, after_ts, key_id, last_ts, block) FROM STDIN (FORMAT BINARY)"
        ) as copy,
    ):
        copy.set_types(["int8", "int2", "int8", "text", "int8", "bytea"])
        for key_id, after_ts, last_ts, block in rows:
            copy.write_row((projection_id, key_type, Int8(after_ts), key_id, Int8(last_ts), block))
