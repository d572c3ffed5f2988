"""The sensor of failed runs: a governance fact for each."""

import json

import dagster as dg

from ofp_platform.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG


@dg.run_failure_sensor(
    name="run_failures",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Writes a governance fact for every run that failed: which run, of what, for which partitions, why.",
)
def run_failures(context: dg.RunFailureSensorContext) -> None:
    """One line of JSON in the log of the daemon: what a log shipper takes to where such facts are kept."""
    run = context.dagster_run
    fact = {
        "fact": "dagster_run_failed",
        "run_id": run.run_id,
        "job_name": run.job_name,
        "partition": run.tags.get("dagster/partition"),
        "partition_range": [run.tags.get(ASSET_PARTITION_RANGE_START_TAG), run.tags.get(ASSET_PARTITION_RANGE_END_TAG)],
        "backfill_id": run.tags.get("dagster/backfill"),
        "assets": sorted(key.to_user_string() for key in run.asset_selection or ()),
        "error": context.failure_event.message,
        "reasons": [_reason(event) for event in context.get_step_failure_events()],
    }
    context.log.error("governance fact: %s", json.dumps(fact, sort_keys=True))


def _reason(event: dg.DagsterEvent) -> str:
    """Why a step failed: the words of the refusal, else the error's own first line.

    Of retries that are used up ("Exceeded max_retries of 3"), as of any error with a cause, the causes follow, to the first.
    """
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    lines: list[str] = []
    error = data.error
    while error is not None:
        line = error.message.strip().partition("\n")[0]
        if line and line not in lines:
            lines.append(line)
        error = error.cause
    return "; because: ".join(lines) or "no reason given"
