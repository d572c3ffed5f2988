"""A world is what its seal says, or it is refused, with the object that is wrong and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from jsonschema import Draft202012Validator

from ofp_platform.api.contract_files import CONTRACTS
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.world import OutputRole, WorldMaker, WorldManifest
from ofp_platform.world import world_rows
from ofp_platform.world.world_rows import EVENT_SCHEMA, TRUTH_SCHEMA, WorldFault, moment_column, moments
from ofp_platform.world.world_store import OutputRows, list_worlds, open_world, seal_world, verify_world, write_world

MAKER = WorldMaker(maker="table", parameters={})
ASSERTION = LabelAssertion(
    event_class="swipe",
    event_id="e-1",
    label_type="fraud",
    value=1,
    effective_time_utc="2026-01-01T00:00:00Z",
    observed_time_utc="2026-01-02T00:00:00Z",
    source="desk",
)


def events(*times: int) -> pa.Table:
    """Events of those times, named by their place."""
    count = len(times)
    text = [f"e-{number}" for number in range(count)]
    nothing = pa.nulls(count, pa.string())
    moment, absent = moment_column(np.array(times, np.int64)), pa.nulls(count, pa.timestamp("us", "UTC"))
    columns = [moment, pa.array(text), pa.array(["swipe"] * count), pa.array(["v1"] * count), absent, absent, nothing, nothing]
    return pa.Table.from_arrays([*columns, pa.array(["{}"] * count)], schema=EVENT_SCHEMA)


def truth() -> pa.Table:
    content = canonical_bytes(ASSERTION.wire()).decode()
    return pa.Table.from_arrays([moment_column(np.array([5], np.int64)), pa.array([content])], schema=TRUTH_SCHEMA)


def outputs(*times: int) -> dict[str, OutputRows]:
    return {
        "labels": OutputRows(OutputRole.TRUTH, [truth()]),
        "swipes": OutputRows(OutputRole.BUSINESS_TRAFFIC, [events(*(times or (3, 1, 2, 1)))]),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def objects(folder: Path) -> ObjectStore:
    return ObjectStore(str(folder))


@pytest.fixture
def of_two_files(objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> WorldManifest:
    monkeypatch.setattr(world_rows, "FILE_ROWS", 3)
    manifest = write_world(objects, "w", MAKER, outputs())
    seal_world(objects, "w")
    return manifest


def test_rows_are_sorted_by_time_and_those_of_one_moment_stay_as_they_came(
    objects: ObjectStore, of_two_files: WorldManifest
) -> None:
    world = open_world(objects, "w")
    parts = list(world.events("swipes"))
    assert [part.num_rows for part in parts] == [3, 1]
    assert [name for part in parts for name in part.column("event_id").to_pylist()] == ["e-1", "e-3", "e-2", "e-0"]
    assert [time for part in parts for time in moments(part).tolist()] == [1, 1, 2, 3]
    assert world.manifest == of_two_files
    assert world.manifest.rows == 5
    swipes = world.manifest.outputs[1]
    assert [(file.rows, file.first_ts_utc, file.last_ts_utc) for file in swipes.files] == [
        (3, "1970-01-01T00:00:00.000001Z", "1970-01-01T00:00:00.000002Z"),
        (1, "1970-01-01T00:00:00.000003Z", "1970-01-01T00:00:00.000003Z"),
    ]
    assert verify_world(objects, "w").faults == ()


def test_what_is_stored_is_as_the_contracts_say(folder: Path, of_two_files: WorldManifest) -> None:
    for name in ("manifest", "seal"):
        schema = json.loads((CONTRACTS / f"world_{name}_v0.schema.json").read_text(encoding="utf-8"))
        Draft202012Validator(schema).validate(orjson.loads((folder / "oracle" / "w" / f"{name}.json").read_bytes()))


def test_truth_is_read_as_labels_and_never_as_events(objects: ObjectStore, of_two_files: WorldManifest) -> None:
    world = open_world(objects, "w")
    assert list(world.truth()) == [ASSERTION]
    with pytest.raises(WorldFault, match="labels is truth: it is read by the loader of labels alone"):
        list(world.events("labels"))
    with pytest.raises(WorldFault, match=r"no output swipe; its outputs are labels \(truth\), swipes \(business_traffic\)"):
        list(world.events("swipe"))


def test_a_world_without_truth_says_so(objects: ObjectStore) -> None:
    write_world(objects, "w", MAKER, {"swipes": outputs()["swipes"]})
    seal_world(objects, "w")
    with pytest.raises(WorldFault, match=r"holds no truth: its outputs are swipes \(business_traffic\)"):
        list(open_world(objects, "w").truth())


def test_a_call_that_is_made_again_changes_nothing(objects: ObjectStore, of_two_files: WorldManifest) -> None:
    assert write_world(objects, "w", MAKER, outputs()) == of_two_files
    assert seal_world(objects, "w")[1] is False


def test_another_world_of_that_name_is_refused(objects: ObjectStore, of_two_files: WorldManifest) -> None:
    with pytest.raises(WorldFault, match="another world of that name is there, and a world never changes"):
        write_world(objects, "w", MAKER, outputs(9))
    assert verify_world(objects, "w").faults == ()
    with pytest.raises(WorldFault, match="another world"):  # the same rows, made by another
        write_world(objects, "w", WorldMaker(maker="rings", parameters={}), outputs())


@pytest.mark.parametrize("name", ["", "W", "../w", "w/x", "9w", "w" * 64])
def test_a_name_that_is_none_is_refused(objects: ObjectStore, name: str) -> None:
    for call in (lambda: write_world(objects, name, MAKER, outputs()), lambda: open_world(objects, name)):
        with pytest.raises(WorldFault, match="is no name of a world"):
            call()


def test_nothing_is_no_world(objects: ObjectStore, folder: Path) -> None:
    with pytest.raises(WorldFault, match="there is no row to write"):
        write_world(objects, "w", MAKER, {})
    with pytest.raises(WorldFault, match="there is no row to write"):
        write_world(objects, "w", MAKER, {"swipes": OutputRows(OutputRole.BUSINESS_TRAFFIC, [EVENT_SCHEMA.empty_table()])})
    for call in (open_world, seal_world):
        with pytest.raises(WorldFault, match=r"there is no world w .*no manifest.json.*`ofp world list`"):
            call(objects, "w")
    assert len(verify_world(objects, "w").faults) == 2
    assert list_worlds(objects) == []


def test_what_has_no_seal_is_no_world_yet(objects: ObjectStore) -> None:
    write_world(objects, "w", MAKER, outputs())
    with pytest.raises(WorldFault, match=r"w is not sealed: `ofp world seal w`"):
        open_world(objects, "w")
    assert len(verify_world(objects, "w").faults) == 1
    ((name, manifest, seal),) = list_worlds(objects)
    assert (name, manifest is None, seal) == ("w", False, None)


def test_a_seal_without_a_manifest_is_no_world(objects: ObjectStore, folder: Path, of_two_files: WorldManifest) -> None:
    (folder / "oracle" / "w" / "manifest.json").unlink()
    with pytest.raises(WorldFault, match=r"there is no world w"):
        open_world(objects, "w")
    assert "no manifest.json" in " ".join(verify_world(objects, "w").faults)


def read_all(objects: ObjectStore) -> None:
    world = open_world(objects, "w")
    list(world.events("swipes"))
    list(world.truth())


def test_every_flipped_byte_is_found(objects: ObjectStore, folder: Path, of_two_files: WorldManifest) -> None:
    paths = sorted(path for path in (folder / "oracle" / "w").rglob("*") if path.is_file())
    assert len(paths) == 5
    for path in paths:
        content = path.read_bytes()
        for place in {0, len(content) // 2, len(content) - 1}:
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            faults = verify_world(objects, "w").faults
            assert any(path.name in fault for fault in faults), (path, place, faults)
            with pytest.raises(WorldFault):
                read_all(objects)
        path.write_bytes(content)
    assert verify_world(objects, "w").faults == ()


def rewritten(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    """The manifest with a change, and a seal of it, as somebody with the store in hand would write both."""
    path = folder / "oracle" / "w" / "manifest.json"
    content = orjson.loads(path.read_bytes())
    change(content)
    path.write_bytes(canonical_bytes(content))
    seal_path = path.with_name("seal.json")
    seal = orjson.loads(seal_path.read_bytes())
    seal_path.write_bytes(
        canonical_bytes({**seal, "manifest_digest": WorldManifest.model_validate_json(path.read_bytes()).digest})
    )


def test_a_manifest_that_says_other_than_its_files_is_refused(
    objects: ObjectStore, folder: Path, of_two_files: WorldManifest
) -> None:
    def claim(name: str, value: object) -> Callable[[dict[str, object]], None]:
        def change(content: dict[str, object]) -> None:
            content["outputs"][1]["files"][0][name] = value  # type: ignore[index]

        return change

    original = {path: path.read_bytes() for path in (folder / "oracle" / "w").glob("*.json")}
    for name, value, words in (
        ("rows", 2, "3 rows, where the manifest says 2"),
        ("last_ts_utc", "1970-01-01T00:00:01Z", "not of the span in the manifest"),
        ("byte_count", 7, "its bytes are not those of the manifest"),
    ):
        rewritten(folder, claim(name, value))
        assert words in " ".join(verify_world(objects, "w").faults)
        with pytest.raises(WorldFault, match=words):
            list(open_world(objects, "w").events("swipes"))
        for path, content in original.items():
            path.write_bytes(content)


def test_files_that_are_not_there_or_not_named_are_told(objects: ObjectStore, folder: Path, of_two_files: WorldManifest) -> None:
    view = folder / "oracle" / "w" / "stream_view"
    shutil.copy(view / "swipes" / "part-00000.parquet", view / "swipes" / "part-00002.parquet")
    assert verify_world(objects, "w").faults == ("stream_view/swipes/part-00002.parquet: is not named by the manifest",)
    (view / "swipes" / "part-00002.parquet").unlink()
    (view / "labels" / "part-00000.parquet").unlink()
    assert verify_world(objects, "w").faults == ("stream_view/labels/part-00000.parquet: is not there",)
    with pytest.raises(WorldFault, match="not as it was sealed: is not there"):
        list(open_world(objects, "w").truth())


def test_what_is_not_as_the_manifest_says_is_not_sealed(objects: ObjectStore, folder: Path) -> None:
    write_world(objects, "w", MAKER, outputs())
    path = folder / "oracle" / "w" / "stream_view" / "swipes" / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WorldFault, match=r"w is not sealed:\n  stream_view/swipes/part-00000.parquet: its bytes"):
        seal_world(objects, "w")
    assert not (folder / "oracle" / "w" / "seal.json").exists()


def test_a_seal_of_another_manifest_is_told(objects: ObjectStore, folder: Path, of_two_files: WorldManifest) -> None:
    path = folder / "oracle" / "w" / "seal.json"
    path.write_bytes(canonical_bytes({**orjson.loads(path.read_bytes()), "manifest_digest": "0" * 64}))
    with pytest.raises(WorldFault, match="its seal is of manifest 0000"):
        open_world(objects, "w")
    with pytest.raises(WorldFault, match="carries another seal"):
        seal_world(objects, "w")
    assert "seal.json: seals w with manifest 0000" in " ".join(verify_world(objects, "w").faults)


def test_a_text_that_is_not_canonical_is_somebody_elses(objects: ObjectStore, folder: Path, of_two_files: WorldManifest) -> None:
    path = folder / "oracle" / "w" / "manifest.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()), option=orjson.OPT_INDENT_2))
    with pytest.raises(WorldFault, match="is not the canonical text"):
        open_world(objects, "w")


def test_rows_that_are_no_assertions_are_refused(objects: ObjectStore) -> None:
    damaged = pa.Table.from_arrays([moment_column(np.array([5], np.int64)), pa.array(['{"value":1}'])], schema=TRUTH_SCHEMA)
    write_world(objects, "w", MAKER, {"labels": OutputRows(OutputRole.TRUTH, [damaged])})
    seal_world(objects, "w")
    with pytest.raises(WorldFault, match=r"w/stream_view/labels/part-00000.parquet: a row is no label assertion: event_class"):
        list(open_world(objects, "w").truth())
