"""The sensor of failed runs: a governance fact for each."""

import json

import dagster as dg
import psycopg

from ofp_platform.log.governance_log import append_facts
from ofp_platform.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from ofp_platform.orchestration.failure_alert import send_alert
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.storage.embedded import EmbeddedPostgresError
from ofp_platform.storage.postgres import DatabaseUnavailable
from ofp_platform.vocabulary.offline.governance_fact import RunFailed


@dg.run_failure_sensor(
    name="run_failures",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Records a governance fact of every run that failed: which run, of what, for which partitions, why.",
)
def run_failures(context: dg.RunFailureSensorContext, plane: dg.ResourceParam[PlaneResource]) -> None:
    """A row of the table of facts, one line of JSON in the log of the daemon, for a log shipper, and an alert where one is set.

    Raises:
        dg.Failure: the row cannot be written. Dagster does not call again for this run: the line is what there is of the fact.
    """
    run = context.dagster_run
    fact = RunFailed(
        run_id=run.run_id,
        job_name=run.job_name,
        partition=run.tags.get("dagster/partition"),
        partition_range=(run.tags.get(ASSET_PARTITION_RANGE_START_TAG), run.tags.get(ASSET_PARTITION_RANGE_END_TAG)),
        backfill_id=run.tags.get("dagster/backfill"),
        assets=tuple(sorted(key.to_user_string() for key in run.asset_selection or ())),
        error=context.failure_event.message,
        reasons=tuple(_reason(event) for event in context.get_step_failure_events()),
    )
    context.log.error("governance fact: %s", json.dumps(fact.wire(), sort_keys=True))
    try:
        with plane.open_pool() as pool:
            append_facts(pool, [fact])
    except (psycopg.Error, DatabaseUnavailable, EmbeddedPostgresError) as error:
        raise dg.Failure(
            f"the governance fact of run {run.run_id} is in the log of the daemon and not in the database: {error}",
            allow_retries=False,
        ) from error
    finally:
        failure = send_alert(fact)
        if failure is not None:
            context.log.error("the alert about run %s was not sent: %s", run.run_id, failure)


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
