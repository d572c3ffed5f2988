"""What follows from decisions as assets: actions, the audit log, cases; and the reconciliation of the loop, to the unit."""

import time
from collections.abc import Iterator

import dagster as dg

from ofp_platform.audit.database_view import database_view
from ofp_platform.audit.tree_heads import AuditRefused
from ofp_platform.audit.verification import Verification, verify_log
from ofp_platform.cases.triggering import count_uncollected
from ofp_platform.cli.offline.loop_sums import sum_up_loop
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.governance.loop_reconciliation import keep_reconciliation
from ofp_platform.online.plane import Plane
from ofp_platform.orchestration.log.event_assets import LOG_EVENTS, OWNERS
from ofp_platform.orchestration.log.group_assets import group_asset
from ofp_platform.orchestration.offline.build_assets import LABELS
from ofp_platform.orchestration.offline.build_plots import counts_by_name
from ofp_platform.orchestration.offline.decision_assets import DECISIONS, LOOP
from ofp_platform.orchestration.receipt_metadata import Metadata, markdown_table
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.storage.action_records import count_actions
from ofp_platform.storage.case_entries import count_cases, count_conflicts, count_pending_labels, straying_cases
from ofp_platform.storage.posture_challenges import live_deciders
from ofp_platform.vocabulary.loop.action import ActionState
from ofp_platform.vocabulary.loop.loop_reconciliation import LoopReconciliation
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time

ACTIONS = dg.AssetKey(["loop", "actions"])
AUDIT_HEADS = dg.AssetKey(["loop", "audit_heads"])
CASES = dg.AssetKey(["loop", "cases"])
LABEL_STORE = dg.AssetKey(["loop", "labels"])
RECONCILIATION = dg.AssetKey(["loop", "reconciliation"])
HEADS_FOLLOW = "heads_follow"
NOTHING_UNKNOWN, LOG_WHOLE, LABELS_ANSWERED, BALANCES = "nothing_unknown", "log_whole", "labels_answered", "balances"
DECIDER_FOLLOWS, CASES_COLLECTED = "decider_follows", "cases_collected"
NEXT_ROUND = "next_round"
"""Name of the metadata that names the asset with which the next round of the loop goes on."""
_MOST_SHOWN = 20
_COLLECTING_SECONDS = 300  # a decision that is younger may be collected yet
_MOST_HOURS = 2  # twice the pause of the schedule that appends


@group_asset(
    LOOP,
    ACTIONS,
    deps=[DECISIONS],
    description="Intents of actions of the run, and where they stand. `ofp action run` does them.",
    check_specs=[
        dg.AssetCheckSpec(
            NOTHING_UNKNOWN,
            asset=ACTIONS,
            description="Of no intent it is unknown whether it was done. `ofp action settle` answers for those of which it is.",
        )
    ],
)
def loop_actions(plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.MaterializeResult[object]]:
    """Count them."""
    with plane.open_without_log("auditor") as opened_plane, opened_plane.pool.connection() as connection:
        counts = count_actions(connection, opened_plane.profile.context_pins)
    unknown_count = counts.get(ActionState.UNKNOWN, 0)
    metadata: Metadata = {"dagster/row_count": sum(counts.values())}
    if counts:
        metadata["states"] = counts_by_name(
            {state.value: count for state, count in counts.items()}, "intents", "intents by state"
        )
    check = dg.AssetCheckResult(
        check_name=NOTHING_UNKNOWN,
        passed=not unknown_count,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{unknown_count:,} intents are UNKNOWN" if unknown_count else None if counts else "nothing was wanted",
    )
    yield dg.MaterializeResult(metadata=metadata, check_results=[check])


@group_asset(
    LOOP,
    AUDIT_HEADS,
    deps=[DECISIONS, ACTIONS],
    description=(
        "The audit log with its signed heads, verified whole. `ofp audit append`, or the schedule `append_audit_hourly`, makes"
        " leaves and heads."
    ),
    check_specs=[
        dg.AssetCheckSpec(
            LOG_WHOLE,
            asset=AUDIT_HEADS,
            blocking=True,
            description="Each leaf, node, root, head, signature and object is sound, and each record is as its leaf says.",
        ),
        dg.AssetCheckSpec(
            HEADS_FOLLOW,
            asset=AUDIT_HEADS,
            description=f"No record waits for a head while the newest is more than {_MOST_HOURS} hours old: somebody appends.",
        ),
    ],
)
def audit_heads(plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.MaterializeResult[object]]:
    """Verify it."""
    try:
        with (
            plane.open_without_log("auditor") as opened_plane,
            database_view(opened_plane.pool, opened_plane.objects) as view,
        ):
            verification = verify_log(view)
    except AuditRefused as refused:
        raise dg.Failure(str(refused), allow_retries=False) from None
    metadata: Metadata = {
        "dagster/row_count": verification.leaf_count,
        "heads": verification.head_count,
        "proven_leaves": verification.proven_leaves,
        "behind_newest_head": markdown_table(["kind", "records"], sorted(verification.pending.items())),
        "in_quarantine": markdown_table(["kind", "record", "reason"], verification.quarantined[:_MOST_SHOWN]),
    }
    version = None
    if verification.head is not None:
        metadata["head"] = f"{verification.head.tree_size:,} leaves, root {verification.head.root_hash}"
        version = dg.DataVersion(verification.head.root_hash)
    check = dg.AssetCheckResult(
        check_name=LOG_WHOLE,
        passed=not verification.faults,
        description="\n".join(fault.line for fault in verification.faults[:_MOST_SHOWN]) or None,
        metadata={"faults": len(verification.faults)},
    )
    follows = _heads_follow(verification, time.time())
    yield dg.MaterializeResult(metadata=metadata, check_results=[check, follows], data_version=version)


def _heads_follow(verification: Verification, now: float) -> dg.AssetCheckResult:
    """Whether somebody appends to the log; `now`: seconds since 1970."""
    waiting_count, head = sum(verification.pending.values()), verification.head
    age_hours = None if head is None else (now - parse_time(head.at_utc) / MICROS_PER_SECOND) / 3600
    stands_still = waiting_count > 0 and (age_hours is None or age_hours > _MOST_HOURS)
    since = "there is no head" if age_hours is None else f"the newest head is {age_hours:,.1f} hours old"
    return dg.AssetCheckResult(
        check_name=HEADS_FOLLOW,
        passed=not stands_still,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{waiting_count:,} records wait for a head, and {since}: `ofp audit append`" if stands_still else None,
    )


@group_asset(
    LOOP,
    CASES,
    deps=[DECISIONS, ACTIONS],
    description="Cases of the run, by state, and their labels. `ofp case` and the console work on them.",
    check_specs=[
        dg.AssetCheckSpec(
            LABELS_ANSWERED,
            asset=CASES,
            description="The label store answered each label, no entry came again otherwise, and the queue is what entries say.",
        ),
        dg.AssetCheckSpec(
            CASES_COLLECTED,
            asset=CASES,
            description="What was decided to review or to decline, failed or contradicted itself has a case: somebody collects.",
        ),
    ],
)
def loop_cases(plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.MaterializeResult[object]]:
    """Count them."""
    with plane.open_without_log("auditor") as opened_plane, opened_plane.pool.connection() as connection:
        pins = opened_plane.profile.context_pins
        counts, conflicts = count_cases(connection, pins), count_conflicts(connection, pins)
        pending_count, straying = count_pending_labels(connection, pins), straying_cases(connection, pins)
        uncollected = count_uncollected(connection, pins, time.time_ns() // 1_000 - _COLLECTING_SECONDS * MICROS_PER_SECOND)
    metadata: Metadata = {
        "dagster/row_count": sum(counts.values()),
        "pending_labels": pending_count,
        "conflicts": conflicts,
        **{state.value.lower(): count for state, count in counts.items()},
    }
    problems = [
        *([f"{pending_count:,} labels wait for an answer: `ofp case settle`"] if pending_count else []),
        *([f"{conflicts:,} entries came again with other content"] if conflicts else []),
        *([f"{len(straying):,} cases stand elsewhere than their entries say, first {straying[0]}"] if straying else []),
    ]
    check = dg.AssetCheckResult(
        check_name=LABELS_ANSWERED,
        passed=not problems,
        severity=dg.AssetCheckSeverity.WARN,
        description="\n".join(problems) or (None if counts else "there is no case"),
    )
    waiting = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in uncollected._asdict().items() if count)
    collected = dg.AssetCheckResult(
        check_name=CASES_COLLECTED,
        passed=not any(uncollected),
        severity=dg.AssetCheckSeverity.WARN,
        description=f"without a case: {waiting}; `ofp case collect --every SECONDS` opens them" if waiting else None,
        metadata={f"{name}_without_a_case": count for name, count in uncollected._asdict().items()},
    )
    yield dg.MaterializeResult(metadata=metadata, check_results=[check, collected])


label_store = dg.AssetSpec(
    LABEL_STORE,
    deps=[CASES, dg.AssetDep(LOG_EVENTS, partition_mapping=dg.AllPartitionMapping())],
    description="The label store: what reports of the log say about events, and what investigators said in cases. Appended by"
    " others (`ofp labels load`, `ofp case assert`, HTTP). Training sets that are built after it know it: the next round.",
    # Dagster's graph has no circles, and the loop is one: its last link is told here
    metadata={NEXT_ROUND: dg.MetadataValue.asset(LABELS)},
    group_name=LOOP,
    kinds={"postgres"},
    owners=OWNERS,
)


@group_asset(
    LOOP,
    RECONCILIATION,
    deps=[DECISIONS, ACTIONS, AUDIT_HEADS, CASES],
    description="The sums of the loop of the run, up to where the decider stands, kept as a write-once report.",
    check_specs=[
        dg.AssetCheckSpec(
            BALANCES,
            asset=RECONCILIATION,
            blocking=True,
            description=(
                "Traffic = decisions, intents = outcomes, decisions = leaves of the audit log, labels asserted = accepted +"
                " rejected, governance facts = messages; to the unit."
            ),
        ),
        dg.AssetCheckSpec(
            DECIDER_FOLLOWS,
            asset=RECONCILIATION,
            description="No record of the log stands behind the decider's place while no decider is live: somebody decides.",
        ),
    ],
)
def loop_reconciliation(plane: dg.ResourceParam[PlaneResource]) -> Iterator[dg.MaterializeResult[object]]:
    """Sum up, and keep it."""
    with plane.open("auditor") as opened_plane:
        try:
            report = sum_up_loop(opened_plane)
        except CommandRefused as refused:
            raise dg.Failure(str(refused), allow_retries=False) from None
        path = keep_reconciliation(opened_plane.objects, report)
        follows = _decider_follows(opened_plane, report)
    check = dg.AssetCheckResult(
        check_name=BALANCES, passed=not report.differences, description="\n".join(report.differences) or None
    )
    metadata: Metadata = {"report": path, "sums": markdown_table(["sum", "of", "difference"], _sums(report))}
    yield dg.MaterializeResult(metadata=metadata, check_results=[check, follows], data_version=dg.DataVersion(report.digest))


def _decider_follows(plane: Plane, report: LoopReconciliation) -> dg.AssetCheckResult:
    """Whether somebody decides on what came behind the sums: they reach no further than the decider does."""
    lag = sum(plane.log.ordinal_lag(report.end).values())
    with plane.pool.connection() as connection:
        names = live_deciders(connection, report.context_pins)
    words = f"{lag:,} records of the log stand behind the decider's place"
    stands_still = lag > 0 and not names
    return dg.AssetCheckResult(
        check_name=DECIDER_FOLLOWS,
        passed=not stands_still,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{words}, and no decider is live: `ofp decider run`" if stands_still else words,
        metadata={"lag_records": lag, "live_deciders": ", ".join(names) or "none"},
    )


def _sums(report: LoopReconciliation) -> Iterator[tuple[str, str, int]]:
    """The columns that balance, each with what is missing."""
    yield f"traffic {report.traffic:,}", f"decisions {report.decisions:,}", report.traffic - report.decisions
    done = f"executed {report.executed:,} + denied {report.denied:,} + failed {report.failed:,}"
    yield f"intents {report.intents:,}", done, report.open_intents
    decided = report.decisions + report.shadow_decisions
    yield f"decisions of both slots {decided:,}", f"leaves {report.decision_leaves:,}", decided - report.decision_leaves
    answered = f"accepted {report.labels_accepted:,} + rejected {report.labels_rejected:,}"
    yield f"labels {report.labels_asserted:,}", answered, report.labels_pending
    facts, messages = report.governance_facts, report.governance_messages
    yield f"governance facts {facts:,}", f"messages {messages:,}", facts - messages


observe_loop_job = dg.define_asset_job(
    "observe_loop",
    dg.AssetSelection.assets(DECISIONS, ACTIONS, AUDIT_HEADS, CASES, RECONCILIATION),
    description="Make all decisions again, verify the audit log, count actions and cases, and sum up the loop to the unit.",
)
