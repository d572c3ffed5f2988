"""Where ranges end in a log whose offsets do not count records: a table of position tokens, grown by reading the log once.

The ordinal of a record is how many records of its partition stand before it, counted from the oldest that the log kept
when the ledger began. A log never changes, so everybody who grows the ledger writes the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.log.port import EventLog, LogError
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.position import order, place

_PAGE = 10_000


class RangeConflict(LogError):
    """The ledger has another end of a range than the log: two histories under one name."""


@dataclass(frozen=True)
class LedgerEntry:
    """The end of one range, as the text of a basis token."""

    end_offset: str
    records: int


@dataclass(frozen=True)
class Ledger:
    """The closed ranges of one partition, from number 0 on. `ended`: nothing is appended to the partition any more."""

    partition_id: str
    entries: tuple[LedgerEntry, ...]
    ended: bool


def grow_ledger(pool: Pool, log: EventLog, partition_id: str, range_size: int) -> Ledger:
    """Read the partition from the last known end to its head, record the ranges that closed, return all of them.

    Raises:
        PositionTrimmed: the log lost records behind the last known end; ranges can no longer be counted.
        RangeConflict: see there.
    """
    key = (log.stream_name, partition_id, range_size)
    with pool.connection() as connection:
        rows = connection.execute(
            "SELECT end_offset, records FROM ofp.range_end WHERE (stream_name, partition_id, range_size) = (%s, %s, %s)"
            " ORDER BY range_number",
            key,
        ).fetchall()
    entries = [LedgerEntry(*row) for row in rows]
    known = len(entries)
    kind = log.position_kind
    start = kind.start(partition_id)
    if entries:
        start = start.moved(kind.offset_kind.parse(entries[-1].end_offset))
    at = log.history.with_incarnation(start)
    count = 0
    while True:
        batch = log.read(partition_id, at, _PAGE)
        offsets = [*batch.offsets, *(record.offset for record in batch.unreadable)]
        for offset in sorted(offsets, key=order):
            count += 1
            if count == range_size:
                entries.append(LedgerEntry(str(kind.offset_kind.after(offset)), count))
                count = 0
        is_head = place(batch.next) == place(at)  # without a record, a batch may still pass over gaps
        at = batch.next
        if at.closed:
            if count:
                entries.append(LedgerEntry(str(at.offset), count))
            break
        if is_head:
            break
    if len(entries) > known:
        with pool.connection() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO ofp.range_end VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [(*key, number, entries[number].end_offset, entries[number].records) for number in range(known, len(entries))],
            )
            # another process may have been first: a log never changes, so it wrote the same
            stored_rows = cursor.execute(
                "SELECT range_number, end_offset, records FROM ofp.range_end WHERE (stream_name, partition_id, range_size)"
                " = (%s, %s, %s) AND range_number >= %s AND range_number < %s",
                (*key, known, len(entries)),
            ).fetchall()
        for number, end_offset, records in stored_rows:
            if LedgerEntry(end_offset, records) != entries[number]:
                raise RangeConflict(
                    f"range {number} of partition {partition_id} of {log.stream_name}, of {range_size} records, ends at"
                    f" {end_offset} with {records} records in ofp.range_end, and at {entries[number].end_offset} with"
                    f" {entries[number].records} in the log: it is not the log that was counted there"
                )
    return Ledger(partition_id, tuple(entries), at.closed)
