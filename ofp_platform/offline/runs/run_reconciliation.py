"""The reconciliation of a run, one object to compare with the ledger: the plan, every receipt, the outcome.

It is written when a run ended, once for each ending, and never again: `ofs/reconciliation/<run>/<attempts>-<publications>.json`.
It holds no time of the clock, so whoever writes it writes the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from ofp_platform.offline.runs.run_ledger import RunLedger, readable_runs
from ofp_platform.storage.objects import ObjectConflict, ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of
from ofp_platform.vocabulary.offline.build_intent import DatasetBuild
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.offline.governance_fact import BuildCompleted, BuildFailed, BuildSuperseded, GovernanceFact
from ofp_platform.vocabulary.offline.reconciliation import Reconciliation

FINISHED = (RunState.DONE, RunState.FAILED)
_FINISHED_SINCE = """
    SELECT *, to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS changed_text FROM ofp.build_run
    WHERE state IN ('DONE', 'FAILED') AND (changed_at, run_key) > (%(moment)s::timestamptz, %(run_key)s)
        AND changed_at <= clock_timestamp() - make_interval(secs => %(settled)s)
    ORDER BY changed_at, run_key LIMIT %(page)s"""
_PAGE = 50


class ReconciliationConflict(Exception):
    """The object of this ending exists with another content: somebody changed the ledger or the object."""


@dataclass(frozen=True, order=True)
class Ending:
    """A position in the order in which runs end; the default is before all of them."""

    changed_at_utc: str = "1970-01-01T00:00:00Z"
    run_key: str = ""


def finished_since(pool: Pool, after: Ending, *, settled_seconds: float) -> list[tuple[Ending, BuildRun]]:
    """The first runs that ended after `after`, in that order, at most 50; none: there is no other. Those of an older form, which
    nobody here can read, are passed over.

    Only endings older than `settled_seconds`: one that is being committed now must not come in behind a later one.
    """
    while True:
        arguments = {"moment": after.changed_at_utc, "run_key": after.run_key, "settled": settled_seconds, "page": _PAGE}
        with pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(_FINISHED_SINCE, arguments).fetchall()
        readable = {run.run_key: run for run in readable_runs(rows)}
        endings = [Ending(row["changed_text"], row["run_key"]) for row in rows]
        found = [(ending, readable[ending.run_key]) for ending in endings if ending.run_key in readable]
        if found or len(rows) < _PAGE:
            return found
        after = endings[-1]


def reconcile(ledger: RunLedger, objects: ObjectStore, run: BuildRun) -> str:
    """Write the reconciliation of a run that ended; its path. Idempotent.

    Raises:
        ValueError: the run has not ended. ReconciliationConflict: see there. ObjectStoreUnavailable: call again.
    """
    if run.state not in FINISHED:
        raise ValueError(f"run {run.run_key} is {run.state.value}: there is nothing to reconcile yet")
    path = reconciliation_path(run)
    data = canonical_bytes(_reconciliation(ledger, run).wire())
    try:
        objects.put_same(path, data)
    except ObjectConflict as error:
        raise ReconciliationConflict(f"{path} in {objects.url} is not what the ledger says of run {run.run_key}") from error
    return path


def reconciliation_path(run: BuildRun) -> str:
    """Where the reconciliation of the ending of these attempts stands."""
    return f"ofs/reconciliation/{run.run_key}/{run.attempts}-{run.publish_attempts}.json"


def governance_facts(run: BuildRun, reconciliation: str) -> list[GovernanceFact]:
    """The governance facts of a run that ended: completed or failed, and which dataset it superseded."""
    intent, outcome = run.intent, run.outcome or {}
    common_fields: dict[str, Any] = {
        "request_id": run.run_key,
        "intent": intent.intent,
        "submitted_by": intent.submitted_by,
        "attempts": run.attempts,
        "publish_attempts": run.publish_attempts,
        "plan_digest": run.plan_digest,
        "reconciliation": reconciliation,
        "dataset_name": intent.dataset_name if isinstance(intent, DatasetBuild) else None,
    }
    if run.state is RunState.FAILED:
        return [BuildFailed(**common_fields, refusal=run.refusal)]
    facts: list[GovernanceFact] = [BuildCompleted(**common_fields, outcome=run.outcome)]  # type: ignore[arg-type]
    if isinstance(intent, DatasetBuild) and intent.supersedes is not None:
        facts.append(
            BuildSuperseded(
                **common_fields,
                outcome=run.outcome,  # type: ignore[arg-type]
                dataset_identity=intent.supersedes,
                superseded_by=outcome["dataset_identity"],
            )
        )
    return facts


def _reconciliation(ledger: RunLedger, run: BuildRun) -> Reconciliation:
    receipts = [
        {
            "stage": receipt.stage,
            "attempt": receipt.attempt,
            "publish_attempt": receipt.publish_attempt,
            "digest": receipt.digest,
            "is_whole": digest_of(receipt.content) == receipt.digest,
        }
        for receipt in ledger.receipts(run.run_key)
        if (receipt.attempt, receipt.publish_attempt) <= (run.attempts, run.publish_attempts)
    ]
    content = {
        "request_id": run.run_key,
        "state": run.state.value,
        "attempts": run.attempts,
        "publish_attempts": run.publish_attempts,
        "plan_digest": run.plan_digest,
        "receipts": receipts,
        "refusal": run.refusal,
        "outcome": run.outcome,
    }
    return Reconciliation.model_validate(content)
