"""How a payload field of a declared type is decoded, and the value that stands for it where it is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from ofp_platform.registry.models import FieldType, Scalar
from ofp_platform.vocabulary.canonical import MAX_INTEGER

_Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]

DECODED_TYPES: Mapping[FieldType, Any] = {FieldType.INTEGER: _Integer, FieldType.STRING: str, FieldType.BOOLEAN: bool}
ZEROS: Mapping[FieldType, Scalar] = {FieldType.INTEGER: 0, FieldType.STRING: "", FieldType.BOOLEAN: False}
NOT_DECODED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors of a decoder whose payload is no I-JSON object of its fields."""
