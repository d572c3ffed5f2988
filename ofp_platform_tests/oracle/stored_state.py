"""The state that the store holds of keys: chunks and tails."""

from __future__ import annotations

from typing import Any

import numpy as np
from psycopg import Connection

from ofp_platform.kernel.native import Int64Array
from ofp_platform.online.state.buckets import KEY_TYPE_CODES
from ofp_platform.online.state.chunk_codec import unpack
from ofp_platform.online.state.tail_codec import read_tail
from ofp_platform.registry.compile import CompiledRegistry

STATE_TABLES = ("chunk", "tail")


def first_key(connection: Connection[Any]) -> str:
    """The least key id that has state."""
    row = connection.execute(
        "SELECT min(key_id) FROM (SELECT key_id FROM ofp.chunk UNION ALL SELECT key_id FROM ofp.tail) AS keys"
    ).fetchone()
    assert row is not None
    return str(row[0])


def stored_events(
    connection: Connection[Any], projection_id: int, registry: CompiledRegistry
) -> dict[tuple[str, str], Int64Array]:
    """(key type, key id) to int64[C, n], in the order of time; a tail stands behind its chunks and behind its own time."""
    parts: dict[tuple[str, str], list[Int64Array]] = {}
    for key_type, layout in registry.layouts.items():
        owner = (projection_id, KEY_TYPE_CODES[key_type])
        chunks = "SELECT key_id, block FROM ofp.chunk WHERE (projection_id, key_type) = (%s, %s) ORDER BY key_id, first_ts"
        for key_id, block in connection.execute(chunks, owner).fetchall():
            parts.setdefault((key_type, key_id), []).append(unpack(block))
        tails = "SELECT key_id, after_ts, last_ts, block FROM ofp.tail WHERE (projection_id, key_type) = (%s, %s)"
        for key_id, after_ts, last_ts, block in connection.execute(tails, owner).fetchall():
            before = parts.setdefault((key_type, key_id), [])
            assert all(matrix[0, -1] <= after_ts for matrix in before)
            if not block:
                assert last_ts == after_ts
                continue
            tail = read_tail(block, layout.column_count, ties=layout.ties)
            assert after_ts < tail[0, 0] <= tail[0, -1] <= last_ts
            before.append(tail)
    return {key: np.concatenate(matrices, axis=1) for key, matrices in parts.items() if matrices}
