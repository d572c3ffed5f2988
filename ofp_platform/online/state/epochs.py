"""Epochs: the version that all shards of a projection are to apply next, as one of them laid it down for all.

At most one epoch of a projection is open. Its row has what a shard cannot see in the records by itself: where the epoch ends,
its watermark, and which records are copies of events that are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import Connection

from ofp_platform.vocabulary.position import Basis, basis_text


@dataclass(frozen=True)
class PartitionFates:
    """The records of an epoch in one partition: their number (readable ones), and the places among them of those that are copies
    of known events, uint32, ascending, 4 bytes each, little-endian."""

    records: int
    duplicates: bytes = b""

    @classmethod
    def of(cls, records: int, duplicates: npt.NDArray[np.int64]) -> PartitionFates:
        """Pack the places, int64[n]."""
        return cls(records, duplicates.astype("<u4").tobytes())

    @property
    def duplicate_places(self) -> npt.NDArray[np.int64]:
        """The places, int64[n]."""
        return np.frombuffer(self.duplicates, "<u4").astype(np.int64)


@dataclass(frozen=True)
class Epoch:
    """One version as all shards apply it, from the basis of the version before on.

    `fates`: by partition, in the order of reading; of those that moved.
    """

    version: int
    basis: Basis
    watermark: int | None
    fates: Mapping[str, PartitionFates]


def read_epoch(connection: Connection[Any], projection_id: int) -> Epoch | None:
    """The epoch that is open, or None."""
    row = connection.execute(
        "SELECT version, basis, watermark, partition_ids, records, duplicates FROM ofp.epoch WHERE projection_id = %s",
        (projection_id,),
        binary=True,
    ).fetchone()
    if row is None:
        return None
    version, basis, watermark, names, records, duplicates = row
    parts = zip(names, records, duplicates, strict=True)
    fates = {name: PartitionFates(count, places) for name, count, places in parts}
    return Epoch(version, Basis.model_validate_json(basis), watermark, fates)


def open_epoch(connection: Connection[Any], projection_id: int, epoch: Epoch) -> None:
    """Record an epoch for all shards; there must be none."""
    connection.execute(
        "INSERT INTO ofp.epoch VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (
            projection_id,
            epoch.version,
            basis_text(epoch.basis),
            epoch.watermark,
            list(epoch.fates),
            [fates.records for fates in epoch.fates.values()],
            [fates.duplicates for fates in epoch.fates.values()],
        ),
    )


def close_epoch(connection: Connection[Any], projection_id: int) -> None:
    """Forget the open epoch, in the transaction that brings the projection to it: all shards have applied it."""
    connection.execute("DELETE FROM ofp.epoch WHERE projection_id = %s", (projection_id,))
