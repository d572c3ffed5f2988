"""The published manifests of an object store, listed: for tests to look at. Nothing that builds or trains may choose by it."""

from collections.abc import Iterator

from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest

_MANIFESTS = "ofs/datasets"


def published_manifests(objects: ObjectStore, dataset_name: str | None = None) -> Iterator[DatasetManifest]:
    """All published manifests, or those of one dataset, by name and identity.

    Raises:
        DatasetDamaged: an object in the place of a manifest is none. ObjectStoreUnavailable: see there.
    """
    for path in objects.list(_MANIFESTS if dataset_name is None else f"{_MANIFESTS}/{dataset_name}"):
        parts = path.split("/")
        if len(parts) == 5 and parts[4] == "manifest.json":
            yield load_manifest(objects, parts[2], parts[3])
