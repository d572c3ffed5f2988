"""The origin of the model of a bundle: the lineage beside the model, and the report on it."""

from __future__ import annotations

from pydantic import ValidationError

from ofp_platform.bundles.trained_model import ModelRefused, load_trained_model
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.loop.bundle import Bundle
from ofp_platform.vocabulary.loop.eval_report import EvalReport
from ofp_platform.vocabulary.offline.model_lineage import ModelLineage


def learned_from(objects: ObjectStore, bundle: Bundle) -> tuple[ModelLineage, EvalReport] | None:
    """The lineage of the training and the report that the bundle names; None of a bundle of rules alone.

    Raises:
        ModelRefused: no lineage beside the model names it, its dataset and a report with the digest that the bundle has.
        ObjectStoreUnavailable: the store does not answer.
    """
    model, provenance = bundle.model, bundle.provenance
    if model is None:
        return None
    folder = model.path.rpartition("/")[0]
    for path in objects.list(folder):
        if not path.rpartition("/")[2].startswith("lineage-"):
            continue
        try:
            lineage = ModelLineage.model_validate_json(objects.get(path))
        except ValidationError:
            raise ModelRefused(f"{path}: is no lineage of models: `ofp model train` writes one") from None
        reports = [trained.report for trained in lineage.models if trained.path == model.path and trained.report is not None]
        if lineage.manifest_digest not in provenance.manifest_digests or not reports:
            continue
        report = load_trained_model(objects, model.path, reports[0]).report
        if report.digest == provenance.eval_report:
            return lineage, report
    words = f"no lineage there leads from model {model.digest[:12]} to the report and the dataset of the bundle"
    raise ModelRefused(f"{folder}: {words}")
