"""Tails: the newest events of a key, in a row of their own that grows in place; chunks have only what is not newer.

A tail has a time, `after_ts`: every event of the key's chunks is at or before it, every event of the tail behind it. A newer
event goes in front of the row's bytes by one update that no index follows, and whose WAL is the event and little more; nothing is
read for it. A tail that would grow too long, or whose key gets an event at or before `after_ts`, is emptied: its events go to the
chunks together with the new ones. A key that has chunks has a tail, or all of its chunks are behind the horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import Connection, RawCursor
from psycopg.types.numeric import Int2, Int8

from ofp_platform.online.state.tail_codec import read_records, write_records

Int64 = npt.NDArray[np.int64]

TAIL_BYTES = 640
"""The longest tail: some 16 events."""

_APPEND = """
UPDATE ofp.tail AS t
SET last_ts = greatest(t.last_ts, k.high), block = substring($4::bytea FROM k.start FOR k.size) || t.block
FROM unnest($3::text[], $5::bigint[], $6::bigint[], $7::integer[], $8::integer[])
    WITH ORDINALITY AS k(key_id, low, high, start, size, ord)
WHERE t.projection_id = $1 AND t.key_type = $2 AND t.key_id = k.key_id COLLATE "C"
    AND t.after_ts < k.low AND octet_length(t.block) + k.size <= $9
RETURNING k.ord - 1
"""
_READ = """
SELECT k.ord - 1, t.last_ts, t.block
FROM unnest($3::text[]) WITH ORDINALITY AS k(key_id, ord)
JOIN ofp.tail AS t ON t.projection_id = $1 AND t.key_type = $2 AND t.key_id = k.key_id COLLATE "C"
"""
_EMPTY = """
UPDATE ofp.tail AS t SET after_ts = k.after_ts, last_ts = k.after_ts, block = ''
FROM unnest($3::text[], $4::bigint[]) AS k(key_id, after_ts)
WHERE t.projection_id = $1 AND t.key_type = $2 AND t.key_id = k.key_id COLLATE "C"
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
            at or before it are dropped, and the tail of a key that has none begins behind it.
        tail_bytes: the longest tail. 0: all events are for the chunks.
    """
    order = np.lexsort((-np.arange(len(keys)), keys))  # the newest arrival first
    data, offsets = write_records(np.ascontiguousarray(matrix[:, order]))
    present, begins = np.unique(keys[order], return_index=True)
    ends = np.append(begins[1:], len(keys))
    starts, sizes = offsets[begins], offsets[ends] - offsets[begins]
    times = matrix[0, order]
    low, high = np.minimum.reduceat(times, begins), np.maximum.reduceat(times, begins)
    names = [key_ids[key] for key in present.tolist()]
    with RawCursor(connection) as cursor:
        done = _append(cursor, (projection_id, key_type), names, data, (low, high, starts, sizes), tail_bytes)
        rest = np.flatnonzero(~done).tolist()
        cursor.execute(_READ, (projection_id, Int2(key_type), [names[place] for place in rest]), binary=True)
        stored = {rest[index]: (last_ts, block) for index, last_ts, block in cursor}
        news = [place for place in rest if place not in stored]
        is_small = sizes <= tail_bytes
        rows = [
            (names[place], horizon, int(high[place]), data[starts[place] : starts[place] + sizes[place]])
            if is_small[place]
            else (names[place], int(high[place]), int(high[place]), b"")
            for place in news
        ]
        _insert(connection, projection_id, key_type, rows)
        if stored:
            after = [max(last_ts, int(high[place])) for place, (last_ts, _) in stored.items()]
            cursor.execute(_EMPTY, (projection_id, Int2(key_type), [names[place] for place in stored], after), binary=True)
    emptied = list(stored)
    folded = sorted([*emptied, *(place for place in news if not is_small[place])])
    former, former_offsets = read_records([stored[place][1] for place in emptied], matrix.shape[0])
    number_of = np.full(len(key_ids), -1, np.int64)
    number_of[present[folded]] = np.arange(len(folded))
    former_keys = np.repeat(number_of[present[emptied]], np.diff(former_offsets)) if emptied else np.empty(0, np.int64)
    servable = former[0] > horizon
    is_folded = number_of[keys] >= 0
    return ForChunks(
        [names[place] for place in folded],
        np.concatenate([former_keys[servable], number_of[keys[is_folded]]]),
        np.concatenate([former[:, servable], matrix[:, is_folded]], axis=1),
        len(present) - len(folded),
    )


def _append(
    cursor: RawCursor[Any],
    owner: tuple[int, int],
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
        [names[place] for place in places.tolist()],
        data,
        low[places].tolist(),
        high[places].tolist(),
        (starts[places] + 1).tolist(),
        sizes[places].tolist(),
        tail_bytes,
    )
    cursor.execute(_APPEND, (owner[0], Int2(owner[1]), *arguments), binary=True)
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
