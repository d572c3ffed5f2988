"""Rows of a world in Parquet: events as a producer would send them, and truth as label assertions; each sorted by time.

An event's row has no pins, but for an event of another run, which says whose it is: a run that streams a world gives it its own.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.columns import time_texts
from ofp_platform.vocabulary.world import WorldFile

FILE_ROWS = 250_000
_MOMENT = pa.timestamp("us", "UTC")
EVENT_SCHEMA = pa.schema(
    [
        pa.field("ts_utc", _MOMENT, nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("schema_version", pa.string(), nullable=False),
        pa.field("emitted_at_utc", _MOMENT),
        pa.field("arrived_at_utc", _MOMENT),
        pa.field("other_run", pa.string()),
        pa.field("amends", pa.string()),
        pa.field("payload", pa.string(), nullable=False),
    ]
)
"""`arrived_at_utc`: when a simulation or a history lets the record reach a log; `other_run`, `amends`, `payload`: RFC 8785."""
TRUTH_SCHEMA = pa.schema([pa.field("ts_utc", _MOMENT, nullable=False), pa.field("assertion", pa.string(), nullable=False)])
"""`ts_utc`: when it was observed; `assertion`: a LabelAssertion, RFC 8785."""


class WorldFault(Exception):
    """A world cannot be made, sealed or read; the text names the world, the object, and what to do."""


def sorted_files(output: str, parts: Sequence[pa.Table], schema: pa.Schema) -> Iterator[tuple[WorldFile, bytes]]:
    """The files of an output and their bytes: all rows by time, those of one microsecond as they came."""
    table = pa.concat_tables([part.cast(schema) for part in parts]) if parts else schema.empty_table()
    order = np.argsort(moments(table), kind="stable")
    for number, begin in enumerate(range(0, len(order), FILE_ROWS)):
        rows = table.take(pa.array(order[begin : begin + FILE_ROWS])).combine_chunks()
        buffer = io.BytesIO()
        pq.write_table(rows, buffer, compression="zstd", use_dictionary=["event_type", "schema_version"], write_statistics=False)
        content = buffer.getvalue()
        ts = moments(rows)
        first, last = time_texts(ts[[0, -1]])
        path = f"stream_view/{output}/part-{number:05d}.parquet"
        file = WorldFile(
            path=path,
            digest=sha256_hex(content),
            byte_count=len(content),
            rows=len(rows),
            first_ts_utc=first,
            last_ts_utc=last,
        )
        yield file, content


def read_rows(content: bytes, schema: pa.Schema) -> pa.Table:
    """The rows of a file.

    Raises:
        WorldFault: no Parquet, or of another schema.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise WorldFault(f"is no Parquet file: {str(error).partition(chr(10))[0]}") from None
    if not table.schema.equals(schema):
        raise WorldFault(f"has the columns {', '.join(table.schema.names)}, or types of them, that a world does not have")
    return table


def moments(table: pa.Table) -> npt.NDArray[np.int64]:
    """The times of the rows, int64[n], microseconds."""
    return np.asarray(pc.cast(table.column("ts_utc"), pa.int64()).to_numpy(), np.int64)


def moment_column(values: npt.NDArray[np.int64], absent: int | None = None) -> pa.Array:
    """Microseconds as a column of moments; null where a value is `absent`."""
    mask = None if absent is None else values == absent
    return pa.array(values, pa.int64(), mask=mask).cast(_MOMENT)


def file_faults(file: WorldFile, content: bytes, schema: pa.Schema) -> list[str]:
    """Faults against the manifest; nothing is looked into where the bytes are others."""
    if len(content) != file.byte_count or sha256_hex(content) != file.digest:
        return [f"{file.path}: its bytes are not those of the manifest (SHA-256 {sha256_hex(content)})"]
    try:
        table = read_rows(content, schema)
    except WorldFault as fault:
        return [f"{file.path}: {fault}"]
    if len(table) != file.rows:
        return [f"{file.path}: {len(table):,} rows, where the manifest says {file.rows:,}"]
    ts = moments(table)
    faults = []
    if (np.diff(ts) < 0).any():
        faults.append(f"{file.path}: its rows are not in the order of ts_utc")
    span = tuple(time_texts(np.array([ts.min(), ts.max()])))
    if span != (file.first_ts_utc, file.last_ts_utc):
        faults.append(f"{file.path}: its rows are of {span[0]} to {span[1]}, not of the span in the manifest")
    return faults


def texts(table: pa.Table, column: str) -> list[Any]:
    """The values of a column as Python has them."""
    values: list[Any] = table.column(column).to_pylist()
    return values
