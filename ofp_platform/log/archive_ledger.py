"""The receipts that must be in the archive: noted in the database when they are written or proven, beside the objects themselves.

An archive alone cannot tell that a part of it is gone: nothing names what is absent. Here each receipt has a row that nobody
removes. What the log no longer keeps has to be archived as well, and something of each partition with a closed range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ofp_platform.log.archive_store import Archive
from ofp_platform.log.port import EventLog
from ofp_platform.log.ranges import ClosedRanges
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import place

_INSERT = """
    INSERT INTO ofp.archive_ledger (stream_name, partition_id, receipt_path, content_digest)
    SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::text[]) ON CONFLICT DO NOTHING"""
_SELECT = "SELECT partition_id, receipt_path, content_digest FROM ofp.archive_ledger WHERE stream_name = %s ORDER BY 1, 2"
_SHOWN = 5


def note_receipts(pool: Pool, archive: Archive, receipts: Iterable[ArchiveReceipt]) -> None:
    """Note receipts that are in the archive; of those that are noted already nothing changes."""
    rows = sorted((one.partition_id, archive.receipt_path(one.span), one.content_digest) for one in receipts)
    if rows:
        with pool.connection() as connection:
            connection.execute(_INSERT, (archive.stream_name, *map(list, zip(*rows, strict=True))))


def missing_receipts(pool: Pool, archive: Archive, present: Iterable[ArchiveReceipt] = ()) -> list[str]:
    """The noted receipts that are not in the archive, in words; and those among `present` that are not what was noted.

    Only names are listed: nothing is read again.

    Raises:
        ObjectStoreUnavailable: it does not answer.
    """
    digests = {archive.receipt_path(one.span): one.content_digest for one in present}
    with pool.connection() as connection:
        rows = connection.execute(_SELECT, (archive.stream_name,)).fetchall()
    noted: dict[str, dict[str, str]] = {}
    for partition_id, path, digest in rows:
        noted.setdefault(partition_id, {})[path] = digest
    words = []
    for partition_id, paths in noted.items():
        folder = archive.receipt_folder(partition_id)
        stored = set(archive.store.list(folder))
        gone = [path for path in paths if path not in stored]
        if len(gone) == len(paths):
            words.append(
                f"{folder} is gone from {archive.store.url}: {len(gone)} segments of partition {partition_id} were archived"
            )
        else:
            words += [f"{path} is gone from {archive.store.url}: it was archived" for path in gone[:_SHOWN]]
            words += [f"{folder}: {len(gone) - _SHOWN} receipts more are gone"] if len(gone) > _SHOWN else []
        words += [
            f"{path} in {archive.store.url} says other records than were archived there"
            for path, digest in paths.items()
            if digests.get(path, digest) != digest
        ]
    return words


def unarchived(log: EventLog, closed: Mapping[str, ClosedRanges], reaches: Mapping[str, PartitionSpan | None]) -> list[str]:
    """Records that should be archived and are not, in words: trimmed from the log, or of partitions without any segment.

    `reaches`: how far the segments of each partition join from its start.

    Raises:
        LogUnavailable: it does not answer.
    """
    words = []
    for floor in log.retention_floor().partitions:
        name, reach = floor.partition_id, reaches.get(floor.partition_id)
        where = f"partition {name} of {log.stream_name}"
        archived = floor.start() if reach is None else reach.end
        if floor.offset_kind.start_is_first and place(archived) < place(floor):
            words.append(
                f"{where}: the log begins at {floor.offset}, the archive ends at {archived.offset}: what is between is gone"
            )
        elif reach is None and (ranges := closed.get(name)) is not None and ranges.count:
            words.append(f"{where}: nothing is archived of its {ranges.count} closed ranges: `ofp archive run`")
    return words
