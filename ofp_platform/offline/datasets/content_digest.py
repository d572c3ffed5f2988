"""The content digest of a dataset: what its values are, not how they are stored.

For each column, in the order of the schema, three SHA-256 run over the rows in their order:

    validity  one byte a row: 1, or 0 for a null
    values    the values' bytes, little-endian: int64 and timestamps (microseconds) 8 bytes, decimal128 (unscaled, two's
              complement) 16 bytes, a boolean 1 byte, a string its UTF-8; a null: zeros, or nothing of a string
    lengths   strings and lists only: the length of each in bytes, of a list in items, 4 bytes little-endian, 0 for a null

A column of lists has no `values` but `items`: an entry as of a column, over the items of all lists one behind the other. Items
that are structs have no `values` but `fields`: such an entry for each field.

The digest is the SHA-256 of the RFC 8785 bytes of
`{"format": "ofp_dataset_content_v0", "rows": n, "columns": [{"name", "type", "validity", "values"[, "lengths"]}...]}`.
Blocks, files, row groups, encodings and compression are not part of it.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ofp_platform.vocabulary.canonical import digest_of

FORMAT = "ofp_dataset_content_v0"
_WIDTHS = {pa.int64(): 8, pa.timestamp("us", tz="UTC"): 8}


def type_name(kind: pa.DataType) -> str:
    """The name of a column type in the digest.

    Raises:
        TypeError: a type that a dataset may not have (a float, for one, has no canonical bytes here).
    """
    if kind in _WIDTHS or pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_decimal128(kind):
        return str(kind)
    if pa.types.is_list(kind):
        parts = [field.type for field in kind.value_type] if pa.types.is_struct(kind.value_type) else [kind.value_type]
        if not any(pa.types.is_nested(part) for part in parts) and all(map(type_name, parts)):
            return str(kind)
    raise TypeError(f"a dataset column is int64, decimal128, bool, string, timestamp[us, UTC] or a list of these, not {kind}")


class _ColumnHash:
    """The three hashes of one column."""

    def __init__(self, field: pa.Field) -> None:
        self.name = field.name
        self.kind = field.type
        self.type_name = str(field.type)
        self._validity = hashlib.sha256()
        self._values = hashlib.sha256()
        self._lengths = hashlib.sha256() if pa.types.is_string(field.type) or pa.types.is_list(field.type) else None
        self._items = _ColumnHash(field.type.value_field) if pa.types.is_list(field.type) else None
        self._fields = [_ColumnHash(part) for part in field.type] if pa.types.is_struct(field.type) else []

    def update(self, array: pa.Array) -> None:
        valid = pc.is_valid(array).to_numpy(zero_copy_only=False)
        self._validity.update(valid.view(np.uint8).data)
        if self._lengths is not None and self._items is not None:
            self._lengths.update(pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype("<u4").data)
            self._items.update(array.flatten())  # without what stands behind a null
        elif self._fields:
            for part, values in zip(self._fields, array.flatten(), strict=True):
                part.update(values)
        elif self._lengths is not None:
            values = pc.fill_null(array, "") if array.null_count else array
            self._lengths.update(pc.binary_length(values).to_numpy(zero_copy_only=False).astype("<u4").data)
            self._values.update(_text_bytes(values))
        elif pa.types.is_boolean(self.kind):
            values = pc.fill_null(array, False) if array.null_count else array
            self._values.update(values.to_numpy(zero_copy_only=False).view(np.uint8).data)
        else:
            self._values.update(_fixed_bytes(array, _WIDTHS.get(self.kind, 16), valid).data)

    def wire(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": self.name, "type": self.type_name, "validity": self._validity.hexdigest()}
        if self._items is not None:
            entry["items"] = self._items.wire()
        elif self._fields:
            entry["fields"] = [part.wire() for part in self._fields]
        else:
            entry["values"] = self._values.hexdigest()
        return entry if self._lengths is None else {**entry, "lengths": self._lengths.hexdigest()}


class ContentDigest:
    """Takes the rows of a dataset block by block; how they are cut changes nothing."""

    def __init__(self, schema: pa.Schema) -> None:
        """Raises TypeError for a column type that a dataset may not have."""
        for kind in schema.types:
            type_name(kind)
        self.schema = schema.remove_metadata()
        self.rows = 0
        self._columns = [_ColumnHash(field) for field in schema]

    def update(self, block: pa.Table | pa.RecordBatch) -> None:
        """Take the next rows.

        Raises:
            ValueError: their schema is another one.
        """
        if not block.schema.equals(self.schema, check_metadata=False):
            raise ValueError(f"a block has another schema:\n{block.schema}\ninstead of\n{self.schema}")
        table = pa.table(block) if isinstance(block, pa.RecordBatch) else block
        for index, column in enumerate(self._columns):
            column.update(table.column(index).combine_chunks())
        self.rows += table.num_rows

    def hexdigest(self) -> str:
        """The digest of the rows so far."""
        return digest_of(self.content())

    def content(self) -> dict[str, Any]:
        """The object whose RFC 8785 bytes are digested."""
        return {"format": FORMAT, "rows": self.rows, "columns": [column.wire() for column in self._columns]}


def _text_bytes(array: pa.Array) -> memoryview:
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    data = array.buffers()[2]
    return (
        memoryview(b"" if data is None or not len(array) else data)[int(offsets[0]) : int(offsets[-1])]
        if len(offsets)
        else memoryview(b"")
    )


def _fixed_bytes(array: pa.Array, width: int, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.empty(0, np.uint8)
    content = np.frombuffer(data, np.uint8)[array.offset * width : (array.offset + len(array)) * width]
    if valid.all():
        return content
    rows = content.reshape(len(array), width).copy()
    rows[~valid] = 0
    return rows.reshape(-1)
