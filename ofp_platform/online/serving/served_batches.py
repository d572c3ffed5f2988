"""Served batches: the records of many served snapshots in one write-once object, each with its place in it.

A batch is the records' canonical bytes one after another, named by the SHA-256 of those bytes, in frames of FRAME_BYTES: one
record is read without the others' frames. An object per served snapshot would cost several times what the answer itself does (a
file, its flush and its folders' each time); the records of one service are also almost the same text.

Batches are made in a thread beside the one that answers. The two share the interpreter's lock, so answering waits for the work
done here for each answer. (The folder `packs` of the stored paths is older than the word.)
"""

from __future__ import annotations

from collections.abc import Iterable

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.storage.snapshot_records import SNAPSHOTS, compress, packed_reference_parts, record_bytes
from ofp_platform.vocabulary.canonical import sha256_hex

BATCHES = f"{SNAPSHOTS}/packs"
FRAME_BYTES = 128 << 10


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
    frames: list[bytes] = []
    frame_places: list[tuple[int, int, int, int, int]] = []
    begin = frame_at = first = 0
    while first < len(records):
        end, size = first, 0
        while end < len(records) and (not size or size + len(records[end]) <= FRAME_BYTES):
            size += len(records[end])
            end += 1
        frame = compress(content[begin : begin + size])
        frame_places.append((first, end, begin, frame_at, len(frame)))
        frames.append(frame)
        begin += size
        frame_at += len(frame)
        first = end
    references: list[tuple[Answer, str]] = []
    for first, end, frame_begin, frame_start, frame_length in frame_places:
        # the same for all records of a frame: the text is made by each record's share alone, in the time of whoever answers
        before, after = packed_reference_parts(path, (frame_start, frame_length), frame_begin, frame_at)
        begin = frame_begin
        for answer, record in zip(ordered_answers[first:end], records[first:end], strict=True):
            references.append((answer, f"{before}{begin}+{len(record)}{after}"))
            begin += len(record)
    return path, b"".join(frames), references
