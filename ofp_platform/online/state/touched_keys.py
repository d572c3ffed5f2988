"""Which keys a commit touched, as serving processes read it: the commit sequence by which a cache follows a projection.

A mark is 8 bytes of a hash of the key. A commit of many keys tells buckets instead, in one bit each: 20 bits of a faster hash.
Two keys of one mark or bucket cost a cache a key that it need not have forgotten, nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise, repeat
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from psycopg import Connection

MOST_MARKS = 16_384
"""A commit that touches more keys tells their buckets: as many bytes as so many marks."""

BUCKETS = 1 << 20
"""Of all key types together. With 50,000 touched keys, a cache forgets one in twenty for nothing."""

KEPT_VERSIONS = 256
"""How far behind a cache may be and still follow."""

READ_SINCE = """
SELECT p.version, p.basis, p.watermark, t.version, t.marks, t.buckets
FROM ofp.projection AS p
LEFT JOIN ofp.commit_touched AS t ON t.projection_id = p.projection_id AND t.version > $2 AND t.version <= p.version
WHERE p.projection_id = $1
ORDER BY t.version
"""
"""With several shards a commit has a row of each of them; it is told when all of them have it."""


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


@dataclass(frozen=True)
class TouchedKeys:
    """The keys that a commit touched, by their marks or by their buckets; neither: any key may be among them."""

    marks: bytes | None = None
    buckets: bytes | None = None

    @classmethod
    def of(cls, key_ids: Mapping[str, Iterable[str]]) -> TouchedKeys:
        """Those of a commit, ids by key type."""
        ids = {key_type: set(part) for key_type, part in sorted(key_ids.items())}
        if sum(map(len, ids.values())) <= MOST_MARKS:
            return cls(marks=pack_marks((key_type, key_id) for key_type, part in ids.items() for key_id in sorted(part)))
        bits = np.zeros(BUCKETS, np.bool_)
        for key_type, part in ids.items():
            bits[key_buckets(key_type, part)] = True
        return cls(buckets=np.packbits(bits, bitorder="little").tobytes())


def key_bucket(key_type: str, key_id: str) -> int:
    """The bucket of a key: the lowest 20 bits of the CRC-32 of `type:id`."""
    return crc32(f"{key_type}:{key_id}".encode()) & (BUCKETS - 1)


def key_buckets(key_type: str, key_ids: Collection[str]) -> npt.NDArray[np.int64]:
    """`key_bucket` of each key of a type, int64[n]."""
    begun = crc32(f"{key_type}:".encode())
    return np.fromiter(map(crc32, map(str.encode, key_ids), repeat(begun)), np.int64, len(key_ids)) & (BUCKETS - 1)


def touched_buckets(content: bytes, buckets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether each of these buckets, int64[n], was touched."""
    is_touched: npt.NDArray[np.bool_] = (np.frombuffer(content, np.uint8)[buckets >> 3] >> (buckets & 7) & 1).astype(np.bool_)
    return is_touched


def record_touched(
    connection: Connection[Any], projection_id: int, version: int, touched_keys: Mapping[str, Iterable[str]], shard: int = 0
) -> None:
    """Record what a shard's part of the commit `version` touched (ids by key type), in its transaction.

    Shard 0, the last one to commit, forgets old versions, of all shards at once.
    """
    touched = TouchedKeys.of(touched_keys)
    connection.execute(
        "INSERT INTO ofp.commit_touched (projection_id, version, marks, buckets, shard) VALUES (%s, %s, %s, %s, %s)",
        (projection_id, version, touched.marks, touched.buckets, shard),
        binary=True,
    )
    if shard == 0:
        connection.execute(
            "DELETE FROM ofp.commit_touched WHERE projection_id = %s AND version <= %s", (projection_id, version - KEPT_VERSIONS)
        )


def without_gap(versions: Iterable[int], after: int, to: int) -> bool:
    """Whether the versions are every one of (after, to], in order; each of them may be there several times."""
    chain = [after, *dict.fromkeys(versions)]
    return chain[-1] == to and all(later == earlier + 1 for earlier, later in pairwise(chain))
