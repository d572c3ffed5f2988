"""Signed heads once an hour, as a job: what the command `ofp audit append` does."""

import os
import time

import dagster as dg

from ofp_platform.audit.appending import append_records
from ofp_platform.audit.signing_keys import VARIABLE, KeyRefused, read_key
from ofp_platform.audit.tree_heads import AuditRefused
from ofp_platform.orchestration.resources import PlaneResource


@dg.op(pool="ofp_audit", description="Makes leaves of every record that is not in the audit log yet, and signs a head over them.")
def append_audit_leaves(context: dg.OpExecutionContext, plane: dg.ResourceParam[PlaneResource]) -> None:
    """A run that fails leaves the log as it was, or a head that the next one puts."""
    try:
        key = read_key(None, os.environ.get(VARIABLE))
        with plane.open_without_log("offline") as opened_plane:
            outcome = append_records(opened_plane.pool, opened_plane.objects, key, lambda: time.time_ns() // 1_000)
    except (KeyRefused, AuditRefused) as refused:
        raise dg.Failure(str(refused), allow_retries=False) from None
    for kind, subject, reason in outcome.quarantined:
        context.log.warning("%s %s is of incomplete provenance, and set aside: %s", kind, subject, reason)
    head = f"{outcome.heads[-1].tree_size:,} leaves, root {outcome.heads[-1].root_hash}" if outcome.heads else "nothing is new"
    context.add_output_metadata({"leaves": outcome.leaf_count, "in_quarantine": len(outcome.quarantined), "head": head})


@dg.job(name="append_audit", description="Append what is new to the audit log under a signed head (`ofp audit append`).")
def append_audit_job() -> None:
    """One op."""
    append_audit_leaves()


append_audit_hourly = dg.ScheduleDefinition(
    name="append_audit_hourly",
    job=append_audit_job,
    cron_schedule="50 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description=f"Append what is new to the audit log under a signed head, once an hour; the daemon has the key in {VARIABLE}.",
)
