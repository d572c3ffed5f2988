"""Published datasets of one run as lists show them, each held against what index and run ledger recorded.

Whose a dataset is, says its manifest; of one that cannot be read, the request that it was built for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from psycopg import Connection

from ofp_platform.offline.datasets.dataset_index import recorded_differences
from ofp_platform.offline.datasets.publication import DatasetDamaged, DatasetNotFound, load_manifest
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest, SkewTable
from ofp_platform.vocabulary.offline.overviews import DatasetEntry, DatasetState, PublishedDataset, SkewGist
from ofp_platform.vocabulary.times import format_time, to_micros

_ROWS = """
    SELECT published.dataset_name, published.dataset_identity, published.manifest_digest, published.request_id,
        published.supersedes,
        (SELECT coalesce(array_agg(later.dataset_identity ORDER BY later.dataset_identity), '{}') FROM ofp.dataset_index AS later
            WHERE later.dataset_name = published.dataset_name AND later.supersedes = published.dataset_identity),
        (SELECT min(recorded_at) FROM ofp.build_receipt WHERE (run_key, stage) = (published.request_id, 'manifest')),
        (SELECT coalesce(array_agg(DISTINCT content::jsonb ->> 'manifest_digest'), '{}') FROM ofp.build_receipt
            WHERE (run_key, stage) = (published.request_id, 'manifest')
            AND content::jsonb ->> 'dataset_identity' = published.dataset_identity),
        (SELECT intent::jsonb -> 'context_pins' = %(pins)s::jsonb FROM ofp.build_run WHERE run_key = published.request_id)
    FROM ofp.dataset_index AS published"""
_PAGE = f"""{_ROWS}
    WHERE (published.dataset_name, published.dataset_identity) > (%(name)s, %(identity)s)
    ORDER BY published.dataset_name, published.dataset_identity LIMIT %(limit)s"""
_ONE = f"{_ROWS} WHERE (published.dataset_name, published.dataset_identity) = (%(name)s, %(identity)s)"


@dataclass(frozen=True)
class DatasetPage:
    """Entries, and the name and identity behind which the list goes on; None: it does not."""

    entries: tuple[DatasetEntry, ...]
    behind: tuple[str, str] | None


def list_datasets(
    connection: Connection[Any], objects: ObjectStore, pins: ContextPins, limit: int, behind: tuple[str, str] = ("", "")
) -> DatasetPage:
    """The datasets of a run among the next `limit` of the index; fewer, where others stand between them.

    Raises:
        ObjectStoreUnavailable: see there.
    """
    name, identity = behind
    arguments = {"pins": _json(pins), "name": name, "identity": identity, "limit": limit + 1}
    rows = connection.execute(_PAGE, arguments).fetchall()
    published = (_published(objects, pins, row) for row in rows[:limit])
    entries = tuple(dataset.entry for dataset in published if dataset is not None)
    return DatasetPage(entries, (rows[limit - 1][0], rows[limit - 1][1]) if len(rows) > limit else None)


def find_dataset(
    connection: Connection[Any], objects: ObjectStore, pins: ContextPins, name: str, identity: str
) -> PublishedDataset | None:
    """One dataset of a run; None: it has none of that name and identity.

    Raises:
        ObjectStoreUnavailable: see there.
    """
    row = connection.execute(_ONE, {"pins": _json(pins), "name": name, "identity": identity}).fetchone()
    return None if row is None else _published(objects, pins, row)


def _json(pins: ContextPins) -> str:
    return canonical_bytes(pins.wire()).decode()


def _published(objects: ObjectStore, pins: ContextPins, row: tuple[Any, ...]) -> PublishedDataset | None:
    name, identity, recorded_digest, request_id, supersedes, superseded_by, published_at, receipts, is_requested_here = row
    manifest: DatasetManifest | None = None
    problems = []
    try:
        manifest = load_manifest(objects, name, identity)
    except (DatasetNotFound, DatasetDamaged) as error:
        problems.append(str(error))
    if not is_requested_here if manifest is None else manifest.context_pins != pins:
        return None
    state: Literal["AS_RECORDED", "DIFFERS", "UNREADABLE"] = "UNREADABLE"
    if manifest is not None:
        problems += recorded_differences(manifest, recorded_digest, receipts)
        state = "DIFFERS" if problems else "AS_RECORDED"
    entry = DatasetEntry(
        dataset_name=name,
        dataset_identity=identity,
        request_id=request_id,
        published_at_utc=None if published_at is None else format_time(to_micros(published_at)),
        supersedes=supersedes,
        superseded_by=tuple(superseded_by),
        manifest=DatasetState(state=state, problems=tuple(problems)),
        **({} if manifest is None else _fields(manifest)),
    )
    return PublishedDataset(entry=entry, manifest=manifest)


def _fields(manifest: DatasetManifest) -> dict[str, Any]:
    return {
        "purpose": manifest.purpose,
        "as_of_basis": manifest.as_of_basis,
        "rows": manifest.row_count,
        "columns": len(manifest.columns),
        "bytes": sum(file.bytes for file in manifest.files),
        "feature_pack": manifest.feature_pack,
        "label_type": None if manifest.label_basis is None else manifest.label_basis.label_type,
        "policy_rev": manifest.policy_rev,
        "skew": None if manifest.skew is None else _gist(manifest.skew),
    }


def _gist(table: SkewTable) -> SkewGist:
    differing = [name for name, skew in table.features.items() if skew.differing]
    worst = max(differing, key=lambda name: table.features[name].differing / table.features[name].compared, default=None)
    return SkewGist(
        decisions=table.decisions,
        compared=table.compared,
        features=len(table.features),
        differing_features=len(differing),
        worst_feature=worst,
        worst_differing=0 if worst is None else table.features[worst].differing,
        worst_compared=0 if worst is None else table.features[worst].compared,
    )
