"""Publication of datasets: data first, manifest last, each put only if absent. A dataset without a manifest does not exist."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.objects import ObjectConflict, ObjectNotFound, ObjectStore, ObjectStoreUnavailable
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import DataFile, DatasetManifest, data_path, manifest_path

_OF_THE_PUBLICATION = frozenset({"dataset_name", "request_id", "replay_selected_by", "policy_rev", "supersedes", "files", "seal"})
"""Fields in which manifests of one identity may differ: how and where the dataset was asked for, its name, how it is stored."""


@dataclass(frozen=True)
class LocalFile:
    """A finished data file that is not published yet, and its rows."""

    path: Path
    rows: int


class DatasetNotFound(Exception):
    """There is no such published dataset."""


class DatasetDamaged(Exception):
    """The published bytes are not what the manifest says; the text names the object."""


def name_files(dataset_name: str, dataset_identity: str, files: Sequence[LocalFile]) -> tuple[DataFile, ...]:
    """Name the files as they will be published: paths, sizes, digests. Nothing is written."""
    digests = [_file_digest(file.path) for file in files]
    return tuple(
        DataFile(
            path=data_path(dataset_name, dataset_identity, digests, part),
            rows=file.rows,
            bytes=file.path.stat().st_size,
            sha256=digest,
        )
        for part, (file, digest) in enumerate(zip(files, digests, strict=True))
    )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish_files(objects: ObjectStore, data_files: Sequence[DataFile], folder: Path) -> None:
    """Put the files of `folder` (by the last part of their paths). Idempotent: what is there already is compared.

    Raises:
        BuildRefused: STORE_UNAVAILABLE (retryable); PUBLICATION_CONFLICT: an object of that path holds other bytes;
            REPLAY_INCOMPLETE: a built file is gone, or was changed since it was built.
    """
    for file in data_files:
        local = folder / Path(file.path).name
        if _is_published(objects, file):
            continue
        if not local.exists():
            message = f"the built file {local} is gone: build again (`ofp intent retry --rebuild`)"
            raise BuildRefused(BuildReason.REPLAY_INCOMPLETE, message)
        content = local.read_bytes()
        if sha256_hex(content) != file.sha256:
            message = f"the built file {local} was changed since it was built: build again (`ofp intent retry --rebuild`)"
            raise BuildRefused(BuildReason.REPLAY_INCOMPLETE, message)
        _put(objects, file.path, content)
        crash_point("publication.file_put")


def publish_manifest(objects: ObjectStore, manifest: DatasetManifest) -> DatasetManifest:
    """Put the manifest, if every file that it names is there. Returns the published one: another builder's, when that
    was first with the same data.

    Raises:
        BuildRefused: PUBLICATION_CONFLICT: the dataset was published with other content, or a file is missing or damaged;
            STORE_UNAVAILABLE (retryable).
    """
    for file in manifest.files:
        if not _is_published(objects, file):
            raise BuildRefused(BuildReason.PUBLICATION_CONFLICT, f"data file {file.path} is not in the object store")
    path = manifest_path(manifest.dataset_name, manifest.dataset_identity)
    crash_point("publication.before_manifest")
    try:
        if objects.put_if_absent(path, manifest.encoded()):
            return manifest
        published_manifest = load_manifest(objects, manifest.dataset_name, manifest.dataset_identity)
    except ObjectStoreUnavailable as error:
        raise BuildRefused(BuildReason.STORE_UNAVAILABLE, str(error)) from None
    except DatasetDamaged as error:
        raise BuildRefused(BuildReason.PUBLICATION_CONFLICT, str(error)) from None
    check_same_dataset(published_manifest, manifest)
    if published_manifest.supersedes != manifest.supersedes:
        raise BuildRefused(
            BuildReason.PUBLICATION_CONFLICT,
            f"dataset {manifest.dataset_name} {manifest.dataset_identity} is published, and supersedes"
            f" {published_manifest.supersedes or 'nothing'}: it cannot supersede {manifest.supersedes or 'nothing'} as well",
            "supersedes",
        )
    return published_manifest


def check_same_dataset(published_manifest: DatasetManifest, manifest: DatasetManifest) -> None:
    """Check that two manifests of one identity say the same: rows, columns, gates, and all that the identity is made of.

    Raises:
        BuildRefused: PUBLICATION_CONFLICT.
    """
    published_wire, own_wire = published_manifest.wire(), manifest.wire()
    differing = sorted(name for name in published_wire.keys() | own_wire.keys() if published_wire.get(name) != own_wire.get(name))
    if differing := [name for name in differing if name not in _OF_THE_PUBLICATION]:
        raise BuildRefused(
            BuildReason.PUBLICATION_CONFLICT,
            f"dataset {published_manifest.dataset_name} {manifest.dataset_identity} is published with another"
            f" {', '.join(differing)}: the same identity must give the same dataset, so one of the two builds is wrong",
        )


def load_manifest(objects: ObjectStore, dataset_name: str, dataset_identity: str) -> DatasetManifest:
    """The manifest of a published dataset.

    Raises:
        DatasetNotFound: there is none. DatasetDamaged: the object is no manifest of this dataset.
        ObjectStoreUnavailable: see there.
    """
    path = manifest_path(dataset_name, dataset_identity)
    try:
        content = objects.get(path)
    except ObjectNotFound:
        raise DatasetNotFound(
            f"no dataset {dataset_name} with identity {dataset_identity} is published in {objects.url}"
        ) from None
    try:
        manifest = DatasetManifest.model_validate_json(content)
    except ValidationError as error:
        raise DatasetDamaged(f"{path} is no manifest: {error.error_count()} errors, first {error.errors()[0]['msg']}") from None
    if manifest.derived_identity != manifest.dataset_identity:
        raise DatasetDamaged(f"{path}: the identity is not that of the manifest's fields; a release of another form wrote it")
    if manifest.encoded() != content or (manifest.dataset_name, manifest.dataset_identity) != (dataset_name, dataset_identity):
        raise DatasetDamaged(f"{path} holds the manifest of another dataset, or was altered")
    return manifest


def stored_files(objects: ObjectStore, manifest: DatasetManifest) -> Iterator[tuple[DataFile, bytes | str]]:
    """Each published file with its bytes, or with what is wrong with them, in words.

    Raises:
        ObjectStoreUnavailable: see there.
    """
    for file in manifest.files:
        try:
            content = objects.get(file.path)
        except ObjectNotFound:
            yield file, f"{file.path} is missing"
            continue
        digest = sha256_hex(content)
        if digest == file.sha256:
            yield file, content
        else:
            yield file, f"{file.path} is damaged: its SHA-256 is {digest}, the manifest says {file.sha256}"


def verify_files(objects: ObjectStore, manifest: DatasetManifest) -> list[str]:
    """Find what is wrong with the published files, in words; empty when all bytes are as they were built.

    Raises:
        ObjectStoreUnavailable: see there.
    """
    return [problem for _, problem in stored_files(objects, manifest) if isinstance(problem, str)]


def _is_published(objects: ObjectStore, file: DataFile) -> bool:
    try:
        stored_bytes = objects.get(file.path)
    except ObjectNotFound:
        return False
    except ObjectStoreUnavailable as error:
        raise BuildRefused(BuildReason.STORE_UNAVAILABLE, str(error)) from None
    if sha256_hex(stored_bytes) != file.sha256:
        raise BuildRefused(BuildReason.PUBLICATION_CONFLICT, f"data file {file.path} holds other bytes than were built")
    return True


def _put(objects: ObjectStore, path: str, content: bytes) -> None:
    try:
        objects.put_same(path, content)
    except ObjectConflict as error:
        raise BuildRefused(BuildReason.PUBLICATION_CONFLICT, str(error)) from None
    except ObjectStoreUnavailable as error:
        raise BuildRefused(BuildReason.STORE_UNAVAILABLE, str(error)) from None
