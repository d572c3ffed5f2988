"""Labels beside rows: what the resolved assertions say about each, and whether more may still come."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ofp_platform.offline.labels.event_index import Column, IndexedLabels, event_hashes
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy, LabelBasis
from ofp_platform.vocabulary.times import parse_time

OBSERVED_TIME = pa.timestamp("us", tz="UTC")
LABEL_SCHEMA = pa.schema(
    [
        pa.field("label_value", pa.int64()),
        pa.field("label_observed_time", OBSERVED_TIME),
        pa.field("label_is_mature", pa.bool_(), nullable=False),
    ]
)
"""The label columns of a dataset. A value without an observed time is the policy's `unlabelled_means`."""


@dataclass(frozen=True)
class RowEvents:
    """The events of n rows: class and id (string[n]), time (int64[n], microseconds). An event may be that of several rows.

    Raises:
        ValueError: the columns differ in length.
    """

    classes: Column
    ids: Column
    times: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.classes) == len(self.ids) == len(self.times):
            raise ValueError(f"{len(self.ids)} event ids, but {len(self.classes)} classes and {len(self.times)} times")

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """uint64[n]: the hash of each event, made once for all that look labels up for these rows."""
        return event_hashes(self.classes, self.ids)


@dataclass(frozen=True)
class ResolvedLabels(IndexedLabels):
    """At most one assertion per event, as of `basis.as_of_utc`.

    `table`: event_class string, event_id string, value int64, observed_time timestamp[us, UTC], assertion_id string; by class
    and id.
    """

    basis: LabelBasis

    @property
    def digest(self) -> str:
        """SHA-256 over the ids of the assertions in the order of their events: other knowledge, another digest."""
        return hashlib.sha256("".join(self.table["assertion_id"].to_pylist()).encode("ascii")).hexdigest()

    @cached_property
    def last_heard_us(self) -> int | None:
        """The greatest observed time among them, microseconds: the source was heard of until then."""
        return pc.max(self.table["observed_time"].cast(pa.int64())).as_py()  # type: ignore[no-any-return]


def mature_rows(row_ts: NDArray[np.int64], basis: LabelBasis) -> NDArray[np.bool_]:
    """bool[n]: which rows (event times, int64[n] microseconds) are `maturity_seconds` old, or older, as of the basis."""
    # on the side of the as-of: a time far in the future plus the maturity would wrap
    return row_ts <= parse_time(basis.as_of_utc) - basis.maturity_seconds * 1_000_000


def label_columns(resolved: ResolvedLabels, events: RowEvents, policy: BuildPolicy) -> pa.Table:
    """The label columns (LABEL_SCHEMA) of n rows, in their order."""
    is_mature = mature_rows(events.times, resolved.basis)
    rows, assertions = resolved.index.find(events.classes, events.ids, events.hashes)
    places = np.full(len(events.ids), -1, np.int64)
    places[rows] = assertions
    assertion_index = pa.array(places, mask=places < 0)
    value = _whole(resolved.table["value"].take(assertion_index))
    if policy.unlabelled_means is not None:
        is_silent = pc.and_(pc.is_null(assertion_index), pa.array(is_mature))
        value = pc.if_else(is_silent, pa.scalar(policy.unlabelled_means, pa.int64()), value)
    observed_time = _whole(resolved.table["observed_time"].take(assertion_index))
    return pa.Table.from_arrays([value, observed_time, pa.array(is_mature)], schema=LABEL_SCHEMA)


def _whole(column: Column) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
