"""Parity records in the database: appended once per request and snapshot, never changed."""

from __future__ import annotations

from collections.abc import Sequence

from ofp_platform.offline.store_outage import answering
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.offline.parity_record import ParityRecord
from ofp_platform.vocabulary.times import parse_time

_COLUMNS = "request_id, snapshot_hash, decision_id, outcome, reason, as_of, group_refs, record"


def store_records(pool: Pool, records: Sequence[ParityRecord]) -> int:
    """Append records; those that are there already stay as they are. How many were new.

    Raises:
        BuildRefused: STORE_UNAVAILABLE.
    """
    if not records:
        return 0
    with answering(), pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE compared ON COMMIT DROP AS SELECT {_COLUMNS} FROM ofp.parity_record LIMIT 0")
        with cursor.copy(f"COPY compared ({_COLUMNS}) FROM STDIN") as copy:
            for record in records:
                as_of = None if record.as_of_time_utc is None else parse_time(record.as_of_time_utc)
                groups = [f"{group.group_name} {group.group_version}" for group in record.feature_groups or ()]
                text = canonical_bytes(record.model_dump(mode="json", exclude_none=True)).decode()
                copy.write_row(
                    (
                        record.request_id,
                        record.feature_snapshot_hash,
                        record.decision_id or "",
                        record.outcome.value,
                        None if record.reason is None else record.reason.value,
                        as_of,
                        groups,
                        text,
                    )
                )
        return cursor.execute(
            f"INSERT INTO ofp.parity_record ({_COLUMNS}) SELECT {_COLUMNS} FROM compared ON CONFLICT DO NOTHING"
        ).rowcount
