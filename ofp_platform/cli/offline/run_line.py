"""A build run as commands show it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ofp_platform.cli.terminal.printed_facts import item, short, when

if TYPE_CHECKING:
    from ofp_platform.vocabulary.offline.build_run import BuildRun


def line_of(run: BuildRun) -> str:
    """A run on one line: key, state, subject, why it failed."""
    line = f"{run.run_key} {run.state.value} {_subject(run)}"
    return f"{line}: {why}" if (why := _refusal(run)) else line


def list_lines(run: BuildRun) -> Iterator[str]:
    """A run in a list: the beginning of its key, which commands take, state, when it was submitted, subject; why it failed."""
    details = [why] if (why := _refusal(run)) else []
    yield from item(short(run.run_key), run.state.value, when(run.submitted_at_utc), _subject(run), details=details)


def _subject(run: BuildRun) -> str:
    from ofp_platform.vocabulary.offline.build_intent import DatasetBuild

    subject = f"{run.intent.intent} {run.intent.dataset_name}" if isinstance(run.intent, DatasetBuild) else run.intent.intent
    return subject if run.old_form is None else f"{subject} [{run.old_form}]"


def _refusal(run: BuildRun) -> str:
    if run.refusal is None:
        return ""
    field = f" ({run.refusal.field})" if run.refusal.field else ""
    return f"{run.refusal.reason.value}{field}: {run.refusal.message}"
