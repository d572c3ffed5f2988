"""The retention of each store, and what goes now: one list for the command and for the schedule of Dagster."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ofp_platform.vocabulary.times import MICROS_PER_SECOND

if TYPE_CHECKING:
    from ofp_platform.cli.environment import Environment
    from ofp_platform.online.plane import Plane

_DAGSTER = "OFP_DAGSTER_POSTGRES_URL"
_NAMED = 20
FOR_GOOD = {
    "archive": "replays, rebuilds and proofs read it",
    "snapshots": "decisions name them by hash",
    "decisions and labels": "datasets and proofs are made from them",
    "run ledger and governance facts": "they say what was built, by whom and why it failed",
    "datasets and models": "whoever trained on them names them",
}
"""Stores of which nothing is removed by age, with the reason."""
TRIM_POLICY = "until archived, verified and applied"
"""Of the log, where it is trimmed."""


@dataclass(frozen=True)
class StoreRetention:
    """One store: its policy in words; `going`: how many things go now, or went; `unit` of them; `detail`: which, or why none."""

    store: str
    policy: str
    going: int
    unit: str
    detail: str = ""


def apply_retention(environment: Environment, plane: Plane, *, dry_run: bool) -> Iterator[StoreRetention]:
    """Go through the stores, one after the other; with `dry_run` nothing is changed. Whatever went is a governance fact.

    Raises:
        DatabaseUnavailable | ObjectStoreUnavailable | LogUnavailable: see there; what was told of is done, the rest is not.
    """
    for retained in _removing(environment, plane, dry_run):
        if retained.going and not dry_run:
            tell_removal(plane, retained)
        yield retained
    for store, reason in FOR_GOOD.items():
        yield StoreRetention(store, "for good", 0, "things", reason)


def _removing(environment: Environment, plane: Plane, dry_run: bool) -> Iterator[StoreRetention]:
    """The stores that things are removed from, each when the one before was told."""
    yield _log(plane, dry_run)
    yield _retired(plane, dry_run)
    yield _scratch(environment, plane, dry_run)
    yield _dagster(plane, dry_run)
    yield _accesses(environment, plane, dry_run)


def tell_removal(plane: Plane, removed: StoreRetention) -> None:
    """Append the fact that something of a store went: behind it, since not all stores are in the database."""
    from ofp_platform.log.governance_log import append_facts_with
    from ofp_platform.storage.governance_facts import role_of
    from ofp_platform.vocabulary.offline.governance_fact import RecordsRemoved
    from ofp_platform.vocabulary.times import format_time

    with plane.pool.connection() as connection, connection.transaction():
        fact = RecordsRemoved(
            context_pins=plane.profile.context_pins,
            store=removed.store,
            policy=removed.policy,
            count=removed.going,
            unit=removed.unit,
            actor=role_of(connection),
            at_utc=format_time(int(time.time() * MICROS_PER_SECOND)),
        )
        append_facts_with(connection, [fact])


def _log(plane: Plane, dry_run: bool) -> StoreRetention:
    from ofp_platform.online.ranges import log_trim

    if not plane.profile.retention.trim_log:
        return StoreRetention("log", "until `ofp log trim --archived`", 0, "records", "trim_log is not set in the profile")
    try:
        trims = log_trim.plan_trim(plane, plane.archive)
        if not dry_run:
            log_trim.trim(plane, trims)
    except log_trim.TrimRefused as error:
        return StoreRetention("log", TRIM_POLICY, 0, "records", str(error))
    return StoreRetention("log", TRIM_POLICY, sum(trim.records for trim in trims), "records")


def _retired(plane: Plane, dry_run: bool) -> StoreRetention:
    from ofp_platform.online.ranges.retired_state import leftovers, remove_leftovers, remove_retired, retired_projections

    retention = plane.profile.retention
    policy = f"{retention.retired_projections} after they were retired"
    old = retired_projections(plane.pool, retention.retired_projections_us)
    rows = leftovers(plane.pool)
    rows += sum(one.rows for one in old if dry_run or remove_retired(plane.pool, one.projection_id))
    if not dry_run:
        remove_leftovers(plane.pool)
    detail = ", ".join(f"projection {one.projection_id}, retired {one.retired_at_utc}" for one in old)
    return StoreRetention("retired projections and their failures", policy, rows, "rows", detail)


def _scratch(environment: Environment, plane: Plane, dry_run: bool) -> StoreRetention:
    from ofp_platform.offline.runs.run_ledger import RunLedger
    from ofp_platform.offline.runs.scratch_folders import dead_folders

    folders = dead_folders(environment.folder / "builds", RunLedger(plane.pool), remove=not dry_run)
    detail = ", ".join(f"{folder.name[:12]} ({folder.why})" for folder in folders)
    return StoreRetention("scratch folders of builds", "as long as a build needs them", len(folders), "folders", detail)


def _accesses(environment: Environment, plane: Plane, dry_run: bool) -> StoreRetention:
    from ofp_platform.api.access_log import FOLDER, remove_accesses

    retention = plane.profile.retention
    until = int(time.time() * MICROS_PER_SECOND) - retention.accesses_us
    names = remove_accesses(environment.folder / FOLDER, until, dry_run=dry_run)
    policy = f"{retention.accesses} from the end of their day on"
    return StoreRetention("accesses to the HTTP service", policy, len(names), "files", ", ".join(names[:_NAMED]))


def _dagster(plane: Plane, dry_run: bool) -> StoreRetention:
    from ofp_platform.storage.dagster_events import count_old_events, remove_old_events

    retention = plane.profile.retention
    dsn = os.environ.get(_DAGSTER) or plane.dsn
    doing = count_old_events if dry_run else remove_old_events
    policy = f"{retention.dagster_events}, and the newest of each asset and partition for good"
    return StoreRetention("Dagster events", policy, doing(dsn, retention.dagster_events_us), "events")
