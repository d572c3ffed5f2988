"""Which keys a commit touched, as serving processes read it: the commit sequence by which a cache follows a projection.

A mark is 8 bytes of a hash of the key. Two keys of one mark cost a cache a key that it need not have forgotten, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
from psycopg import Connection

MOST_MARKS = 16_384
"""A commit that touches more keys says that any key may be among them."""

KEPT_VERSIONS = 256
"""How far behind a cache may be and still follow."""

READ_SINCE = """
SELECT p.version, p.basis, p.watermark, t.version, t.marks
FROM ofp.projection AS p
LEFT JOIN ofp.commit_touched AS t ON t.projection_id = p.projection_id AND t.version > $2 AND t.version <= p.version
WHERE p.projection_id = $1
ORDER BY t.version
"""


def key_mark(key_type: str, key_id: str) -> int:
    """The mark of a key, an int64."""
    return int.from_bytes(blake2b(f"{key_type}:{key_id}".encode(), digest_size=8).digest(), "little", signed=True)


def pack_marks(keys: Iterable[tuple[str, str]]) -> bytes:
    """Marks as stored: int64, 8 bytes each, little-endian."""
    return np.array([key_mark(*key) for key in keys], "<i8").tobytes()


def unpack_marks(content: bytes) -> list[int]:
    """The inverse."""
    marks: list[int] = np.frombuffer(content, "<i8").tolist()
    return marks


def record_touched(
    connection: Connection[Any], projection_id: int, version: int, touched_keys: Mapping[str, Iterable[str]] | None
) -> None:
    """Record what the commit `version` touched (ids by key type; None: anything), in its transaction; forget old versions."""
    marks: bytes | None = None
    if touched_keys is not None:
        keys = {(key_type, key_id) for key_type, ids in touched_keys.items() for key_id in ids}
        marks = pack_marks(sorted(keys)) if len(keys) <= MOST_MARKS else None
    connection.execute("INSERT INTO ofp.commit_touched VALUES (%s, %s, %s)", (projection_id, version, marks), binary=True)
    connection.execute(
        "DELETE FROM ofp.commit_touched WHERE projection_id = %s AND version <= %s", (projection_id, version - KEPT_VERSIONS)
    )


def without_gap(versions: Iterable[int], after: int, to: int) -> bool:
    """Whether the versions are every one of (after, to], in order."""
    chain = [after, *versions]
    return chain[-1] == to and all(later == earlier + 1 for earlier, later in pairwise(chain))
