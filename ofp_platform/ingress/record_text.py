"""Texts that were sent, read as records: one, lines, or a JSON array; compressed or not. What is none is told, never shown."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ofp_platform.ingress.gate import Sent
from ofp_platform.log.port import RecordRefusal, RefusalReason
from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json

ENCODINGS = ("gzip", "zstd")
"""How a text may be compressed."""


class TextRefused(Exception):
    """A text as a whole is no batch; the text of this says why, and shows nothing of it."""


class TextTooLarge(TextRefused):
    """It is larger than a batch may be, unpacked."""


def record_of(text: bytes) -> dict[str, Any] | RecordRefusal:
    """A text as a JSON object, or why it is none."""
    try:
        value = read_json(text)
    except NotIJson as error:
        return RecordRefusal(0, RefusalReason.NOT_I_JSON, str(error))
    except NotJson as error:
        return RecordRefusal(0, RefusalReason.INVALID_ENVELOPE, error.what)
    return value if isinstance(value, dict) else RecordRefusal(0, RefusalReason.INVALID_ENVELOPE, "not a JSON object")


def records_of_lines(text: bytes) -> list[Sent]:
    """One record a line, which a line feed ends; blank lines are none."""
    return [record_of(line) for line in text.split(b"\n") if line.strip()]


def records_of_array(text: bytes) -> list[Sent]:
    """The members of a JSON array.

    Raises:
        TextRefused: it is none.
    """
    try:
        values = read_json(text)
    except NotIJson as error:
        raise TextRefused(f"the body is not I-JSON: {error}") from None
    except NotJson as error:
        raise TextRefused(f"the body is {error.what}") from None
    if not isinstance(values, list):
        raise TextRefused("the body is no JSON array of events")
    not_object = RecordRefusal(0, RefusalReason.INVALID_ENVELOPE, "not a JSON object")
    return [value if isinstance(value, dict) else not_object for value in values]


def unpacked(text: bytes, encoding: str, most_bytes: int) -> bytes:
    """A text as it was before it was compressed; never more than `most_bytes` are unpacked.

    Raises:
        TextRefused: it is not compressed so, or cut off. TextTooLarge: see there. ValueError: no such encoding.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"{encoding!r} is none of {ENCODINGS}")
    try:
        with pa.CompressedInputStream(pa.BufferReader(text), encoding) as stream:
            content: bytes = stream.read(most_bytes + 1)
    except (pa.ArrowException, OSError):
        raise TextRefused(f"the body is not what {encoding} compresses to, or is cut off") from None
    if len(content) > most_bytes:
        raise TextTooLarge(f"the body is larger than {most_bytes} bytes, unpacked")
    return content
