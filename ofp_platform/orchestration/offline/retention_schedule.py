"""Retention once a day, as a job: what the command `ofp retention` does."""

import dagster as dg

from ofp_platform.cli.installation.retention import apply_retention
from ofp_platform.orchestration.resources import PlaneResource


@dg.op(pool="ofp_retention", description="Removes what the policy of the profile lets go, store by store, and says what went.")
def remove_what_is_old(context: dg.OpExecutionContext, plane: dg.ResourceParam[PlaneResource]) -> None:
    """One line of the log of the run for each store."""
    counts: dict[str, int] = {}
    with plane.open("owner") as opened_plane:
        for store in apply_retention(plane.environment(), opened_plane, dry_run=False):
            context.log.info("%s: kept %s; %d %s went %s", store.store, store.policy, store.going, store.unit, store.detail)
            counts[store.store] = store.going
    context.add_output_metadata(counts)


@dg.job(name="retention", description="Remove what the policy of the profile lets go (`ofp retention --dry-run` shows it).")
def retention_job() -> None:
    """One op: the stores, one after the other."""
    remove_what_is_old()


retention_daily = dg.ScheduleDefinition(
    name="retention_daily",
    job=retention_job,
    cron_schedule="30 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Remove from each store what the retention policy no longer keeps, once a day.",
)
