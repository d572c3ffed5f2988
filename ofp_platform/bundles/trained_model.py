"""A trained model and the report on it, read back from the object store for a bundle."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from ofp_platform.storage.objects import ObjectNotFound, ObjectStore
from ofp_platform.vocabulary.loop.bundle import BundleModel, Provenance
from ofp_platform.vocabulary.loop.eval_report import EvalReport
from ofp_platform.vocabulary.loop.exact_model import ExactModel


class ModelRefused(Exception):
    """A model that no bundle can be made of; the text names the object and says why."""


@dataclass(frozen=True)
class TrainedModel:
    """A model in exact form, where it stands, and the report on it, which passed each gate that was asked for."""

    path: str
    model: ExactModel
    report: EvalReport

    @property
    def bundle_model(self) -> BundleModel:
        """As a bundle names it."""
        return BundleModel(path=self.path, digest=self.model.digest, thresholds=self.report.thresholds)

    @property
    def provenance(self) -> Provenance:
        """Where it comes from."""
        return Provenance(
            eval_report=self.report.digest,
            train_request=self.report.request_digest,
            manifest_digests=(self.report.manifest_digest,),
        )


def load_trained_model(objects: ObjectStore, model_path: str, report_path: str) -> TrainedModel:
    """Read a model and its report.

    Raises:
        ModelRefused: one is not there, or not in its canonical form; the report is of another model, or a gate did not pass.
        ObjectStoreUnavailable: the store does not answer.
    """
    model_content, report_content = _content(objects, model_path), _content(objects, report_path)
    try:
        model = ExactModel.model_validate_json(model_content)
    except ValidationError:
        raise ModelRefused(f"{model_path}: is no model in exact form: `ofp model train` writes one") from None
    if model.stored() != model_content:
        raise ModelRefused(f"{model_path}: is not in canonical form, so its digest names other bytes: store it by its exporter")
    try:
        report = EvalReport.model_validate_json(report_content)
    except ValidationError:
        raise ModelRefused(f"{report_path}: is no report on a model: `ofp model train` writes one") from None
    if report.stored() != report_content:
        raise ModelRefused(f"{report_path}: is not in canonical form: store it by its exporter")
    if report.model_digest != model.digest:
        raise ModelRefused(
            f"{report_path}: model_digest: is of model {report.model_digest[:12]}, and {model_path} is {model.digest[:12]}"
        )
    if not report.has_passed:
        failed_gates = [gate for gate in report.gates if not gate.passed]
        words = ", ".join(f"{gate.metric} {gate.seen_value}, asked for {gate.at_least}" for gate in failed_gates)
        raise ModelRefused(f"{report_path}: gates: did not pass: {words}")
    return TrainedModel(model_path, model, report)


def _content(objects: ObjectStore, path: str) -> bytes:
    try:
        return objects.get(path)
    except ObjectNotFound:
        raise ModelRefused(f"{path}: is not in {objects.url}") from None
    except ValueError as error:
        raise ModelRefused(str(error)) from None
