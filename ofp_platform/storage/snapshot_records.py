"""Materialised snapshots as bytes: where they stand, how they are framed, and how they are read and verified.

An object is a frame of canonical JSON `{kind, contract_version, feature_snapshot_hash, hashed}`, or frames of many such records
one after another (a pack; then the index says where). The SHA-256 of the canonical bytes of `hashed` is a record's name.

A frame is the length of its data and that of it as zstd (4 bytes each, little-endian; the second is 0 where the frame is the
rest of the object), a SHA-256 (32 bytes) over both and what follows, and the data as zstd. The digest is there because zstd has
bits that no reader looks at: no byte of an object may change unnoticed. One record of a pack is read by its frame alone.

Whose a record is it says itself. An index row that names another run, or a reader of another run, has it refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

import orjson
import pyarrow as pa

from ofp_platform.storage.objects import ObjectNotFound, ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.canonical_form import form, placeholder
from ofp_platform.vocabulary.identity import ContextPins, pins_digest

SNAPSHOTS = "snapshots"
"""The folder of all stored snapshots."""
_CODEC = pa.Codec("zstd")
_LENGTH_BYTES = 8
_BITS = 32
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
    packed_bytes = bytes(_CODEC.compress(data, asbytes=True))
    length = (len(data) | len(packed_bytes) << _BITS).to_bytes(_LENGTH_BYTES, "little")
    return length + sha256(length + packed_bytes).digest() + packed_bytes


def decompress(frames: bytes) -> bytes:
    """The data of a frame, or of frames one after another.

    Raises:
        ValueError | OSError: not frames, or changed ones.
    """
    return b"".join(data for _, _, data in frames_of(frames))


def frames_of(frames: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The frames of an object: first byte, length and data of each.

    Raises:
        ValueError | OSError: not frames, or changed ones.
    """
    at = 0
    while at < len(frames) or not frames:
        length = frames[at : at + _LENGTH_BYTES]
        sizes = int.from_bytes(length, "little")
        size, packed_size = sizes & (1 << _BITS) - 1, sizes >> _BITS
        end = at + _HEAD_BYTES + packed_size if packed_size else len(frames)
        packed_bytes = frames[at + _HEAD_BYTES : end]
        if not packed_bytes or end > len(frames):
            raise ValueError(f"{len(frames) - at} bytes are no frame")
        if sha256(length + packed_bytes).digest() != frames[at + _LENGTH_BYTES : at + _HEAD_BYTES]:
            raise ValueError("the frame was changed after it was written")
        if size > _MOST_BYTES:
            raise ValueError(f"a frame of {size} bytes is above the limit")
        yield at, end - at, bytes(_CODEC.decompress(packed_bytes, size, asbytes=True))
        at = end


@dataclass(frozen=True, order=True)
class PackedPlace:
    """The place of a record in a pack: its bytes in the data of all frames, and the frame that holds it.

    `frame` is first byte and length of the frame in the object, `frame_begin` where its data begins, `size` that of the object;
    without a frame (of a pack that an earlier release wrote) the whole pack is read.
    """

    path: str
    begin: int
    length: int
    frame: tuple[int, int] | None = None
    frame_begin: int = 0
    size: int = 0

    @property
    def reference(self) -> str:
        """As the index has it; `place_in_pack` is the inverse."""
        before, after = packed_reference_parts(self.path, self.frame, self.frame_begin, self.size)
        return f"{before}{self.begin}+{self.length}{after}"

    def read(self, objects: ObjectStore) -> bytes:
        """The bytes there, of the one frame.

        Raises:
            ObjectNotFound | ObjectStoreUnavailable: see there. ValueError | OSError: no frame is there, or a changed one.
        """
        if self.frame is None:
            return decompress(objects.get(self.path))[self.begin :][: self.length]
        frame, size = objects.get_range(self.path, *self.frame)
        if size != self.size:
            raise ValueError(f"{self.path} has {size} bytes; {self.size} were written")
        data = decompress(frame)
        return data[self.begin - self.frame_begin :][: self.length]


def packed_reference_parts(path: str, frame: tuple[int, int] | None, frame_begin: int, size: int) -> tuple[str, str]:
    """Reference of a place in a pack: what stands before and after `{begin}+{length}` of the record; see `PackedPlace`."""
    return f"{path}#", "" if frame is None else f"/{frame[0]}+{frame[1]}/{frame_begin}/{size}"


def place_in_pack(reference: str) -> PackedPlace | None:
    """The place of a record in a pack; None: the reference is an object of its own.

    Raises:
        ValueError: it is no reference.
    """
    path, separator, place = reference.partition("#")
    if not separator:
        return None
    (begin, length), *rest = [tuple(map(int, part.split("+"))) for part in place.split("/")]
    if not rest:
        return PackedPlace(path, begin, length)
    (frame_at, frame_length), (frame_begin,), (size,) = rest
    return PackedPlace(path, begin, length, (frame_at, frame_length), frame_begin, size)


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


def read_record(pool: Pool, objects: ObjectStore, snapshot_hash: str, pins: ContextPins | None = None) -> bytes:
    """The record of a hash, verified against it, against the index, and against the run that it must be of; None: any.

    Raises:
        SnapshotMissing | SnapshotDamaged: see there; the second also of a record of another run.
        ObjectStoreUnavailable | psycopg.Error: the same call may be made again.
    """
    row = _index_rows(pool, [snapshot_hash]).get(snapshot_hash)
    try:
        try:
            record = _read(objects, snapshot_hash, row)
        except ObjectNotFound:
            row = row or _index_rows(pool, [snapshot_hash]).get(snapshot_hash)
            if row is None:
                raise SnapshotMissing(missing_words(snapshot_hash)) from None
            record = _read(objects, snapshot_hash, row)  # it may have been stored between the two looks
    except ObjectNotFound:
        raise SnapshotDamaged(f"the object of snapshot {snapshot_hash} is gone; the index knows it") from None
    except (ValueError, OSError):
        raise SnapshotDamaged(f"the stored bytes of snapshot {snapshot_hash} are damaged") from None
    _demand_own(hashed_part(record, snapshot_hash), snapshot_hash, row, pins)
    return record


_IndexRow = tuple[str, str]
"""Pins digest and reference."""


def _index_rows(pool: Pool, snapshot_hashes: Sequence[str]) -> dict[str, _IndexRow]:
    with pool.connection() as connection:
        query = "SELECT snapshot_hash, pins_digest, reference FROM ofp.snapshot_index WHERE snapshot_hash = ANY(%s)"
        rows = connection.execute(query, (list(snapshot_hashes),)).fetchall()
    return {name: (digest, reference) for name, digest, reference in rows}


@lru_cache(maxsize=64)
def _pins_from(text: bytes) -> ContextPins:
    # of many records they are the same
    return ContextPins.model_validate_json(text)


def _demand_own(hashed: dict[str, Any], snapshot_hash: str, row: _IndexRow | None, pins: ContextPins | None) -> None:
    """Refuse a record that is of another run than the index says of it, or than it must be of."""
    try:
        record_pins = _pins_from(orjson.dumps(hashed["context_pins"]))
    except (KeyError, TypeError, ValueError):
        raise SnapshotDamaged(f"snapshot {snapshot_hash} does not say of which run it is") from None
    if row is not None and pins_digest(record_pins) != row[0]:
        raise SnapshotDamaged(f"snapshot {snapshot_hash} is of run {record_pins.run_id}; the index has it for another one")
    if pins not in (None, record_pins):
        raise SnapshotDamaged(f"snapshot {snapshot_hash} is of run {record_pins.run_id} and its pins, not of the one asked about")


def read_records(
    pool: Pool, objects: ObjectStore, snapshot_hashes: Sequence[str], pins: ContextPins
) -> dict[str, dict[str, Any]]:
    """The hashed parts of the records of a run, each verified as by `read_record`; what is missing or damaged is left out.

    Raises:
        ObjectStoreUnavailable | psycopg.Error: the same call may be made again.
    """
    index_rows = _index_rows(pool, snapshot_hashes)
    places = {name: place for name, row in index_rows.items() if (place := _packed_place(row)) is not None}
    records: dict[str, bytes] = {}
    pack_path, pack = "", b""
    for name, place in sorted(places.items(), key=lambda item: item[1].path):
        if place.path != pack_path:
            try:
                pack_path, pack = place.path, decompress(objects.get(place.path))
            except (ObjectNotFound, ValueError, OSError):
                pack_path, pack = place.path, b""
        records[name] = pack[place.begin : place.begin + place.length]
    hashed: dict[str, dict[str, Any]] = {}
    own_pins, own_digest = pins.wire(), pins_digest(pins)
    for name in set(snapshot_hashes):
        try:
            record = records[name] if name in records else read_record(pool, objects, name, pins)
            part = hashed_part(record, name)
            row = index_rows.get(name)
            if row is None or row[0] != own_digest or part.get("context_pins") != own_pins:
                _demand_own(part, name, row, pins)  # it says in which way, or that it is the run's after all
            hashed[name] = part
        except (SnapshotMissing, SnapshotDamaged):
            continue
    return hashed


def _packed_place(row: _IndexRow) -> PackedPlace | None:
    try:
        return place_in_pack(row[1])
    except ValueError:
        return None


def _read(objects: ObjectStore, snapshot_hash: str, row: _IndexRow | None) -> bytes:
    """The object of that name, or else the place in a pack."""
    try:
        return decompress(objects.get(snapshot_path(snapshot_hash)))
    except ObjectNotFound:
        place = None if row is None else place_in_pack(row[1])
        if place is None:
            raise
    return place.read(objects)
