"""Signed heads as a job: the same as the command; without a key nothing is appended, and the run says what it lacks."""

from __future__ import annotations

import base64

import dagster as dg
import pytest

from ofp_platform.audit.signing_keys import VARIABLE
from ofp_platform.audit.tree_heads import newest_head
from ofp_platform.log.governance_log import append_facts
from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.offline.governance_fact import RunFailed

FACT = RunFailed(
    run_id="9f6c",
    job_name="j",
    partition=None,
    partition_range=(None, None),
    backfill_id=None,
    assets=(),
    error="it failed",
    reasons=(),
)


def head_size(plane: Plane) -> int | None:
    with plane.pool.connection() as connection:
        head = newest_head(connection)
    return None if head is None else head.tree_size


def run(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return definitions.resolve_job_def("append_audit").execute_in_process(instance=instance, raise_on_error=False)


def test_the_job_appends_what_is_new(
    definitions: dg.Definitions, plane: Plane, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, base64.b64encode(b"k" * 32).decode())
    append_facts(plane.pool, [FACT])
    first = run(definitions, instance)
    assert first.success
    size = head_size(plane)
    assert size is not None
    again = run(definitions, instance)
    assert again.success
    (output,) = again.filter_events(lambda event: event.is_successful_output)
    assert output.step_output_data.metadata["head"].value == "nothing is new"
    assert head_size(plane) == size


@pytest.mark.parametrize(("key", "words"), [(None, "no key to sign with"), ("bm8ga2V5", "holds no key")])
def test_without_a_key_it_fails_in_words_and_appends_nothing(
    definitions: dg.Definitions,
    plane: Plane,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    key: str | None,
    words: str,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if key is not None:
        monkeypatch.setenv(VARIABLE, key)
    append_facts(plane.pool, [FACT])
    result = run(definitions, instance)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert words in str(failure.step_failure_data.user_failure_data)
    assert head_size(plane) is None
