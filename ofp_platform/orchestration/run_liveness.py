"""Whether a run of Dagster that has not ended still goes on.

Its status does not say: `DefaultRunLauncher` cannot look at the processes of its runs, so one whose machine died stays STARTED
for ever. What it works on is held by a lock in PostgreSQL, which ends with its holder: that says it.
"""

import dagster as dg

TICK_SECONDS = 15
START_SECONDS = 180.0
"""Until a run that was asked for has started; Dagster gives one up behind that (`start_timeout_seconds`)."""
LOCK_SECONDS = 30.0
"""From the start of a run until it holds what it works on."""
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def goes_on(record: dg.RunRecord, *, is_held: bool, now: float) -> bool:
    """Whether the run is under way, or about to be. `is_held`: somebody holds what it works on; `now` in seconds."""
    status = record.dagster_run.status
    if status is dg.DagsterRunStatus.QUEUED:
        return True  # it waits for its turn, in the database
    if status in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING):
        return now - record.create_timestamp.timestamp() < START_SECONDS
    if status is dg.DagsterRunStatus.STARTED:
        return is_held or (record.start_time is not None and now - record.start_time < LOCK_SECONDS)
    return False
