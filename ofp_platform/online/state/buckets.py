"""The state of a projection in PostgreSQL: read the chunks that a batch touches, write them back.

A *bucket* is one chunk, or the empty state of a new key: the unit that new events are merged into. Bucket i of a key holds the
events from its first time up to the next chunk's first time; the first bucket of a key also takes what is older.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from psycopg import Connection, RawCursor
from psycopg.types.numeric import Int2

from ofp_platform.kernel.native import IN1, NOTHING, OUT1, native
from ofp_platform.online.state.binary_rows import BigintArray, Column, TextArray, copy_rows
from ofp_platform.vocabulary.identity import KeyType

Int64 = npt.NDArray[np.int64]
_LOWEST = int(np.iinfo(np.int64).min)
KEY_TYPE_CODES: dict[str, int] = {name.value: code for code, name in enumerate(sorted(KeyType))}

_TAILS = """
SELECT k.ord - 1, c.first_ts, c.block
FROM unnest($3::text[]) WITH ORDINALITY AS k(key_id, ord)
JOIN LATERAL (
    SELECT first_ts, block FROM ofp.chunk
    WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C"
    ORDER BY first_ts DESC LIMIT 1
) AS c ON true
"""
_CONTAINING = """
SELECT DISTINCT ON (k.ord, c.first_ts) k.ord - 1, c.first_ts, c.block
FROM unnest($3::text[], $4::bigint[], $5::bigint[]) AS k(key_id, ts, ord)
JOIN LATERAL (
    (SELECT 0 AS later, first_ts, block FROM ofp.chunk
     WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C" AND first_ts <= k.ts
     ORDER BY first_ts DESC LIMIT 1)
    UNION ALL
    (SELECT 1, first_ts, block FROM ofp.chunk
     WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C" AND first_ts > k.ts
     ORDER BY first_ts LIMIT 1)
    ORDER BY later LIMIT 1
) AS c ON true
ORDER BY k.ord, c.first_ts
"""
# each row is looked up by itself, as those of tails (`key_tails`)
_DELETE = """
DELETE FROM ofp.chunk WHERE ctid = ANY (ARRAY(
    SELECT (
        SELECT ctid FROM ofp.chunk
        WHERE projection_id = $1 AND key_type = $2 AND key_id = k.key_id COLLATE "C" AND first_ts = k.first_ts
    ) FROM unnest($3::text[], $4::bigint[]) AS k(key_id, first_ts)
))
"""


@dataclass(frozen=True)
class Buckets:
    """The buckets of one key type that a batch touches, in the order of (key, first time).

    `key` int64[b] indexes the batch's keys; `first_ts` int64[b]; `blocks` packed chunks (None: a new key);
    `newest` bool[b]: the bucket is its key's last; `of_event` int64[m] says into which bucket each new event goes.
    """

    key: Int64
    first_ts: Int64
    blocks: list[bytes | None]
    newest: npt.NDArray[np.bool_]
    of_event: Int64


def read_buckets(
    connection: Connection[Any],
    projection_id: int,
    key_type: str,
    key_ids: Column,
    event_key: Int64,
    event_ts: Int64,
) -> Buckets:
    """The chunks that events (key index, time) fall into: the tail chunk of each key, and older ones where an event is older."""
    owner = (projection_id, Int2(KEY_TYPE_CODES[key_type]))
    newest_first = np.full(len(key_ids), _LOWEST, np.int64)
    with RawCursor(connection) as cursor:
        rows = cursor.execute(_TAILS, (*owner, TextArray.of(key_ids)), binary=True).fetchall()
        has_chunks = np.zeros(len(key_ids), np.bool_)
        for key, first_ts, _ in rows:
            newest_first[key] = first_ts
            has_chunks[key] = True
        older = event_ts < newest_first[event_key]
        if older.any():
            keys, times = np.unique(np.stack([event_key[older], event_ts[older]]), axis=1)
            arguments = (TextArray.of(key_ids.take(keys)), BigintArray.of(times), BigintArray.of(keys + 1))
            rows += cursor.execute(_CONTAINING, (*owner, *arguments), binary=True).fetchall()
    new_keys = np.flatnonzero(~has_chunks)
    blocks: list[bytes | None] = [block for _, _, block in rows] + [None] * len(new_keys)
    keys = np.concatenate([np.fromiter((key for key, _, _ in rows), np.int64, len(rows)), new_keys])
    first = np.full(len(keys), _LOWEST, np.int64)
    first[: len(rows)] = np.fromiter((first_ts for _, first_ts, _ in rows), np.int64, len(rows))
    order = np.lexsort((first, keys))
    keys, first = keys[order], first[order]
    # a key's newest chunk is read a second time where it is its first, and an event is older
    is_repeated = np.zeros(len(keys), np.bool_)
    is_repeated[1:] = (keys[1:] == keys[:-1]) & (first[1:] == first[:-1])
    order, keys, first = order[~is_repeated], keys[~is_repeated], first[~is_repeated]
    newest = first >= newest_first[keys]
    edges = np.searchsorted(keys, np.arange(len(key_ids) + 1))
    of_event = np.empty(len(event_key), np.int64)
    _assign(edges, first, event_key, np.ascontiguousarray(event_ts), of_event)
    return Buckets(keys, first, [blocks[index] for index in order.tolist()], newest, of_event)


@native(NOTHING(IN1, IN1, IN1, IN1, OUT1))
def _assign(edges: Int64, first: Int64, event_key: Int64, event_ts: Int64, of_event: Int64) -> None:
    """Per event, the last bucket of its key ([edges[key], edges[key + 1])) that starts at or before it, else its first."""
    for event in range(event_key.shape[0]):
        low = edges[event_key[event]]
        high = edges[event_key[event] + 1] - 1
        while low < high:
            middle = (low + high + 1) >> 1
            if first[middle] <= event_ts[event]:
                low = middle
            else:
                high = middle - 1
        of_event[event] = low


class ChunkTimes(NamedTuple):
    """int64[K] each: times of the first and last event of chunks, and of their newest amendment (None: no layout for any)."""

    first_ts: Int64
    last_ts: Int64
    amended_ts: Int64 | None = None


def replace_chunks(
    connection: Connection[Any],
    projection_id: int,
    key_type: str,
    old: tuple[Column, Int64],
    key_ids: Column,
    times: ChunkTimes,
    summaries: Int64,
    blocks: Column,
) -> None:
    """Delete the old chunks (key ids, first times) and copy in new rows; `summaries` int64[K, M, 11]."""
    code = KEY_TYPE_CODES[key_type]
    if len(old[0]):
        with RawCursor(connection) as deletion:
            deletion.execute(_DELETE, (projection_id, Int2(code), TextArray.of(old[0]), BigintArray.of(old[1])))
    rows = len(key_ids)
    columns = {
        "projection_id": Column.of_integers(np.full(rows, projection_id)),
        "key_type": Column.of_integers(np.full(rows, code), 2),
        "key_id": key_ids,
        "first_ts": Column.of_integers(times.first_ts),
        "last_ts": Column.of_integers(times.last_ts),
        "summaries": Column.of_rows(summaries),
        "block": blocks,
    }
    if times.amended_ts is not None:
        columns["amended_ts"] = Column.of_integers(times.amended_ts)
    copy_rows(connection, "ofp.chunk", columns)
