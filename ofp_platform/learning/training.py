"""Models trained from one manifest, stored with their scores and their lineage."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import sklearn
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from ofp_platform.learning.protocol import Protocol, split
from ofp_platform.learning.scores import Scores, score
from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of, sha256_hex
from ofp_platform.vocabulary.offline.dataset_admission import AdmissionReason, DatasetNotAdmitted, admit
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.offline.model_lineage import ModelLineage

SEED = 0
NIGHT_UNTIL_HOUR = 6
SATURDAY = 5


@dataclass(frozen=True)
class Columns:
    """Which columns of a dataset play which part. `card`: the entity whose known frauds leave the test; `amount`: may be none."""

    card: str
    amount: str | None
    event_time: str = "ts"
    label: str = "label_value"


@dataclass(frozen=True)
class TrainedModel:
    """One model: its name, scores, where it is stored, and the SHA-256 of its bytes."""

    name: str
    scores: Scores
    path: str
    sha256: str


@dataclass(frozen=True)
class TrainingReport:
    """The outcome of one training. `lineage` names the manifest by digest: there is no other input."""

    models: tuple[TrainedModel, ...]
    training_rows: int
    test_rows: int
    lineage_path: str
    lineage: dict[str, Any]


def estimators(trees: int, jobs: int) -> dict[str, Any]:
    """The models of the handbook's baseline, each behind the same scaling. Seeded: training again gives the same scores."""
    models = {
        "logistic_regression": LogisticRegression(random_state=SEED, max_iter=1000),
        "decision_tree_depth_2": DecisionTreeClassifier(max_depth=2, random_state=SEED),
        "random_forest": RandomForestClassifier(n_estimators=trees, random_state=SEED, n_jobs=jobs),
    }
    return {name: make_pipeline(StandardScaler(), model) for name, model in models.items()}


def frame(table: pa.Table, columns: Columns, features: list[str]) -> pd.DataFrame:
    """One row per event: `day`, `card`, `fraud`, and the numbers a model sees. A feature of an empty window counts as 0."""
    moments = pd.to_datetime(table[columns.event_time].to_pandas(), utc=True)
    numbers = {name: pc.fill_null(pc.cast(table[name], pa.float64()), 0.0).to_numpy() for name in features}
    return pd.DataFrame(
        {
            "day": moments.dt.date,
            "card": table[columns.card].to_pandas(),
            "fraud": table[columns.label].to_pandas(),
            **({} if columns.amount is None else {"amount": table[columns.amount].to_numpy().astype(np.float64)}),
            "during_weekend": (moments.dt.day_of_week >= SATURDAY).astype(np.float64),
            "during_night": (moments.dt.hour <= NIGHT_UNTIL_HOUR).astype(np.float64),
            **numbers,
        }
    )


def train(
    objects: ObjectStore,
    manifest: DatasetManifest,
    columns: Columns,
    protocol: Protocol,
    *,
    trees: int = 100,
    jobs: int = 2,
    allow_hindsight: bool = False,
) -> TrainingReport:
    """Train the models on one published dataset and store them, their scores and their lineage. Write-once, idempotent.

    `allow_hindsight`: see `admit`.

    Raises:
        DatasetNotAdmitted: the dataset is not fit to train on.
        ProtocolUnmet: the dataset has not the days. DatasetDamaged | ObjectStoreUnavailable: see there.
    """
    admit(manifest, allow_hindsight=allow_hindsight)
    features = [column.name for column in manifest.columns if column.role == "feature"]
    for column in manifest.columns:
        kind = "a text" if column.type == "string" else "a list" if column.type.startswith("list") else None
        if column.role == "feature" and kind is not None:
            message = f"feature {column.name} is {kind}, and these models learn from numbers; leave its group out of the dataset"
            raise DatasetNotAdmitted(AdmissionReason.SCHEMA_UNFIT, message)
    amount_columns = [] if columns.amount is None else [columns.amount]
    table = read_dataset(objects, manifest, [columns.event_time, columns.card, *amount_columns, columns.label, *features])
    rows = frame(table, columns, features)
    # a payment without an amount feeds what needs none, and is a row; a model of amounts cannot see it
    rows = rows[rows["fraud"].notna()].astype({"fraud": np.int64})
    if columns.amount is not None:
        rows = rows[rows["amount"].notna()]
    training, test = split(rows, protocol)
    inputs = [*(["amount"] if amount_columns else []), "during_weekend", "during_night", *features]
    lineage: dict[str, Any] = {
        "kind": "model_lineage",
        "contract_version": "v0",
        "dataset_name": manifest.dataset_name,
        "dataset_identity": manifest.dataset_identity,
        "manifest_digest": manifest.digest,
        "content_digest": manifest.content_digest,
        "inputs": inputs,
        "protocol": {name: str(value) for name, value in asdict(protocol).items()},
        "seed": SEED,
        "trees": trees,
        "scikit_learn": sklearn.__version__,
        "training_rows": len(training),
        "test_rows": len(test),
    }
    folder = f"learning/{digest_of(lineage)}"
    models = []
    for name, model in estimators(trees, jobs).items():
        model.fit(training[inputs].to_numpy(), training["fraud"].to_numpy())
        probabilities = model.predict_proba(test[inputs].to_numpy())[:, 1]
        buffer = io.BytesIO()
        joblib.dump(model, buffer)
        digest = sha256_hex(buffer.getvalue())
        path = f"{folder}/{name}-{digest[:16]}.joblib"
        objects.put_same(path, buffer.getvalue())
        models.append(TrainedModel(name, score(test, probabilities), path, digest))
    lineage["models"] = [
        {
            "name": trained_model.name,
            "path": trained_model.path,
            "sha256": trained_model.sha256,
            "scores": {k: f"{v:.6f}" for k, v in asdict(trained_model.scores).items()},
        }
        for trained_model in models
    ]
    lineage = ModelLineage.model_validate(lineage).model_dump(mode="json")
    lineage_bytes = canonical_bytes(lineage)
    lineage_path = f"{folder}/lineage-{sha256_hex(lineage_bytes)[:16]}.json"
    objects.put_same(lineage_path, lineage_bytes)
    return TrainingReport(tuple(models), len(training), len(test), lineage_path, lineage)
