"""Models trained from one manifest, stored in exact form with their reports and their lineage. No pickle is written or read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from ofp_platform.learning.boosting_files import read_lightgbm, read_xgboost
from ofp_platform.learning.dataset_inputs import dataset_inputs
from ofp_platform.learning.evaluation import report_on
from ofp_platform.learning.protocol import Protocol
from ofp_platform.learning.scores import Scores, score
from ofp_platform.learning.sklearn_export import export_sklearn
from ofp_platform.learning.training_rows import Columns, Part, read_parts
from ofp_platform.scoring.compiled_model import CompiledModel
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of, sha256_hex
from ofp_platform.vocabulary.loop.eval_report import EvalReport, FileFormat, Split, TrainRequest
from ofp_platform.vocabulary.loop.exact_model import ExactModel, ModelInput
from ofp_platform.vocabulary.offline.dataset_admission import admit
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.model_lineage import ModelLineage
from ofp_platform.vocabulary.retraining_policy import EstimatorName, Metric, SixDigits

SEED = 0
BASELINE: tuple[EstimatorName, ...] = ("logistic_regression", "decision_tree_depth_2", "random_forest")
"""The models of the handbook's baseline."""
NO_GATES: Mapping[Metric, SixDigits] = MappingProxyType({})


@dataclass(frozen=True)
class TrainedModel:
    """One model in exact form: its name, the scores of that form, where it is stored, the SHA-256 of its bytes, its report."""

    name: str
    scores: Scores
    path: str
    sha256: str
    report: EvalReport
    report_path: str


@dataclass(frozen=True)
class TrainingReport:
    """The outcome of one training. `lineage` names the manifest by digest: there is no other input."""

    models: tuple[TrainedModel, ...]
    training_rows: int
    test_rows: int
    lineage_path: str
    lineage: dict[str, Any]


@dataclass(frozen=True)
class BoostedFile:
    """A model that another library saved: its format and its bytes."""

    format: FileFormat
    content: bytes


def estimator(name: EstimatorName, trees: int, jobs: int) -> Any:
    """An untrained model. Seeded: training again gives the same."""
    match name:
        case "logistic_regression":
            return make_pipeline(StandardScaler(), LogisticRegression(random_state=SEED, max_iter=1000))
        case "decision_tree_depth_2":
            return DecisionTreeClassifier(max_depth=2, random_state=SEED)
        case "random_forest":
            return RandomForestClassifier(n_estimators=trees, random_state=SEED, n_jobs=jobs)
        case "gradient_boosting":
            return GradientBoostingClassifier(n_estimators=trees, random_state=SEED)


def train(
    objects: ObjectStore,
    manifest: DatasetManifest,
    columns: Columns,
    protocol: Protocol,
    *,
    trees: int = 100,
    jobs: int = 2,
    allow_hindsight: bool = False,
    estimators: Sequence[EstimatorName | BoostedFile] = BASELINE,
    gates: Mapping[Metric, SixDigits] = NO_GATES,
) -> TrainingReport:
    """Train models on one published dataset, or take over files of models that were; store their exact forms, reports on their
    test days, and the lineage. Write-once, idempotent.

    A feature of an empty window counts as 0; in a file, as its library says. `allow_hindsight`: see `admit`. `gates`: the least
    that the test must show of each metric; the report says whether it does.

    Raises:
        DatasetNotAdmitted: the dataset is not fit to train on. NotExportable: a file has no exact form.
        ProtocolUnmet: the dataset has not the days. DatasetDamaged | ObjectStoreUnavailable: see there.
    """
    admit(manifest, allow_hindsight=allow_hindsight)
    inputs = dataset_inputs(manifest, columns.amount)
    training, test = read_parts(objects, manifest, columns, inputs, protocol)
    lineage: dict[str, Any] = {
        "kind": "model_lineage",
        "contract_version": "v0",
        "dataset_name": manifest.dataset_name,
        "dataset_identity": manifest.dataset_identity,
        "manifest_digest": manifest.digest,
        "content_digest": manifest.content_digest,
        "inputs": [asked_input.name for asked_input in inputs],
        "protocol": {name: str(value) for name, value in asdict(protocol).items()},
        "seed": SEED,
        "trees": trees,
        "scikit_learn": sklearn.__version__,
        "training_rows": len(training.rows),
        "test_rows": len(test.rows),
    }
    folder = f"learning/{digest_of(lineage)}"
    split = Split(
        first_day=str(protocol.first_day),
        training_days=protocol.training_days,
        delay_days=protocol.delay_days,
        test_days=protocol.test_days,
    )
    models = []
    for source in estimators:
        request = TrainRequest(
            dataset_name=manifest.dataset_name,
            dataset_identity=manifest.dataset_identity,
            manifest_digest=manifest.digest,
            target=columns.label,
            entity=columns.card,
            event_time=columns.event_time,
            inputs=inputs,
            split=split,
            estimator=source.format if isinstance(source, BoostedFile) else source,
            file_digest=sha256_hex(source.content) if isinstance(source, BoostedFile) else None,
            trees=trees,
            seed=SEED,
            gates=dict(gates),
            allow_hindsight=allow_hindsight,
        )
        models.append(_store(objects, folder, request, *_learn(request, source, training, test, jobs)))
    lineage["models"] = [
        {
            "name": trained_model.name,
            "path": trained_model.path,
            "sha256": trained_model.sha256,
            "report": trained_model.report_path,
            "scores": trained_model.report.metrics,
        }
        for trained_model in models
    ]
    lineage = ModelLineage.model_validate(lineage).model_dump(mode="json", exclude_none=True)
    lineage_bytes = canonical_bytes(lineage)
    lineage_path = f"{folder}/lineage-{sha256_hex(lineage_bytes)[:16]}.json"
    objects.put_same(lineage_path, lineage_bytes)
    return TrainingReport(tuple(models), len(training.rows), len(test.rows), lineage_path, lineage)


def _learn(
    request: TrainRequest, source: EstimatorName | BoostedFile, training: Part, test: Part, jobs: int
) -> tuple[ExactModel, EvalReport, Scores]:
    library_scores: npt.NDArray[np.float64] | None = None
    if isinstance(source, BoostedFile):
        model = read_boosted(source, request.inputs)
    else:
        fitted_model = estimator(source, request.trees, jobs)
        fitted_model.fit(training.numbers(request.inputs), training.rows["fraud"].to_numpy())
        model = export_sklearn(source, fitted_model, request.inputs, training.values, training.present)
        numbers = test.numbers(request.inputs)
        is_probability = model.score_kind == "probability"
        library_scores = fitted_model.predict_proba(numbers)[:, 1] if is_probability else fitted_model.decision_function(numbers)
    compiled_model = CompiledModel(model)
    test_scores = compiled_model.scores(test.values, test.present)
    model_scores = score(test.rows, test_scores)
    training_scores = compiled_model.scores(training.values, training.present)
    frauds = (training.rows["fraud"], test.rows["fraud"])
    eval_report = report_on(request, model, training_scores, test_scores, library_scores, frauds, model_scores)
    return model, eval_report, model_scores


def read_boosted(source: BoostedFile, inputs: Iterable[ModelInput]) -> ExactModel:
    """The exact form of a file.

    Raises:
        NotExportable: it has none.
    """
    if source.format == "lightgbm_file":
        return read_lightgbm(source.format, source.content.decode("utf-8", "replace"), tuple(inputs))
    return read_xgboost(source.format, source.content, tuple(inputs))


def _store(
    objects: ObjectStore, folder: str, request: TrainRequest, model: ExactModel, eval_report: EvalReport, scores: Scores
) -> TrainedModel:
    name = request.estimator
    path = f"{folder}/{name}-{model.digest[:16]}.json"
    report_path = f"{folder}/{name}-report-{eval_report.digest[:16]}.json"
    objects.put_same(f"{folder}/{name}-request-{request.digest[:16]}.json", canonical_bytes(request.model_dump(mode="json")))
    objects.put_same(path, model.stored())
    objects.put_same(report_path, eval_report.stored())
    return TrainedModel(name, scores, path, model.digest, eval_report, report_path)
