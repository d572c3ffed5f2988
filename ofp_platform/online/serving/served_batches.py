"""Served batches: the records of many served snapshots in one write-once object, each with its place in it.

A batch is a zstd frame of the records' canonical bytes one after another, named by the SHA-256 of those bytes. An object per
served snapshot would cost several times what the answer itself does (a file, its flush and its folders' each time); the records
of one service are also almost the same text.

Batches are made in a thread beside the one that answers. The two share the interpreter's lock, so answering waits for the work
done here for each answer. (The folder `packs` of the stored paths is older than the word.)
"""

from __future__ import annotations

from collections.abc import Iterable

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.storage.snapshot_records import SNAPSHOTS, compress, record_bytes
from ofp_platform.vocabulary.canonical import sha256_hex

BATCHES = f"{SNAPSHOTS}/packs"


def record_of(answer: Answer) -> bytes:
    """The canonical bytes of an answer's SnapshotRecord."""
    return record_bytes(answer.hash, answer.hashed)


def make_batch(answers: Iterable[Answer]) -> tuple[str, bytes, list[tuple[Answer, str]]]:
    """Path and frame of a batch, and each answer with its reference (its place in the batch), in the order of their hashes."""
    distinct = {answer.hash: answer for answer in answers}
    ordered_answers = [distinct[name] for name in sorted(distinct)]
    records = [record_of(answer) for answer in ordered_answers]
    content = b"".join(records)
    name = sha256_hex(content)
    path = f"{BATCHES}/{name[:2]}/{name}.zst"
    references = []
    begin = 0
    for answer, record in zip(ordered_answers, records, strict=True):
        references.append((answer, f"{path}#{begin}+{len(record)}"))
        begin += len(record)
    return path, compress(content), references
