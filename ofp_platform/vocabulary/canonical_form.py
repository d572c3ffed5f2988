"""Canonical text with places left open: what is fixed in an object is encoded once, what varies is put in.

A filled form is the canonical text of the object that has those values in those places.
"""

from __future__ import annotations

from typing import Any

import orjson

from ofp_platform.vocabulary.canonical import canonical_bytes

_MARK = "\0"  # canonical JSON never holds it bare


def placeholder(name: str) -> Any:
    """An open place, to stand anywhere in the object of a form where a value may stand."""
    return orjson.Fragment(f"{_MARK}{name}{_MARK}".encode())


def form(value: Any, *names: str) -> str:
    """A format string: `form(...) % (text, ...)` takes canonical texts in the order of `names`.

    Raises:
        ValueError: the places of the object, in the order of their canonical bytes, are others than `names`.
    """
    pieces = canonical_bytes(value).decode().split(_MARK)
    if pieces[1::2] != list(names):
        raise ValueError(f"the object has the places {pieces[1::2]}, not {list(names)}")
    return "%s".join(piece.replace("%", "%%") for piece in pieces[::2])
