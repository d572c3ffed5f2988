"""Publication: data first, manifest last, once."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.offline.datasets.publication import (
    DatasetDamaged,
    DatasetNotFound,
    LocalFile,
    load_manifest,
    name_files,
    publish_files,
    publish_manifest,
    verify_files,
)
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import DataFile, DatasetManifest, Gates, ReplayReceipt, manifest_path
from ofp_platform_tests.oracle.manifests import NAME, a_manifest

OTHER_GATES = {
    "gates": Gates(completeness=ReplayReceipt(records=10, applied=8, duplicates=1, failed=0, ignored=1), feature_rows_checked=15)
}
FATES = {"records": 10, "applied": 7, "duplicates": 1, "failed": 1, "ignored": 1}


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path / "objects"))


@pytest.fixture
def files(tmp_path: Path) -> list[LocalFile]:
    found = []
    for part in range(3):
        path = tmp_path / f"part-{part:05d}.parquet"
        path.write_bytes(bytes([part]) * (100 + part))
        found.append(LocalFile(path, 5))
    return found


def put(objects: ObjectStore, identity: str, files: list[LocalFile]) -> tuple[DataFile, ...]:
    named = name_files(NAME, identity, files)
    publish_files(objects, named, files[0].path.parent)
    return named


@pytest.fixture
def published(objects: ObjectStore, files: list[LocalFile]) -> DatasetManifest:
    manifest = a_manifest()
    named = put(objects, manifest.dataset_identity, files)
    return publish_manifest(objects, manifest.model_copy(update={"files": named}))


def folder(objects: ObjectStore) -> Path:
    return Path(objects.url)


def test_a_published_dataset_is_found_and_whole(objects: ObjectStore, published: DatasetManifest) -> None:
    assert load_manifest(objects, NAME, published.dataset_identity) == published
    assert verify_files(objects, published) == []
    assert len(objects.list("ofs")) == 4


def test_before_the_manifest_there_is_no_dataset(objects: ObjectStore, files: list[LocalFile]) -> None:
    manifest = a_manifest()
    put(objects, manifest.dataset_identity, files)
    with pytest.raises(DatasetNotFound):
        load_manifest(objects, NAME, manifest.dataset_identity)


def test_publishing_again_changes_nothing(objects: ObjectStore, published: DatasetManifest, files: list[LocalFile]) -> None:
    before = {path: objects.get(path) for path in objects.list("ofs")}
    again = put(objects, published.dataset_identity, files)
    assert again == published.files
    assert publish_manifest(objects, published) == published
    assert {path: objects.get(path) for path in objects.list("ofs")} == before


def test_the_same_data_from_another_request_converges(objects: ObjectStore, published: DatasetManifest) -> None:
    other = published.model_copy(update={"request_id": "f" * 64})
    assert publish_manifest(objects, other).request_id == published.request_id


def test_the_same_data_under_another_policy_converges(objects: ObjectStore, published: DatasetManifest) -> None:
    """A policy that changes a value is another `run_config_digest`, and so another identity; one that changes bounds is not."""
    other = published.model_copy(update={"policy_rev": f"7.{'f' * 64}"})
    assert publish_manifest(objects, other) == published


@pytest.mark.parametrize("change", [{"content_digest": "0" * 64}, {"row_count": 16}, {"supersedes": "1" * 64}, OTHER_GATES])
def test_other_content_under_one_identity_is_a_hard_conflict(
    objects: ObjectStore, published: DatasetManifest, change: dict[str, object]
) -> None:
    with pytest.raises(BuildRefused) as caught:
        publish_manifest(objects, published.model_copy(update=change))
    assert caught.value.reason is BuildReason.PUBLICATION_CONFLICT
    assert load_manifest(objects, NAME, published.dataset_identity) == published


def test_a_manifest_of_another_identity_than_its_fields_is_refused(objects: ObjectStore, files: list[LocalFile]) -> None:
    manifest = a_manifest()
    assert manifest.derived_identity == manifest.dataset_identity
    request = manifest.parity_request.model_copy(update={"anchors": 1})
    altered = manifest.model_copy(update={"parity_request": request, "files": put(objects, manifest.dataset_identity, files)})
    publish_manifest(objects, altered)
    with pytest.raises(DatasetDamaged, match="the identity is not that of the manifest's fields"):
        load_manifest(objects, NAME, manifest.dataset_identity)


def test_a_manifest_of_missing_files_is_refused(objects: ObjectStore, files: list[LocalFile]) -> None:
    manifest = a_manifest()
    named = put(objects, manifest.dataset_identity, files)
    (folder(objects) / named[1].path).unlink()
    with pytest.raises(BuildRefused, match="is not in the object store"):
        publish_manifest(objects, manifest.model_copy(update={"files": named}))
    assert not objects.exists(manifest_path(NAME, manifest.dataset_identity))


@given(st.data())
def test_any_flipped_byte_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    root = tmp_path_factory.mktemp("flip")
    objects = ObjectStore(str(root))
    source = root / "part-00000.parquet"
    source.write_bytes(bytes(range(200)))
    manifest = a_manifest()
    named = put(objects, manifest.dataset_identity, [LocalFile(source, 5)])
    manifest = publish_manifest(objects, manifest.model_copy(update={"files": named}))
    path = data.draw(st.sampled_from(objects.list("ofs")))
    content = bytearray((root / path).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (root / path).write_bytes(bytes(content))
    if path == manifest_path(NAME, manifest.dataset_identity):
        try:
            found = load_manifest(objects, NAME, manifest.dataset_identity)
        except DatasetDamaged:
            return
        # still a canonical manifest: it is another one, and its digest says so
        assert found.digest != manifest.digest
    else:
        assert [problem for problem in verify_files(objects, manifest) if path in problem]


def test_of_many_publishers_one_wins_and_all_agree(objects: ObjectStore, files: list[LocalFile]) -> None:
    start = threading.Barrier(8)
    outcomes: list[DatasetManifest] = []

    def publish(number: int) -> None:
        start.wait()
        manifest = a_manifest().model_copy(update={"request_id": f"{number:064x}"})
        named = put(objects, manifest.dataset_identity, files)
        outcomes.append(publish_manifest(objects, manifest.model_copy(update={"files": named})))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert len({outcome.request_id for outcome in outcomes}) == 1


def test_a_store_that_refuses_to_write_leaves_nothing(
    objects: ObjectStore, files: list[LocalFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, data: bytes) -> bool:
        raise ObjectStoreUnavailable("no space left on device")

    monkeypatch.setattr(objects, "put_if_absent", full)
    with pytest.raises(BuildRefused) as caught:
        put(objects, a_manifest().dataset_identity, files)
    assert caught.value.reason is BuildReason.STORE_UNAVAILABLE
    assert caught.value.retryable
    assert objects.list("ofs") == []


def test_a_store_that_cannot_be_written_is_named(objects: ObjectStore, files: list[LocalFile]) -> None:
    (folder(objects) / "ofs").write_text("a file where the folder should be")
    with pytest.raises(BuildRefused, match="the object store") as caught:
        put(objects, a_manifest().dataset_identity, files)
    assert caught.value.reason is BuildReason.STORE_UNAVAILABLE


def test_a_receipt_whose_records_have_no_fate_cannot_be_made() -> None:
    ReplayReceipt(**FATES)
    with pytest.raises(ValueError, match="no fate"):
        Gates(completeness=ReplayReceipt(**{**FATES, "applied": 6}), feature_rows_checked=0)


def test_local_files_are_named_by_all_files(objects: ObjectStore, files: list[LocalFile]) -> None:
    identity = a_manifest().dataset_identity
    first = put(objects, identity, files)
    fewer = put(objects, identity, [replace(files[0], rows=15)])
    assert first[0].sha256 == fewer[0].sha256
    assert first[0].path != fewer[0].path


def test_a_built_file_that_changed_is_not_published(objects: ObjectStore, files: list[LocalFile]) -> None:
    named = name_files(NAME, a_manifest().dataset_identity, files)
    files[1].path.write_bytes(b"something else")
    with pytest.raises(BuildRefused, match="was changed since it was built"):
        publish_files(objects, named, files[0].path.parent)
    files[1].path.unlink()
    with pytest.raises(BuildRefused, match="is gone"):
        publish_files(objects, named, files[0].path.parent)
