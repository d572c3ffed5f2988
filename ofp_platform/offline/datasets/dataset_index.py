"""Where published datasets are: rows that point to manifests. The manifests are the truth; a lost row can be written again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ofp_platform.offline.datasets.publication import DatasetDamaged, DatasetNotFound, check_same_dataset, load_manifest
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest, manifest_path


@dataclass(frozen=True)
class IndexedDataset:
    """One row. `superseded_by`: identities of the datasets that replace it, of which there should be one at most.

    `published_at_utc`: when the build recorded that it published it; None where this ledger knows no such build.
    """

    dataset_name: str
    dataset_identity: str
    manifest_path: str
    request_id: str
    supersedes: str | None
    superseded_by: tuple[str, ...]
    published_at_utc: str | None


class DatasetIndex:
    """The index in one database, of the datasets in one object store."""

    def __init__(self, pool: Pool, objects: ObjectStore) -> None:
        self._pool = pool
        self._objects = objects

    def add(self, manifest: DatasetManifest) -> None:
        """Point to a published manifest. Idempotent.

        Raises:
            BuildRefused: PUBLICATION_CONFLICT, the row of this dataset points to another manifest; STORE_UNAVAILABLE.
        """
        row = (
            manifest.dataset_name,
            manifest.dataset_identity,
            manifest_path(manifest.dataset_name, manifest.dataset_identity),
            manifest.digest,
            manifest.request_id,
            manifest.supersedes,
        )
        with answering(), self._pool.connection() as connection:
            connection.execute("INSERT INTO ofp.dataset_index VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING", row)
            stored_row = connection.execute(
                "SELECT dataset_name, dataset_identity, manifest_path, manifest_digest, request_id, supersedes"
                " FROM ofp.dataset_index WHERE (dataset_name, dataset_identity) = (%s, %s)",
                row[:2],
            ).fetchone()
        if stored_row != row:
            columns = ("manifest_path", "manifest_digest", "request_id", "supersedes")
            differing = [name for name, old, new in zip(columns, (stored_row or row)[2:], row[2:], strict=True) if old != new]
            raise BuildRefused(
                BuildReason.PUBLICATION_CONFLICT,
                f"the index has dataset {row[0]} {row[1]} with another {', '.join(differing)} than its published manifest: find"
                " out who writes to ofp.dataset_index, and correct the row",
            )

    def check_identity(self, manifest: DatasetManifest) -> None:
        """Check that what is published under another name with the identity of this dataset is the same dataset.

        Raises:
            BuildRefused: PUBLICATION_CONFLICT, it is not, or is damaged; STORE_UNAVAILABLE.
        """
        with answering(), self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT dataset_name FROM ofp.dataset_index WHERE dataset_identity = %s AND dataset_name <> %s ORDER BY 1",
                (manifest.dataset_identity, manifest.dataset_name),
            ).fetchall()
        for (name,) in rows:
            try:
                check_same_dataset(load_manifest(self._objects, name, manifest.dataset_identity), manifest)
            except DatasetNotFound:
                continue  # somebody removed it: the index only finds
            except DatasetDamaged as error:
                raise BuildRefused(BuildReason.PUBLICATION_CONFLICT, str(error)) from None
            except ObjectStoreUnavailable as error:
                raise BuildRefused(BuildReason.STORE_UNAVAILABLE, str(error)) from None

    def recorded_problems(self, manifest: DatasetManifest) -> list[str]:
        """Find where index and run ledger recorded another manifest of this dataset, or none, in words.

        Whoever can write to the object store can make files and a manifest that agree with each other.

        Raises:
            BuildRefused: STORE_UNAVAILABLE.
        """
        with answering(), self._pool.connection() as connection:
            row = connection.execute(
                "SELECT manifest_digest FROM ofp.dataset_index WHERE (dataset_name, dataset_identity) = (%s, %s)",
                (manifest.dataset_name, manifest.dataset_identity),
            ).fetchone()
            receipts = connection.execute(
                "SELECT DISTINCT content::jsonb ->> 'manifest_digest' FROM ofp.build_receipt"
                " WHERE (run_key, stage) = (%s, 'manifest') AND content::jsonb ->> 'dataset_identity' = %s",
                (manifest.request_id, manifest.dataset_identity),
            ).fetchall()
        return recorded_differences(manifest, None if row is None else row[0], [digest for (digest,) in receipts])

    def is_published(self, dataset_name: str, dataset_identity: str) -> bool:
        """Whether there is such a dataset, by its manifest.

        Raises:
            ObjectStoreUnavailable: see there.
        """
        try:
            load_manifest(self._objects, dataset_name, dataset_identity)
        except (DatasetNotFound, DatasetDamaged):
            return False
        return True

    def list(self, dataset_name: str | None = None) -> list[IndexedDataset]:
        """The published datasets, by name and identity.

        Raises:
            BuildRefused: STORE_UNAVAILABLE.
        """
        with answering(), self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT one.dataset_name, one.dataset_identity, one.manifest_path, one.request_id,"
                " one.supersedes, coalesce(array_agg(later.dataset_identity ORDER BY later.dataset_identity)"
                " FILTER (WHERE later.dataset_identity IS NOT NULL), '{}'),"
                " (SELECT to_char(min(recorded_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
                " FROM ofp.build_receipt WHERE (run_key, stage) = (one.request_id, 'manifest'))"
                " FROM ofp.dataset_index AS one LEFT JOIN ofp.dataset_index AS later"
                " ON later.dataset_name = one.dataset_name AND later.supersedes = one.dataset_identity"
                " WHERE one.dataset_name = coalesce(%s, one.dataset_name)"
                " GROUP BY one.dataset_name, one.dataset_identity ORDER BY one.dataset_name, one.dataset_identity",
                (dataset_name,),
            ).fetchall()
        return [
            IndexedDataset(name, identity, path, request, supersedes, tuple(later), published_at)
            for name, identity, path, request, supersedes, later, published_at in rows
        ]


def recorded_differences(manifest: DatasetManifest, index_digest: str | None, build_digests: Sequence[str]) -> list[str]:
    """Say in words where index (None: it has no row) and builds recorded another digest of this manifest, or none."""
    digest = manifest.digest
    problems = []
    if index_digest is None:
        problems.append("the index does not have this dataset")
    elif index_digest != digest:
        problems.append(f"the manifest has the digest {digest}, the index recorded {index_digest}")
    if not build_digests:
        problems.append(f"no build of this ledger recorded that it published this dataset (run {manifest.request_id})")
    problems += [
        f"the manifest has the digest {digest}, the build recorded {other}" for other in build_digests if other != digest
    ]
    return problems
