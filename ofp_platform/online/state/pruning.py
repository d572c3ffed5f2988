"""Pruning: state that lies wholly behind the horizon goes, a few chunks and tails with each commit.

A pruning fixes its horizon when it begins and walks through the chunks in the order of their keys. A commit takes one step, as
long as its own work: it never scans the table, and only keys that lose something count as touched. What is pruned changes no
answer, so when it goes does not matter. Each key shard has a pruning of its own, which walks through all keys and takes those of
the shard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import Connection, RawCursor
from psycopg.types.numeric import Int2

from ofp_platform.online.state.buckets import KEY_TYPE_CODES

LEAST_STEP = 256
"""Chunks and tails looked at by a step, at least."""

_KEY_TYPES = {code: key_type for key_type, code in KEY_TYPE_CODES.items()}
_TAIL_PLACE = int(np.iinfo(np.int64).max)
"""Where a key's tail stands among its chunks: behind all of them."""
NEXT_CHUNKS = """
SELECT key_type, key_id, first_ts, last_ts FROM ofp.chunk
WHERE projection_id = $1 AND (key_type, key_id, first_ts) > ($2::smallint, $3::text COLLATE "C", $4::bigint)
ORDER BY key_type, key_id, first_ts LIMIT $5
"""
NEXT_TAILS = """
SELECT key_type, key_id, last_ts FROM ofp.tail
WHERE projection_id = $1 AND (key_type, key_id) {behind} ($2::smallint, $3::text COLLATE "C")
ORDER BY key_type, key_id LIMIT $4
"""
# each row is looked up by itself, as those of tails (`key_tails`)
_DELETE_CHUNKS = """
DELETE FROM ofp.chunk WHERE ctid = ANY (ARRAY(
    SELECT (
        SELECT ctid FROM ofp.chunk
        WHERE projection_id = $1 AND key_type = k.key_type AND key_id = k.key_id COLLATE "C" AND first_ts = k.first_ts
    ) FROM unnest($2::smallint[], $3::text[], $4::bigint[]) AS k(key_type, key_id, first_ts)
))
"""
_DELETE_OLD = """
DELETE FROM {table} WHERE ctid = ANY (ARRAY(
    SELECT old.ctid FROM unnest($2::smallint[], $3::text[]) AS k(key_type, key_id)
    CROSS JOIN LATERAL (
        SELECT ctid FROM {table}
        WHERE projection_id = $1 AND key_type = k.key_type AND key_id = k.key_id COLLATE "C" AND last_ts <= $4
        OFFSET 0
    ) AS old
))
"""


@dataclass(frozen=True)
class PruningPlace:
    """The last chunk that a pruning has looked at: code of its key type, key id, first event time (microseconds).

    A tail has the greatest time.
    """

    key_type: int
    key_id: str
    first_ts: int


FIRST_PLACE = PruningPlace(-1, "", 0)


_OF_PROJECTION = "UPDATE ofp.projection SET {} WHERE projection_id = %s AND %s = 0"
_OF_SHARD = "UPDATE ofp.projection_shard SET {} WHERE projection_id = %s AND shard = %s"
_PLACE = "pruning_type = %s, pruning_key = %s, pruning_ts = %s"


def begin_pruning(connection: Connection[Any], projection_id: int, horizon: int, shard: int = 0) -> None:
    """Prune to this horizon from now on. What is known of events behind it goes at once (`KnownIdentities.prune`)."""
    connection.execute(
        (_OF_SHARD if shard else _OF_PROJECTION).format(f"pruned_to = %s, {_PLACE}"),
        (horizon, FIRST_PLACE.key_type, FIRST_PLACE.key_id, FIRST_PLACE.first_ts, projection_id, shard),
    )


def pruning_step(
    connection: Connection[Any],
    projection_id: int,
    place: PruningPlace,
    horizon: int,
    chunk_count: int,
    shard: int = 0,
    is_own: Callable[[str, str], bool] | None = None,
) -> Mapping[str, list[str]]:
    """Look at the next chunks behind a place and delete those at or behind the horizon. The ids of their keys, by key type.

    `is_own`: whether a key, by type and id, is the shard's; without, each is.
    """
    key = (projection_id, Int2(place.key_type), place.key_id)
    tails_behind = NEXT_TAILS.format(behind=">" if place.first_ts == _TAIL_PLACE else ">=")
    with RawCursor(connection) as cursor:
        rows = cursor.execute(NEXT_CHUNKS, (*key, place.first_ts, chunk_count)).fetchall()
        tails = cursor.execute(tails_behind, (*key, chunk_count)).fetchall()
        rows += [(code, key_id, _TAIL_PLACE, last_ts) for code, key_id, last_ts in tails]
        rows = sorted(rows)[:chunk_count]  # the order of code points is that of the collation
        old_rows = [row for row in rows if row[3] <= horizon and (is_own is None or is_own(_KEY_TYPES[row[0]], row[1]))]
        keys = sorted({(code, key_id) for code, key_id, _, _ in old_rows})
        if old_rows:
            codes, key_ids, first_times, _ = map(list, zip(*old_rows, strict=True))
            cursor.execute(_DELETE_CHUNKS, (projection_id, codes, key_ids, first_times))
            names = ([code for code, _ in keys], [key_id for _, key_id in keys])
            for table in ("ofp.span", "ofp.tail"):
                cursor.execute(_DELETE_OLD.format(table=table), (projection_id, *names, horizon))
    following = rows[-1][:3] if len(rows) == chunk_count else (None, None, None)
    connection.execute(
        (_OF_SHARD if shard else _OF_PROJECTION).format(_PLACE),
        (*following, projection_id, shard),
    )
    pruned_keys: dict[str, list[str]] = {}
    for code, key_id in keys:
        pruned_keys.setdefault(_KEY_TYPES[code], []).append(key_id)
    return pruned_keys
