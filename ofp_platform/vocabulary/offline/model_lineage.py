"""The lineage of trained models as it is stored: the dataset, the inputs, the protocol, and what came of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ofp_platform.vocabulary.model import Digest, Model, Name
from ofp_platform.vocabulary.serving import Count, Version


class LineageModel(Model):
    """One trained model and its scores on the test days, decimals of six digits."""

    name: str = Field(min_length=1)
    path: str = Field(min_length=1, description="path in the object store")
    sha256: Digest
    report: str | None = Field(default=None, description="path of its eval_report; null: an earlier release")
    scores: dict[Name, str]


class ModelLineage(Model):
    """One training. Its folder is named by the digest of all fields but `models`."""

    kind: Literal["model_lineage"] = "model_lineage"
    contract_version: Version = "v0"
    dataset_name: Name
    dataset_identity: Digest
    manifest_digest: Digest
    content_digest: Digest
    inputs: tuple[str, ...] = Field(strict=False, min_length=1, description="columns, in the order of the model's inputs")
    protocol: dict[Name, str]
    seed: int
    trees: Count
    scikit_learn: str
    training_rows: Count
    test_rows: Count
    models: tuple[LineageModel, ...] = Field(strict=False, min_length=1)
