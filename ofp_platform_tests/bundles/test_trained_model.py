"""A trained model for a bundle: its object and the report on it are read back, and belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.bundles.trained_model import ModelRefused, load_trained_model
from ofp_platform.storage.objects import ObjectStore
from ofp_platform_tests.bundles.trained import model_of, report_of

INPUT = {"source": "payload", "field": "amount_minor", "scale": 0}
MODEL = model_of(INPUT)


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    store = ObjectStore(str(tmp_path / "objects"))
    failed = {"metric": "auc_roc", "at_least": "0.950000", "seen_value": "0.900000", "passed": False}
    for name, content in {
        "model.json": MODEL.stored(),
        "report.json": report_of(MODEL).stored(),
        "ungated.json": report_of(MODEL, gates=[]).stored(),
        "other.json": report_of(model_of(INPUT, {"source": "event_time", "part": "during_night"})).stored(),
        "failed.json": report_of(MODEL, gates=[failed]).stored(),
        "spaced.json": MODEL.stored() + b"\n",
        "spaced_report.json": report_of(MODEL).stored() + b"\n",
        "pickle": b"\x80\x04\x95",
    }.items():
        store.put_if_absent(name, content)
    return store


@pytest.mark.parametrize("report", ["report.json", "ungated.json"])
def test_model_and_report_are_read_back(objects: ObjectStore, report: str) -> None:
    trained = load_trained_model(objects, "model.json", report)
    assert (trained.model, trained.bundle_model.digest, trained.bundle_model.path) == (MODEL, MODEL.digest, "model.json")
    assert trained.provenance.eval_report == trained.report.digest


@pytest.mark.parametrize(
    ("model", "report", "words"),
    [
        ("absent.json", "report.json", r"absent\.json: is not in file|absent\.json: is not in /"),
        ("model.json", "absent.json", r"absent\.json: is not in"),
        ("/x", "report.json", "is not an object path"),
        ("pickle", "report.json", r"pickle: is no model in exact form: `ofp model train` writes one"),
        ("model.json", "model.json", r"model\.json: is no report on a model"),
        ("spaced.json", "report.json", r"spaced\.json: is not in canonical form"),
        ("model.json", "spaced_report.json", r"spaced_report\.json: is not in canonical form"),
        ("model.json", "other.json", r"other\.json: model_digest: is of model [0-9a-f]{12}, and model\.json is"),
        ("model.json", "failed.json", r"failed\.json: gates: did not pass: auc_roc 0\.900000, asked for 0\.950000"),
    ],
)
def test_what_does_not_belong_together_is_refused(objects: ObjectStore, model: str, report: str, words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        load_trained_model(objects, model, report)
