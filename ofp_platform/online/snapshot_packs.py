"""Packs: what a service served, many records in one write-once object, and where in it each record stands.

A pack is a zstd frame of the records' canonical bytes one after another, named by the SHA-256 of those bytes. An object per
served snapshot would cost several times what the answer itself does (a file, its flush and its folders' each time); the
records of one service are also almost the same text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import orjson

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.storage.snapshot_records import compress
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.times import parse_time


@dataclass(frozen=True)
class IndexRow:
    """One row of the snapshot index; `as_of` in microseconds, `reference` an object path or a place in a pack."""

    snapshot_hash: str
    pins_digest: str
    as_of: int
    basis: str
    graph_version: str | None
    registry_digest: str
    run_config_digest: str
    reference: str


class _Hashed(msgspec.Struct):
    """What the index needs of the hashed bytes; they are canonical, so their parts are too."""

    as_of_time_utc: str
    context_pins: msgspec.Raw
    input_basis: msgspec.Raw
    registry_digest: str
    run_config_digest: str
    graph_version: str | None = None


_HASHED = msgspec.json.Decoder(_Hashed)


def index_row(answer: Answer, reference: str) -> IndexRow:
    """The index row of an answer that is stored at `reference`."""
    parts = _HASHED.decode(answer.hashed)
    return IndexRow(
        answer.hash,
        sha256_hex(bytes(parts.context_pins)),
        parse_time(parts.as_of_time_utc),
        bytes(parts.input_basis).decode(),
        parts.graph_version,
        parts.registry_digest,
        parts.run_config_digest,
        reference,
    )


def record_of(answer: Answer) -> bytes:
    """The canonical bytes of an answer's SnapshotRecord."""
    return canonical_bytes(
        {
            "kind": "ofp_snapshot_record",
            "contract_version": "v0",
            "feature_snapshot_hash": answer.hash,
            "hashed": orjson.Fragment(answer.hashed),
        }
    )


def make_pack(answers: Iterable[Answer]) -> tuple[str, bytes, list[IndexRow]]:
    """Path and frame of a pack, and the index rows of its records, in the order of their hashes."""
    found: Sequence[Answer] = sorted({answer.hash: answer for answer in answers}.values(), key=lambda answer: answer.hash)
    records = [record_of(answer) for answer in found]
    content = b"".join(records)
    name = sha256_hex(content)
    path = f"snapshots/packs/{name[:2]}/{name}.zst"
    rows = []
    begin = 0
    for answer, record in zip(found, records, strict=True):
        rows.append(index_row(answer, f"{path}#{begin}+{len(record)}"))
        begin += len(record)
    return path, compress(content), rows
