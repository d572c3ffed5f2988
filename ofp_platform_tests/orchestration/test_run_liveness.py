"""Whether a run of Dagster goes on: by what it holds, not by its status alone."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from ofp_platform.orchestration.run_liveness import LOCK_SECONDS, START_SECONDS, UNFINISHED, goes_on

CREATED = datetime(2024, 5, 1, tzinfo=UTC)
NOW = CREATED.timestamp()


def record(status: dg.DagsterRunStatus, start_time: float | None = None) -> dg.RunRecord:
    run = dg.DagsterRun(job_name="any", run_id="00000000-0000-0000-0000-000000000000", status=status)
    return dg.RunRecord(storage_id=1, dagster_run=run, create_timestamp=CREATED, update_timestamp=CREATED, start_time=start_time)


# a queued run needs the origin of its job, which only a daemon has
@pytest.mark.parametrize("status", sorted(set(dg.DagsterRunStatus) - {dg.DagsterRunStatus.QUEUED}, key=str))
def test_by_status(status: dg.DagsterRunStatus) -> None:
    asked = status in UNFINISHED and status is not dg.DagsterRunStatus.STARTED
    assert goes_on(record(status), is_held=False, now=NOW) is asked
    assert goes_on(record(status), is_held=True, now=NOW) is (status in UNFINISHED)
    assert not goes_on(record(status), is_held=False, now=NOW + START_SECONDS)


def test_a_run_that_has_just_started_is_given_time_to_take_its_lock() -> None:
    started = record(dg.DagsterRunStatus.STARTED, start_time=NOW + 5)
    assert goes_on(started, is_held=False, now=NOW + 5 + LOCK_SECONDS - 1)
    assert not goes_on(started, is_held=False, now=NOW + 5 + LOCK_SECONDS)
