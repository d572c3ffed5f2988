"""A model as an asset, as an example of who consumes datasets: it reads one manifest, and nothing else."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg
from pydantic import Field

from ofp_platform.offline.datasets.publication import DatasetDamaged, DatasetNotFound, load_manifest
from ofp_platform.offline.runs.run_ledger import UnknownRun
from ofp_platform.orchestration.log.event_assets import OWNERS
from ofp_platform.orchestration.offline.build_assets import MANIFEST
from ofp_platform.orchestration.offline.build_plots import model_scores
from ofp_platform.orchestration.partitions import BUILD_REQUEST, run_of_key
from ofp_platform.orchestration.receipt_metadata import Metadata, markdown_table
from ofp_platform.orchestration.resources import BuildContextResource
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.dataset_admission import DatasetNotAdmitted, admit

MODEL = dg.AssetKey(["learning", "model"])
MODEL_VERSION = "1"
POOL = "ofp_training"


class TrainingConfig(dg.Config):
    """How the baseline models are trained."""

    first_day: str = Field(
        default="",
        description="First day of training, as in 2018-07-25; empty: as published for the handbook, else as late as labels let.",
    )
    trees: int = Field(default=100, ge=1, le=10_000, description="Trees of the random forest.")
    allow_hindsight: bool = Field(
        default=False, description="Admit a dataset whose rows know later events (as_of_basis event_time)."
    )


@dg.asset(
    key=MODEL,
    deps=[MANIFEST],
    partitions_def=BUILD_REQUEST,
    description=(
        "Baseline models trained on one published dataset: logistic regression, a tree of depth 2, a random forest. The manifest"
        " is the only input; models, scores and lineage are write-once objects."
    ),
    group_name="learning",
    kinds={"python", "scikitlearn"},
    owners=OWNERS,
    code_version=MODEL_VERSION,
    pool=POOL,
)
def trained_model(
    context: dg.AssetExecutionContext, config: TrainingConfig, builds: dg.ResourceParam[BuildContextResource]
) -> Iterator[dg.MaterializeResult[object]]:
    """Train on the dataset of the request."""
    # scikit-learn takes a second to import: whoever only looks at the graph does not wait for it
    from ofp_platform.learning.payments import protocol_of, train_on
    from ofp_platform.learning.protocol import Protocol, ProtocolUnmet

    with builds.open() as build_context:
        try:
            outcome = run_of_key(build_context.ledger, context.partition_key).outcome or {}
            if "dataset_identity" not in outcome:
                raise dg.Failure(f"request {context.partition_key} has published no dataset", allow_retries=False)
            manifest = load_manifest(build_context.objects, outcome["dataset_name"], outcome["dataset_identity"])
            admit(manifest, allow_hindsight=config.allow_hindsight)
            day = config.first_day
            protocol = Protocol(date.fromisoformat(day)) if day else protocol_of(build_context.objects, manifest)
            report = train_on(
                build_context.objects, manifest, protocol, trees=config.trees, allow_hindsight=config.allow_hindsight
            )
        except (DatasetDamaged, DatasetNotAdmitted, DatasetNotFound, ProtocolUnmet, UnknownRun, ValueError) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        metadata = lineage_metadata(report.lineage, report.lineage_path, build_context.objects)
    yield dg.MaterializeResult(asset_key=MODEL, metadata=metadata, data_version=dg.DataVersion(manifest.digest))


def lineage_metadata(lineage: Mapping[str, Any], path: str, objects: ObjectStore) -> Metadata:
    """The stored lineage of a model as metadata."""
    models = lineage["models"]
    scores = {model["name"]: {name: float(value) for name, value in model["scores"].items()} for model in models}
    return {
        "scores": markdown_table(
            ["model", "AUC ROC", "average precision", "card precision@100"],
            [(name, *(f"{value:.3f}" for value in values.values())) for name, values in scores.items()],
        ),
        "scores_plot": model_scores(scores),
        "training_rows": lineage["training_rows"],
        "test_rows": lineage["test_rows"],
        "protocol": markdown_table(["rule", "value"], sorted(lineage["protocol"].items())),
        "dataset": f"{lineage['dataset_name']} {lineage['dataset_identity']}",
        "manifest_digest": lineage["manifest_digest"],
        "content_digest": lineage["content_digest"],
        "lineage": dg.MetadataValue.path(f"{objects.url}/{path}"),
        "inputs": ", ".join(lineage["inputs"]),
        "models": markdown_table(
            ["model", "object", "SHA-256"], [(model["name"], model["path"], model["sha256"]) for model in models]
        ),
        **{f"{name}/auc_roc": values["auc_roc"] for name, values in scores.items()},
    }


train_model_job = dg.define_asset_job(
    "train_model",
    dg.AssetSelection.assets(MODEL),
    description="Train the baseline models on the published dataset of a request; the first day may be given in the run config.",
)
