"""Snapshots by reference: an immutable object named by its hash, and an index row.

An object is a zstd frame of the canonical JSON `{kind, contract_version, feature_snapshot_hash, hashed}`; the SHA-256 of the
canonical bytes of `hashed` is its name. Written once; the first writer wins and every other writer finds the same bytes.
What a service served is stored many at a time, in served batches (served_batches.py): there the index row says where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import orjson
import psycopg

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.serving.served_batches import make_batch, record_of
from ofp_platform.storage.objects import ObjectNotFound, ObjectStore, ObjectStoreUnavailable
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.snapshot_records import (
    SnapshotDamaged,
    SnapshotMissing,
    compress,
    hashed_part,
    missing_words,
    read_record,
    snapshot_path,
)
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.errors import ContractError, Reason, not_found, unavailable
from ofp_platform.vocabulary.identity import ContextPins, readable_pins
from ofp_platform.vocabulary.offline.rebuilt_snapshot import RebuiltFeatureSnapshot, rebuilt_snapshot_path

# what a batch has in common is sent once
_INSERT_INDEX = """
INSERT INTO ofp.snapshot_index (pins_digest, registry_digest, run_config_digest, basis, snapshot_hash, as_of, reference)
SELECT %s, %s, %s, %s, r.* FROM json_to_recordset(%s::json) AS r (hash text, as_of bigint, reference text)
ON CONFLICT DO NOTHING
"""


_RUNS_OF = """
SELECT DISTINCT p.pins FROM ofp.snapshot_index i JOIN ofp.projection p USING (pins_digest) WHERE i.snapshot_hash = %s
"""
MayRead = Callable[[ContextPins], bool]


def _not_rebuilt(snapshot_hash: str) -> ContractError:
    return not_found(Reason.UNKNOWN_SNAPSHOT, f"no forensic rebuild gave snapshot {snapshot_hash}")


class SnapshotStore:
    """Writes and reads materialised snapshots. Safe for threads."""

    def __init__(self, pool: Pool, objects: ObjectStore) -> None:
        self._pool = pool
        self._objects = objects

    def materialise(self, answers: Iterable[Answer]) -> int:
        """Store answers and index them; idempotent. Returns how many were new here."""
        references = []
        created_count = 0
        for answer in answers:
            path = snapshot_path(answer.hash)
            created_count += self._objects.put_if_absent(path, compress(record_of(answer)))
            references.append((answer, path))
        self._index(references)
        return created_count

    def log(self, answers: Sequence[Answer]) -> None:
        """Store answers together, in one batch, and index them; idempotent."""
        if answers:
            path, frame, references = make_batch(answers)
            self._objects.put_if_absent(path, frame)
            self._index(references)

    def load(self, snapshot_hash: str, may_read: MayRead | None = None) -> bytes:
        """The record of a hash, verified against it; one of a run that may not be read is unknown. None: every run may be.

        Raises:
            ContractError: UNKNOWN_SNAPSHOT; SNAPSHOT_CORRUPT (the bytes are not what was written); STORE_DOWN.
        """
        try:
            record = read_record(self._pool, self._objects, snapshot_hash)
            if may_read is not None:
                pins = hashed_part(record, snapshot_hash)["context_pins"]
                if not may_read(ContextPins.model_validate(pins)):
                    raise SnapshotMissing(missing_words(snapshot_hash))
            return record
        except SnapshotMissing as error:
            raise not_found(Reason.UNKNOWN_SNAPSHOT, str(error)) from None
        except SnapshotDamaged as error:
            if may_read is not None and self._is_of_others(snapshot_hash, may_read):
                raise not_found(Reason.UNKNOWN_SNAPSHOT, missing_words(snapshot_hash)) from None
            raise unavailable(Reason.SNAPSHOT_CORRUPT, str(error)) from None
        except ObjectStoreUnavailable:
            raise unavailable(Reason.STORE_DOWN, "the object store does not answer") from None
        except psycopg.Error as error:
            if not is_transient(error):
                raise
            raise unavailable(Reason.STORE_DOWN, "the index of the snapshots does not answer") from None

    def _is_of_others(self, snapshot_hash: str, may_read: MayRead) -> bool:
        """Whether the index knows the runs of a snapshot that cannot be read itself, and none of them may be read."""
        with self._pool.connection() as connection:
            rows = connection.execute(_RUNS_OF, (snapshot_hash,)).fetchall()
        return bool(rows) and not any(may_read(ContextPins.model_validate_json(pins)) for (pins,) in rows)

    def load_rebuilt(self, snapshot_hash: str, may_read: MayRead | None = None) -> bytes:
        """The rebuild with that hash, as a forensic rebuild stored it, verified against the hash; as `load` otherwise.

        Raises:
            ContractError: UNKNOWN_SNAPSHOT; SNAPSHOT_CORRUPT (the bytes are not what was written); STORE_DOWN.
        """
        try:
            stored = self._objects.get(rebuilt_snapshot_path(snapshot_hash))
        except ObjectNotFound:
            raise _not_rebuilt(snapshot_hash) from None
        except ObjectStoreUnavailable:
            raise unavailable(Reason.STORE_DOWN, "the object store does not answer") from None
        pins = readable_pins(stored)
        if may_read is not None and pins is not None and not may_read(pins):
            raise _not_rebuilt(snapshot_hash)
        try:
            is_named = RebuiltFeatureSnapshot.model_validate_json(stored).feature_snapshot_hash == snapshot_hash
        except (ValueError, TypeError):
            is_named = False
        if not is_named:
            raise unavailable(Reason.SNAPSHOT_CORRUPT, f"the stored bytes of the rebuilt snapshot {snapshot_hash} are damaged")
        return stored

    def _index(self, references: Iterable[tuple[Answer, str]]) -> None:
        rows: dict[tuple[str, ...], dict[str, dict[str, str | int]]] = {}
        for answer, reference in references:
            group_rows = rows.setdefault((*answer.made_under, answer.basis), {})
            group_rows[answer.hash] = {"hash": answer.hash, "as_of": answer.as_of, "reference": reference}
        if rows:
            # in one order whoever writes: two services that served the same snapshots must not wait for each other
            with self._pool.connection() as connection, connection.transaction():
                for common, group_rows in sorted(rows.items()):
                    rows_json = orjson.dumps([group_rows[name] for name in sorted(group_rows)]).decode()
                    connection.execute(_INSERT_INDEX, (*common, rows_json))
