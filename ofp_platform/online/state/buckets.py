"""The state of a projection in PostgreSQL: read the chunks that a batch touches, write them back.

A *bucket* is one chunk, or the empty state of a new key: the unit that new events are merged into. Bucket i of a key holds the
events from its first time up to the next chunk's first time; the first bucket of a key also takes what is older.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import Connection, RawCursor
from psycopg.types.numeric import Int2, Int8

from ofp_platform.vocabulary.identity import KeyType

Int64 = npt.NDArray[np.int64]
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
_DELETE = """
DELETE FROM ofp.chunk AS c USING unnest($3::text[], $4::bigint[]) AS k(key_id, first_ts)
WHERE c.projection_id = $1 AND c.key_type = $2 AND c.key_id = k.key_id COLLATE "C" AND c.first_ts = k.first_ts
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
    key_ids: Sequence[str],
    event_key: Int64,
    event_ts: Int64,
) -> Buckets:
    """The chunks that events (key index, time) fall into: the tail chunk of each key, and older ones where an event is older."""
    code = KEY_TYPE_CODES[key_type]
    blocks: dict[tuple[int, int], bytes | None] = {}
    tail = np.full(len(key_ids), np.iinfo(np.int64).min, np.int64)
    cursor = RawCursor(connection)
    cursor.execute(_TAILS, (projection_id, Int2(code), list(key_ids)), binary=True)
    for key, first_ts, block in cursor:
        blocks[(key, first_ts)] = block
        tail[key] = first_ts
    older = event_ts < tail[event_key]
    if older.any():
        pairs = np.unique(np.stack([event_key[older], event_ts[older]]), axis=1)
        cursor.execute(
            _CONTAINING,
            (projection_id, Int2(code), [key_ids[key] for key in pairs[0]], pairs[1].tolist(), (pairs[0] + 1).tolist()),
            binary=True,
        )
        for key, first_ts, block in cursor:
            blocks[(key, first_ts)] = block
    cursor.close()
    keys_with_chunks = {key for key, _ in blocks}
    for key in range(len(key_ids)):
        if key not in keys_with_chunks:
            blocks[(key, int(np.iinfo(np.int64).min))] = None
    bucket_order = sorted(blocks)
    keys = np.array([key for key, _ in bucket_order], np.int64)
    first = np.array([ts for _, ts in bucket_order], np.int64)
    newest = first >= tail[keys]
    return Buckets(keys, first, [blocks[bucket] for bucket in bucket_order], newest, _assign(keys, first, event_key, event_ts))


def _assign(bucket_key: Int64, bucket_first: Int64, event_key: Int64, event_ts: Int64) -> Int64:
    """Per event, the last bucket of its key that starts at or before it (else the key's first bucket)."""
    # order events and bucket starts together by (key, time); at equal times the bucket's start comes first
    count = len(bucket_key)
    keys = np.concatenate([bucket_key, event_key])
    times = np.concatenate([bucket_first, event_ts])
    order = np.lexsort((np.arange(len(keys)) >= count, times, keys))
    last = np.maximum.accumulate(np.where(order < count, order, -1))
    bucket_of = np.empty(len(keys), np.int64)
    bucket_of[order] = last
    first_of_key = np.searchsorted(bucket_key, event_key, side="left")
    return np.maximum(bucket_of[count:], first_of_key)


def replace_chunks(
    connection: Connection[Any],
    projection_id: int,
    key_type: str,
    old: tuple[list[str], list[int]],
    rows: Sequence[tuple[str, int, int, bytes, bytes]],
) -> None:
    """Delete the old chunks (key ids, first times) and copy in new rows (key id, first, last, summaries, block)."""
    code = KEY_TYPE_CODES[key_type]
    if old[0]:
        with RawCursor(connection) as deletion:
            deletion.execute(_DELETE, (projection_id, Int2(code), old[0], old[1]))
    if not rows:
        return
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY ofp.chunk (projection_id, key_type, key_id, first_ts, last_ts, summaries, block) FROM STDIN (FORMAT BINARY)"
        ) as copy,
    ):
        copy.set_types(["int8", "int2", "text", "int8", "int8", "bytea", "bytea"])
        for key_id, first_ts, last_ts, summaries, block in rows:
            copy.write_row((projection_id, code, key_id, Int8(first_ts), Int8(last_ts), summaries, block))
