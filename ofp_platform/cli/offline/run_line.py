"""A build run as commands show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ofp_platform.vocabulary.offline.build_run import BuildRun


def line_of(run: BuildRun) -> str:
    """A run on one line: key, state, what it is, why it failed."""
    from ofp_platform.vocabulary.offline.build_intent import DatasetBuild

    subject = f"{run.intent.intent} {run.intent.dataset_name}" if isinstance(run.intent, DatasetBuild) else run.intent.intent
    line = f"{run.run_key} {run.state.value} {subject}"
    if run.old_form is not None:
        line += f" [{run.old_form}]"
    if run.refusal is None:
        return line
    field = f" ({run.refusal.field})" if run.refusal.field else ""
    return f"{line}: {run.refusal.reason.value}{field}: {run.refusal.message}"
