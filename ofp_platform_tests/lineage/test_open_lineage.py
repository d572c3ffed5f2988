"""Events of OpenLineage: made of what is stored alone, with the digests as facets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from ofp_platform.bundles.bundle_file import BundleFile, bundle_source, make_bundle, read_bundle_file
from ofp_platform.bundles.model_provenance import learned_from
from ofp_platform.bundles.trained_model import ModelRefused
from ofp_platform.lineage.open_lineage import PRODUCER, bundle_event, dataset_event, run_id
from ofp_platform.lineage.sending import event_text
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleModel, Provenance
from ofp_platform.vocabulary.loop.exact_model import ExactModel
from ofp_platform.vocabulary.offline.model_lineage import ModelLineage
from ofp_platform_tests.bundles.trained import model_of, report_of
from ofp_platform_tests.oracle.manifests import a_manifest

AT = "2026-02-01T00:00:00Z"
STORE = "s3://bucket/plane"
PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="m", parameter_hash="p")
MODEL = model_of({"source": "payload", "field": "amount_minor", "scale": 0})
REPORT = report_of(MODEL, manifest_digest="3" * 64)


def content(event: Any) -> dict[str, Any]:
    return orjson.loads(event_text(event))


def test_the_build_of_a_dataset() -> None:
    manifest = a_manifest()
    event = content(dataset_event(manifest, STORE, AT))
    assert (event["eventType"], event["eventTime"], event["producer"]) == ("COMPLETE", AT, PRODUCER)
    assert event["job"] == {"namespace": "ofp", "name": f"build/{manifest.dataset_name}", "facets": {}}
    assert event["run"]["runId"] == run_id(manifest.digest)
    assert event["run"]["facets"]["ofp_pins"]["context_pins"] == manifest.context_pins.wire()
    (read,) = event["inputs"]
    assert (read["namespace"], read["name"]) == ("ofp", manifest.stream_name)
    ends = {part.partition_id: str(part.offset) for part in manifest.replay_basis.end.partitions}
    assert read["facets"]["ofp_basis"]["offsets"] == ends
    (made,) = event["outputs"]
    assert (made["namespace"], made["name"]) == (STORE, f"ofs/datasets/{manifest.dataset_name}")
    assert made["facets"]["version"]["datasetVersion"] == manifest.dataset_identity
    assert made["facets"]["ofp_digests"]["digests"] == {
        "manifest": manifest.digest,
        "content": manifest.content_digest,
        "request": manifest.request_id,
        "feature_pack": manifest.feature_pack.digest,
        "run_config": manifest.run_config_digest,
    }
    columns = [(field["name"], field["type"]) for field in made["facets"]["schema"]["fields"]]
    assert columns == [(column.name, column.type) for column in manifest.columns]
    assert made["outputFacets"]["outputStatistics"]["rowCount"] == manifest.row_count


def test_the_same_dataset_is_the_same_run_and_another_is_another() -> None:
    manifest = a_manifest()
    first = event_text(dataset_event(manifest, STORE, AT))
    assert event_text(dataset_event(manifest, STORE, AT)) == first
    other = manifest.model_copy(update={"row_count": manifest.row_count + 1})
    assert content(dataset_event(other, STORE, AT))["run"]["runId"] != orjson.loads(first)["run"]["runId"]


def rules_alone() -> Bundle:
    path = bundle_source("card_payments")
    file = BundleFile.model_validate(read_bundle_file(path).model_dump(mode="json"))
    return make_bundle(path, file, compile_pack(shipped_pack("card_payments")))


def lineage_of(model: ExactModel, **changed: Any) -> ModelLineage:
    trained = {"name": "m", "path": "learning/f/m.json", "sha256": model.digest, "report": "learning/f/r.json", "scores": {}}
    fields = {
        "dataset_name": "frauds",
        "dataset_identity": "4" * 64,
        "manifest_digest": "3" * 64,
        "content_digest": "5" * 64,
        "inputs": ["amount_minor"],
        "protocol": {},
        "seed": 0,
        "trees": 1,
        "scikit_learn": "1",
        "training_rows": 1,
        "test_rows": 1,
        "models": [trained],
        **changed,
    }
    return ModelLineage.model_validate(fields)


def learned_bundle(**changed: Any) -> Bundle:
    model = BundleModel(path="learning/f/m.json", digest=MODEL.digest, thresholds=REPORT.thresholds)
    provenance = Provenance(eval_report=REPORT.digest, train_request=REPORT.request_digest, manifest_digests=("3" * 64,))
    return rules_alone().model_copy(update={"model": model, "provenance": provenance, **changed})


def test_a_bundle_leads_to_the_dataset_of_its_model() -> None:
    bundle = learned_bundle()
    event = content(bundle_event(bundle, PINS, STORE, AT, (lineage_of(MODEL), REPORT)))
    (read,) = event["inputs"]
    assert (read["namespace"], read["name"]) == (STORE, "ofs/datasets/frauds")
    assert read["facets"]["version"]["datasetVersion"] == "4" * 64
    assert read["facets"]["ofp_digests"]["digests"] == {"manifest": "3" * 64, "content": "5" * 64}
    (made,) = event["outputs"]
    assert made["name"] == "bundles/card_payments"
    assert made["facets"]["version"]["datasetVersion"] == bundle.ref.digest
    digests = made["facets"]["ofp_digests"]["digests"]
    assert (digests["model"], digests["eval_report"]) == (MODEL.digest, REPORT.digest)
    evaluation = event["run"]["facets"]["ofp_evaluation"]
    assert (evaluation["report"], evaluation["metrics"]) == (REPORT.digest, {"auc_roc": "0.900000"})
    assert evaluation["gates"] == {"auc_roc": "0.900000 of 0.800000"}


def test_a_bundle_of_rules_comes_from_its_pack_alone() -> None:
    bundle = rules_alone()
    event = content(bundle_event(bundle, PINS, STORE, AT, None))
    assert event["inputs"] == []
    assert set(event["run"]["facets"]) == {"ofp_pins"}
    assert event["outputs"][0]["facets"]["ofp_digests"]["digests"] == {
        "bundle": bundle.ref.digest,
        "feature_pack": bundle.feature_definition_set.digest,
    }


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    store = ObjectStore(str(tmp_path / "objects"))
    store.put_same("learning/f/m.json", MODEL.stored())
    store.put_same("learning/f/r.json", REPORT.stored())
    return store


def put_lineage(objects: ObjectStore, lineage: ModelLineage, name: str = "lineage-1.json") -> None:
    objects.put_same(f"learning/f/{name}", canonical_bytes(lineage.model_dump(mode="json", exclude_none=True)))


def test_the_lineage_of_a_bundle_is_found_beside_its_model(objects: ObjectStore) -> None:
    put_lineage(objects, lineage_of(MODEL, manifest_digest="9" * 64))
    put_lineage(objects, lineage_of(MODEL), "lineage-2.json")
    assert learned_from(objects, learned_bundle()) == (lineage_of(MODEL), REPORT)
    assert learned_from(objects, rules_alone()) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"manifest_digest": "9" * 64},
        {"models": [{"name": "m", "path": "learning/f/other.json", "sha256": "8" * 64, "scores": {}}]},
        {"models": [{"name": "m", "path": "learning/f/m.json", "sha256": "8" * 64, "scores": {}}]},
    ],
)
def test_a_bundle_whose_lineage_leads_elsewhere_is_refused(objects: ObjectStore, changed: dict[str, Any]) -> None:
    put_lineage(objects, lineage_of(MODEL, **changed))
    with pytest.raises(ModelRefused, match="learning/f: no lineage there leads from model"):
        learned_from(objects, learned_bundle())


def test_a_report_that_the_bundle_does_not_name_is_refused(objects: ObjectStore) -> None:
    put_lineage(objects, lineage_of(MODEL))
    other = Provenance(eval_report="7" * 64, manifest_digests=("3" * 64,))
    with pytest.raises(ModelRefused, match="no lineage there"):
        learned_from(objects, learned_bundle(provenance=other))


def test_no_lineage_and_one_that_is_none_are_refused(objects: ObjectStore) -> None:
    with pytest.raises(ModelRefused, match="no lineage there"):
        learned_from(objects, learned_bundle())
    objects.put_same("learning/f/lineage-3.json", b"{}")
    with pytest.raises(ModelRefused, match="is no lineage of models"):
        learned_from(objects, learned_bundle())
