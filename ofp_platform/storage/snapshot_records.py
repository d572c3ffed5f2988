"""Materialised snapshots as bytes: where they stand, how they are framed, and how they are read and verified.

An object is a frame of canonical JSON `{kind, contract_version, feature_snapshot_hash, hashed}`, or of many such records one
after another (a pack; then the index says where). The SHA-256 of the canonical bytes of `hashed` is a record's name.

A frame is the length of its data (8 bytes, little-endian), a SHA-256 (32 bytes) over that length and what follows, and the data
as zstd. The digest is there because zstd has bits that no reader looks at: no byte of an object may change unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import orjson
import pyarrow as pa

from ofp_platform.storage.objects import ObjectNotFound, ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.canonical_form import form, placeholder

SNAPSHOTS = "snapshots"
"""The folder of all stored snapshots."""
_CODEC = pa.Codec("zstd")
_LENGTH_BYTES = 8
_HEAD_BYTES = _LENGTH_BYTES + 32
_MOST_BYTES = 1 << 30
_RECORD = (
    form(
        {
            "kind": "ofp_snapshot_record",
            "contract_version": "v0",
            "feature_snapshot_hash": placeholder("hash"),
            "hashed": placeholder("hashed"),
        },
        "hash",
        "hashed",
    )
    .replace("%s", '"%s"', 1)
    .encode()
)
_AROUND = _RECORD.split(b"%s")


class SnapshotMissing(Exception):
    """No snapshot of that hash was materialised here."""


class SnapshotDamaged(Exception):
    """The bytes stored under that hash are not those that were written."""


def missing_words(snapshot_hash: str) -> str:
    """How it is said that there is no such snapshot, or none for whoever asks."""
    return f"no snapshot {snapshot_hash} was materialised here"


def snapshot_path(snapshot_hash: str) -> str:
    """Where the object of a hash stands."""
    return f"{SNAPSHOTS}/{snapshot_hash[:2]}/{snapshot_hash}.json.zst"


def record_bytes(snapshot_hash: str, hashed_bytes: bytes) -> bytes:
    """The canonical bytes of a SnapshotRecord; `hashed`: those of what its hash is over."""
    return _RECORD % (snapshot_hash.encode("ascii"), hashed_bytes)


def compress(data: bytes) -> bytes:
    """A frame of the data; see the module."""
    length, packed_bytes = len(data).to_bytes(_LENGTH_BYTES, "little"), bytes(_CODEC.compress(data, asbytes=True))
    return length + sha256(length + packed_bytes).digest() + packed_bytes


def decompress(frame: bytes) -> bytes:
    """The inverse.

    Raises:
        ValueError | OSError: not a frame, or one that was changed.
    """
    length, packed_bytes = frame[:_LENGTH_BYTES], frame[_HEAD_BYTES:]
    if not packed_bytes:
        raise ValueError(f"{len(frame)} bytes are no frame")
    if sha256(length + packed_bytes).digest() != frame[_LENGTH_BYTES:_HEAD_BYTES]:
        raise ValueError("the frame was changed after it was written")
    size = int.from_bytes(length, "little")
    if size > _MOST_BYTES:
        raise ValueError(f"a frame of {size} bytes is above the limit")
    return bytes(_CODEC.decompress(packed_bytes, size, asbytes=True))


def place_in_pack(reference: str) -> tuple[str, int, int] | None:
    """Path, first byte and length of a record in a pack; None: the reference is an object of its own."""
    path, separator, place = reference.partition("#")
    if not separator:
        return None
    begin, _, length = place.partition("+")
    return path, int(begin), int(length)


def hashed_part(record: bytes, snapshot_hash: str) -> dict[str, Any]:
    """The hashed part of a record, held against its hash.

    Raises:
        SnapshotDamaged: it is no record of that hash.
    """
    hashed_object: dict[str, Any] = orjson.loads(_hashed_bytes(record, snapshot_hash))
    return hashed_object


def _hashed_bytes(record: bytes, snapshot_hash: str) -> bytes:
    """The bytes that the hash is over: those between what every record of that hash begins and ends with."""
    before, between, after = _AROUND
    begin = before + snapshot_hash.encode() + between
    hashed_text = record[len(begin) : -len(after)]
    if not (record.startswith(begin) and record.endswith(after) and sha256_hex(hashed_text) == snapshot_hash):
        raise SnapshotDamaged(f"the stored bytes of snapshot {snapshot_hash} are damaged")
    return hashed_text


def hashed_of_records(content: bytes) -> Iterator[tuple[int, int, str, dict[str, Any]]]:
    """The records of a frame's data: first byte, length, hash and hashed part of each, held against the hash.

    Raises:
        SnapshotDamaged: some of the data is no record.
    """
    before, _, after = _AROUND
    begin = 0
    while begin < len(content):
        # a quote inside a JSON text is escaped, so these bytes stand between two records and nowhere else
        join = content.find(after + before, begin)
        end = len(content) if join < 0 else join + len(after)
        record = content[begin:end]
        snapshot_hash = record[len(before) : len(before) + 64].decode("ascii", "replace")
        yield begin, end - begin, snapshot_hash, hashed_part(record, snapshot_hash)
        begin = end


def read_record(pool: Pool, objects: ObjectStore, snapshot_hash: str) -> bytes:
    """The record of a hash, verified against it.

    Raises:
        SnapshotMissing | SnapshotDamaged: see there.
        ObjectStoreUnavailable | psycopg.Error: the same call may be made again.
    """
    try:
        record = _read(pool, objects, snapshot_hash)
    except ObjectNotFound:
        if not _is_indexed(pool, snapshot_hash):
            raise SnapshotMissing(missing_words(snapshot_hash)) from None
        try:
            record = _read(pool, objects, snapshot_hash)  # it may have been stored between the two looks
        except ObjectNotFound:
            raise SnapshotDamaged(f"the object of snapshot {snapshot_hash} is gone; the index knows it") from None
    except (ValueError, OSError):
        raise SnapshotDamaged(f"the stored bytes of snapshot {snapshot_hash} are damaged") from None
    _hashed_bytes(record, snapshot_hash)
    return record


def _is_indexed(pool: Pool, snapshot_hash: str) -> bool:
    with pool.connection() as connection:
        query = "SELECT 1 FROM ofp.snapshot_index WHERE snapshot_hash = %s LIMIT 1"
        return connection.execute(query, (snapshot_hash,)).fetchone() is not None


def read_records(pool: Pool, objects: ObjectStore, snapshot_hashes: Sequence[str]) -> dict[str, bytes]:
    """The records of many hashes, each verified against it, by hash; what is missing or damaged is left out.

    Raises:
        ObjectStoreUnavailable | psycopg.Error: the same call may be made again.
    """
    with pool.connection() as connection:
        query = "SELECT snapshot_hash, reference FROM ofp.snapshot_index WHERE snapshot_hash = ANY(%s)"
        rows = connection.execute(query, (list(snapshot_hashes),)).fetchall()
    places = {name: place for name, reference in rows if (place := place_in_pack(reference)) is not None}
    records: dict[str, bytes] = {}
    pack_path, pack = "", b""
    for name, (path, begin, length) in sorted(places.items(), key=lambda item: item[1]):
        if path != pack_path:
            try:
                pack_path, pack = path, decompress(objects.get(path))
            except (ObjectNotFound, ValueError, OSError):
                pack_path, pack = path, b""
        records[name] = pack[begin : begin + length]
    for name in set(snapshot_hashes):
        try:
            if name in records:
                _hashed_bytes(records[name], name)
            else:
                records[name] = read_record(pool, objects, name)
        except (SnapshotMissing, SnapshotDamaged):
            records.pop(name, None)
    return records


def _read(pool: Pool, objects: ObjectStore, snapshot_hash: str) -> bytes:
    try:
        return decompress(objects.get(snapshot_path(snapshot_hash)))
    except ObjectNotFound:
        with pool.connection() as connection:
            row = connection.execute(
                "SELECT reference FROM ofp.snapshot_index WHERE snapshot_hash = %s", (snapshot_hash,)
            ).fetchone()
        place = None if row is None else place_in_pack(row[0])
        if place is None:
            raise
    path, begin, length = place
    return decompress(objects.get(path))[begin : begin + length]
