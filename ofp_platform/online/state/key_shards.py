"""Key shards: which of a projection's shards a key belongs to, how far each is, and another number of them.

Shard 0 moves with the row of the projection, in the same transaction; each of the others has a row of its own. They are at the
version of the projection, or one ahead of it, while the epoch of that version is open.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
from psycopg import Connection
from psycopg.errors import LockNotAvailable

from ofp_platform.online.state.epochs import read_epoch
from ofp_platform.online.state.projection import ProjectionConflict, ProjectionRow, read_projection
from ofp_platform.online.state.pruning import FIRST_PLACE, PruningPlace
from ofp_platform.online.state.touched_keys import record_touched
from ofp_platform.storage.notices import EPOCH_CHANNEL, PROJECTION_CHANNEL, send_notice
from ofp_platform.storage.postgres import Pool

MOST_SHARDS = 64
_LOCK_WAIT = "1s"
_LOOK_SECONDS = 0.05


class ShardRefused(Exception):
    """A shard that the projection does not have, or a number of shards that it cannot have; the text says which."""


@dataclass(frozen=True)
class KeyShard:
    """One of `count` shards of a projection, by its number from 0."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> KeyShard:
        """The shard that `I/S` names.

        Raises:
            ShardRefused: it names none.
        """
        number, _, count = text.partition("/")
        if not (
            text.isascii()
            and number.isdecimal()
            and count.isdecimal()
            and 1 <= int(count) <= MOST_SHARDS
            and int(number) < int(count)
        ):
            raise ShardRefused(f"{text!r} names no shard: expected I/S, shard I (from 0) of S, S at most {MOST_SHARDS}")
        return cls(int(number), int(count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def demand(self, row: ProjectionRow) -> None:
        """Refuse a projection that has another number of shards.

        Raises:
            ShardRefused: it has.
        """
        if row.shards != self.count:
            raise ShardRefused(
                f"projection {row.projection_id} has {row.shards} key shards since version {row.sharded_at}, not {self.count}:"
                f" start a process for each of 0/{row.shards} to {row.shards - 1}/{row.shards}, or change the number with"
                f" `ofp projection reshard {row.projection_id} {self.count}`"
            )


@dataclass(frozen=True)
class ShardRow:
    """How far a shard is, as the store has it. `pruned_to` and `pruning` as those of a projection."""

    shard: int
    version: int
    pruned_to: int | None
    pruning: PruningPlace | None


def shard_of(key_type: str, key_id: str, shards: int) -> int:
    """The shard of a key: its part of the range of the CRC-32 of `type:id`, cut into equal parts."""
    return crc32(f"{key_type}:{key_id}".encode()) * shards >> 32


def shards_of(key_type: str, key_ids: Collection[str], shards: int) -> npt.NDArray[np.int64]:
    """`shard_of` each key of a type, int64[n]."""
    crc = crc32(f"{key_type}:".encode())
    digests = np.fromiter(map(crc32, map(str.encode, key_ids), repeat(crc)), np.int64, len(key_ids))
    return digests * shards >> 32


Run = tuple[list[str], npt.NDArray[np.int64]]
"""New events: ids of their keys, int64[C, m] beside them."""
KeyEvents = Mapping[str, Sequence[Run]]
"""New events by key type."""


def of_shards(key_events: KeyEvents, shards: int, numbers: Collection[int]) -> KeyEvents:
    """The events of the keys of some shards, in their order."""
    is_own = np.zeros(shards, np.bool_)
    is_own[list(numbers)] = True
    own_events: dict[str, list[Run]] = {}
    for key_type, runs in key_events.items():
        for key_ids, matrix in runs:
            is_kept = is_own[shards_of(key_type, key_ids, shards)]
            if is_kept.any():
                ids = [key_id for key_id, keep in zip(key_ids, is_kept.tolist(), strict=True) if keep]
                own_events.setdefault(key_type, []).append((ids, matrix[:, is_kept]))
    return own_events


_COLUMNS = "shard, version, pruned_to, pruning_type, pruning_key, pruning_ts"


def read_shards(connection: Connection[Any], projection_id: int) -> dict[int, ShardRow]:
    """The shards of a projection but for shard 0, by their number."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM ofp.projection_shard WHERE projection_id = %s ORDER BY shard", (projection_id,)
    ).fetchall()
    return {row[0]: _row(row) for row in rows}


def lock_shard(connection: Connection[Any], projection_id: int, shard: int) -> ShardRow:
    """The row of a shard, locked until the transaction ends.

    Raises:
        ShardRefused: there is none.
    """
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM ofp.projection_shard WHERE projection_id = %s AND shard = %s FOR UPDATE", (projection_id, shard)
    ).fetchone()
    if row is None:
        raise ShardRefused(f"projection {projection_id} has no shard {shard}")
    return _row(row)


def lock_shards(connection: Connection[Any], projection_id: int) -> dict[int, int]:
    """Lock the rows of all shards but shard 0 until the transaction ends. Their versions, by number.

    Raises:
        ProjectionConflict: the process of a shard is at work.
    """
    connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
    try:
        rows = connection.execute(
            "SELECT shard, version FROM ofp.projection_shard WHERE projection_id = %s ORDER BY shard FOR UPDATE", (projection_id,)
        ).fetchall()
    except LockNotAvailable:
        raise ProjectionConflict(f"a shard of projection {projection_id} is at work in a process of its own") from None
    connection.execute("SET LOCAL lock_timeout = DEFAULT")
    return dict(rows)


def move_shards(connection: Connection[Any], projection_id: int, version: int, shard: int | None = None) -> None:
    """Bring a shard (None: all of them) to a version, in the transaction that applies it."""
    connection.execute(
        "UPDATE ofp.projection_shard SET version = %s WHERE projection_id = %s AND (%s::smallint IS NULL OR shard = %s)",
        (version, projection_id, shard, shard),
    )


def _row(row: tuple[Any, ...]) -> ShardRow:
    shard, version, pruned_to, *place = row
    return ShardRow(shard, version, pruned_to, None if place[0] is None else PruningPlace(*place))


def reshard(connection: Connection[Any], projection_id: int, shards: int) -> ProjectionRow:
    """Give a projection another number of shards from the next version on, which has the basis of the one before.

    No state moves: rows are those of their keys. Then, after the commit: a notice, as of a commit.

    Raises:
        ShardRefused: it cannot have so many. ProjectionConflict: an epoch is open, or a shard is at work; try again.
    """
    if not 1 <= shards <= MOST_SHARDS:
        raise ShardRefused(f"a projection has 1 to {MOST_SHARDS} key shards, not {shards}")
    with connection.transaction():
        row = read_projection(connection, projection_id, for_update=True)
        if row.shards == shards:
            return row
        epoch = read_epoch(connection, projection_id)
        versions = lock_shards(connection, projection_id)
        behind = [0, *(number for number, version in versions.items() if version == row.version)]
        if epoch is not None:
            raise ProjectionConflict(
                f"projection {projection_id}: epoch {epoch.version} is not applied yet by {shard_words(behind)}"
            )
        place = None if row.pruned_to is None else FIRST_PLACE
        pruning = (None, None, None) if place is None else (place.key_type, place.key_id, place.first_ts)
        version = row.version + 1
        connection.execute(
            "UPDATE ofp.projection SET version = %s, shards = %s, sharded_at = %s, pruning_type = %s, pruning_key = %s,"
            " pruning_ts = %s WHERE projection_id = %s",
            (version, shards, version, *pruning, projection_id),
        )
        connection.execute("DELETE FROM ofp.projection_shard WHERE projection_id = %s", (projection_id,))
        add_shards(connection, projection_id, shards, version, row.pruned_to)
        record_touched(connection, projection_id, version, {})
        return read_projection(connection, projection_id)


def reshard_in_time(pool: Pool, projection_id: int, shards: int, *, wait_seconds: float = 10.0) -> ProjectionRow:
    """`reshard`, again while an epoch is open or a shard at work, and tell of it.

    Raises:
        ShardRefused: as `reshard`. ProjectionConflict: the epoch was not applied in time.
    """
    deadline = time.monotonic() + wait_seconds
    with pool.connection() as connection:
        while True:
            try:
                row = reshard(connection, projection_id, shards)
            except ProjectionConflict as conflict:
                if time.monotonic() >= deadline:
                    raise ProjectionConflict(
                        f"{conflict}, and is not within {wait_seconds:g} s. Let its processes finish it, or stop them and let one"
                        " process do it (`ofp projector run`); then reshard again"
                    ) from None
                time.sleep(_LOOK_SECONDS)
                continue
            for channel in (PROJECTION_CHANNEL, EPOCH_CHANNEL):
                send_notice(connection, channel, str(projection_id))
            return row


def add_shards(connection: Connection[Any], projection_id: int, shards: int, version: int, pruned_to: int | None) -> None:
    """Add the rows of shards from 1 on; each goes through its keys again for the last pruning."""
    place = None if pruned_to is None else FIRST_PLACE
    pruning = (None, None, None) if place is None else (place.key_type, place.key_id, place.first_ts)
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ofp.projection_shard VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [(projection_id, number, version, pruned_to, *pruning) for number in range(1, shards)],
        )


def shard_words(numbers: Collection[int]) -> str:
    """Shards by their numbers, for people."""
    return f"shard{'s' if len(numbers) > 1 else ''} {', '.join(map(str, sorted(numbers)))}"
