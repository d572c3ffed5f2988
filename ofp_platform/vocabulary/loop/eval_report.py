"""Learning from one dataset: the request that declares all of it, and the report on the model in exact form."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.loop.exact_model import ModelInput
from ofp_platform.vocabulary.model import Day, Digest, Model, Name
from ofp_platform.vocabulary.offline.build_intent import Integer
from ofp_platform.vocabulary.retraining_policy import EstimatorName, Metric, SixDigits
from ofp_platform.vocabulary.serving import Count, Version

FileFormat = Literal["lightgbm_file", "xgboost_file"]
ColumnName = Annotated[str, Field(min_length=1, max_length=200, description="a column of the dataset")]


class Split(Model):
    """Days of UTC: train, wait until labels are known, test."""

    first_day: Day
    training_days: Count
    delay_days: Count
    test_days: Count


class AlertShares(Model):
    """Which share of the training rows a model may send to people, and which it may decline: its thresholds follow from them."""

    review: SixDigits = "0.010000"
    decline: SixDigits = "0.001000"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.decline > self.review:
            raise ValueError("what is declined is part of what is alerted: decline lies above review")
        return self


class TrainRequest(Model):
    """One training: the dataset by its manifest, what its columns mean, the split, the estimator, the gates."""

    kind: Literal["train_request"] = "train_request"
    contract_version: Version = "v0"
    dataset_name: Name
    dataset_identity: Digest
    manifest_digest: Digest
    target: ColumnName
    entity: ColumnName = Field(description="whose known frauds leave the test")
    event_time: ColumnName
    inputs: tuple[ModelInput, ...] = Field(strict=False, min_length=1)
    split: Split
    estimator: EstimatorName | FileFormat
    file_digest: Digest | None = Field(default=None, description="of the file that a model was read from")
    trees: Count
    seed: Count
    alert_shares: AlertShares = AlertShares()
    gates: dict[Metric, SixDigits] = Field(default={}, description="the least that the test must show of each")
    allow_hindsight: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical bytes of it all."""
        return sha256_hex(canonical_bytes(self.model_dump(mode="json")))


class Thresholds(Model):
    """Scores, scaled as those of the model, from which an event is reviewed or declined."""

    review_from: Integer
    decline_from: Integer

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.review_from > self.decline_from:
            raise ValueError("review_from lies above decline_from: nothing would ever be reviewed")
        return self


class AtThreshold(Model):
    """The effect of a threshold on the rows of the test."""

    alert_count: Count
    frauds: Count = Field(description="of the alerted")
    precision: SixDigits | None = Field(description="frauds / alerted; null: none is alerted")
    recall: SixDigits = Field(description="frauds / all frauds of the test")


class Quantisation(Model):
    """The exact form beside the library's own scores, on the rows of the test. largest_error: of a score, unscaled."""

    rows: Count
    largest_error: str = Field(pattern=r"^[0-9]+\.[0-9]{12}$")
    other_outcomes: Count = Field(description="rows that the library's own scores would treat otherwise")


class Gate(Model):
    """One gate: what was asked, what was seen."""

    metric: Metric
    at_least: SixDigits
    seen_value: SixDigits
    passed: bool


class EvalReport(Model):
    """How good the exact form is on the test. Trained again from the request, the same bytes come of it."""

    kind: Literal["eval_report"] = "eval_report"
    contract_version: Version = "v0"
    request_digest: Digest
    manifest_digest: Digest
    model_digest: Digest
    training_rows: Count
    training_frauds: Count
    test_rows: Count
    test_frauds: Count
    metrics: dict[Metric, SixDigits]
    thresholds: Thresholds
    at_review: AtThreshold
    at_decline: AtThreshold
    quantisation: Quantisation | None = Field(description="null: the model came as a file, without the library that made it")
    gates: tuple[Gate, ...] = Field(strict=False)

    @property
    def has_passed(self) -> bool:
        """Whether every gate that was asked for passed."""
        return all(gate.passed for gate in self.gates)

    def stored(self) -> bytes:
        """The canonical bytes of it all."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 over `stored`."""
        return sha256_hex(self.stored())
