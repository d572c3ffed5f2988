"""Training from a manifest: models, scores and lineage, stored once."""

from collections.abc import Iterator
from datetime import date

import orjson
import pytest

from ofp_platform.learning.protocol import Protocol
from ofp_platform.learning.training import TrainingReport, train
from ofp_platform.learning.training_rows import Columns
from ofp_platform.offline.datasets.publication import DatasetDamaged, load_manifest
from ofp_platform.offline.runs.builder import build
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.offline.dataset_admission import DatasetNotAdmitted
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane

COLUMNS = Columns(card="account_id", amount="payload__amount_minor", event_time="event_time_utc")
PROTOCOL = Protocol(date(2026, 1, 5), training_days=3, delay_days=0, test_days=3)


@pytest.fixture(scope="module")
def world(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelledPlane]:
    made = LabelledPlane.prepare(module_dsn, tmp_path_factory.mktemp("training"))
    yield made
    made.plane.close()


@pytest.fixture(scope="module")
def manifest(world: LabelledPlane) -> DatasetManifest:
    build_context = world.build_context
    run = build(build_context, build_context.ledger.submit(world.intent()).run_key)
    assert run.outcome is not None, run.refusal
    return load_manifest(world.objects, run.outcome["dataset_name"], run.outcome["dataset_identity"])


def trained(world: LabelledPlane, manifest: DatasetManifest) -> TrainingReport:
    return train(world.objects, manifest, COLUMNS, PROTOCOL, trees=5, jobs=1)


def test_models_are_stored_with_their_lineage(world: LabelledPlane, manifest: DatasetManifest) -> None:
    report = trained(world, manifest)
    assert [model.name for model in report.models] == ["logistic_regression", "decision_tree_depth_2", "random_forest"]
    for model in report.models:
        assert sha256_hex(world.objects.get(model.path)) == model.sha256
        assert 0 <= model.scores.auc_roc <= 1
    lineage = orjson.loads(world.objects.get(report.lineage_path))
    assert lineage == report.lineage
    assert (lineage["manifest_digest"], lineage["content_digest"]) == (manifest.digest, manifest.content_digest)
    assert report.training_rows > 0
    assert report.test_rows > 0


def test_training_again_gives_the_same(world: LabelledPlane, manifest: DatasetManifest) -> None:
    first, second = trained(world, manifest), trained(world, manifest)
    assert [model.scores for model in first.models] == [model.scores for model in second.models]


def test_a_dataset_that_was_altered_is_not_trained_on(world: LabelledPlane, manifest: DatasetManifest) -> None:
    path = world.folder / "objects" / manifest.files[0].path
    good = path.read_bytes()
    try:
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(DatasetDamaged):
            trained(world, manifest)
    finally:
        path.write_bytes(good)


def test_a_dataset_that_is_not_admitted_is_refused(world: LabelledPlane, manifest: DatasetManifest) -> None:
    gates = manifest.gates.model_copy(update={"parity": None})
    with pytest.raises(DatasetNotAdmitted, match=r"GATE_MISSING.*: parity$"):
        trained(world, manifest.model_copy(update={"gates": gates}))


@pytest.mark.parametrize(
    ("kind", "words"),
    [("string", "a text"), ("list<element: int64 not null>", "a list"), ("list<element: string not null>", "a list")],
)
def test_a_text_or_a_list_is_no_input_and_is_refused_by_name(
    world: LabelledPlane, manifest: DatasetManifest, kind: str, words: str
) -> None:
    place = next(place for place, column in enumerate(manifest.columns) if column.role == "feature")
    text = manifest.columns[place].model_copy(update={"type": kind})
    columns = (*manifest.columns[:place], text, *manifest.columns[place + 1 :])
    with pytest.raises(DatasetNotAdmitted, match=f"SCHEMA_UNFIT: feature {text.name} is {words}"):
        trained(world, manifest.model_copy(update={"columns": columns}))
