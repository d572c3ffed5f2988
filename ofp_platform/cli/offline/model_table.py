"""Scores of models as a table; beside the published ones where it is the published protocol on the published data."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ofp_platform.learning.protocol import Protocol
    from ofp_platform.learning.training import TrainingReport

# Fraud Detection Handbook, chapter "Baseline fraud detection system"
PUBLISHED = {
    "logistic_regression": (0.871, 0.606, 0.291),
    "decision_tree_depth_2": (0.763, 0.496, 0.241),
    "random_forest": (0.867, 0.658, 0.287),
}
_SCORES = ("AUC ROC", "average precision", "card precision@100")
_NAME = 22
_COLUMN = 20


def model_table(report: TrainingReport, protocol: Protocol) -> list[str]:
    """A line per model; `ours / published` where there is something published to stand beside."""
    from ofp_platform.learning.protocol import HANDBOOK

    beside = protocol == HANDBOOK
    head = "(ours / published)" if beside else ""
    lines = [f"{head:<{_NAME}}" + "".join(f"{name:>{_COLUMN}}" for name in _SCORES)]
    for model in report.models:
        scores = (model.scores.auc_roc, model.scores.average_precision, model.scores.card_precision_100)
        cells = [f"{score:.3f}" for score in scores]
        if beside and model.name in PUBLISHED:
            cells = [f"{cell} / {there:.3f}" for cell, there in zip(cells, PUBLISHED[model.name], strict=True)]
        lines.append(f"{model.name.replace('_', ' '):<{_NAME}}" + "".join(f"{cell:>{_COLUMN}}" for cell in cells))
    return lines
