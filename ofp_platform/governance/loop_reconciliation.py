"""Reconciles the loop of one run: the events between where the decider began and where it stands, and what stands for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import Connection

from ofp_platform.log.governance_log import ComparedFacts
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.loop_reconciliation import LoopReconciliation
from ofp_platform.vocabulary.position import Basis

_MOST_NAMED = 5
_DECIDED = """
    SELECT event_id, count(*) FROM ofp.decision_record
    WHERE pins_digest = %s AND content::jsonb ->> 'contract_version' = 'v1' AND content::jsonb ->> 'event_type' = %s
        AND content::jsonb ->> 'slot' = 'active' GROUP BY event_id"""
_SHADOW = """
    SELECT count(*) FROM ofp.decision_record
    WHERE pins_digest = %s AND content::jsonb ->> 'contract_version' = 'v1' AND content::jsonb ->> 'event_type' = %s
        AND content::jsonb ->> 'slot' = 'shadow'"""
_LEAVES = """
    SELECT count(*) FILTER (WHERE leaf.subject IS NOT NULL),
        count(*) FILTER (WHERE leaf.subject IS NULL AND aside.subject IS NULL),
        count(*) FILTER (WHERE leaf.subject IS NULL AND aside.subject IS NOT NULL)
    FROM ofp.decision_record AS record
        LEFT JOIN ofp.audit_leaf AS leaf ON leaf.leaf_kind = 'decision' AND leaf.subject = record.decision_id
        LEFT JOIN (SELECT DISTINCT subject FROM ofp.audit_quarantine WHERE leaf_kind = 'decision') AS aside
            ON aside.subject = record.decision_id
    WHERE record.pins_digest = %s AND record.content::jsonb ->> 'contract_version' = 'v1'
        AND record.content::jsonb ->> 'event_type' = %s"""
_ACTIONS = """
    SELECT count(*), count(*) FILTER (WHERE o.outcome = 'EXECUTED'), count(*) FILTER (WHERE o.outcome = 'DENIED'),
        count(*) FILTER (WHERE o.outcome = 'FAILED'), count(*) FILTER (WHERE o.outcome IS NULL)
    FROM ofp.action_intent LEFT JOIN ofp.action_outcome AS o USING (intent_id) WHERE pins_digest = %s"""
# a label is one however often it was asked for; of several answers the first counts, as where a case stands says
_LABELS = """
    SELECT count(*), count(*) FILTER (WHERE answer = 'LABEL_ACCEPTED'), count(*) FILTER (WHERE answer = 'LABEL_REJECTED')
    FROM (
        SELECT DISTINCT case_id, content::jsonb ->> 'assertion_id' AS assertion_id FROM ofp.case_entry
        WHERE pins_digest = %(run)s AND entry_type = 'LABEL_PENDING'
    ) AS asserted LEFT JOIN LATERAL (
        SELECT entry_type AS answer FROM ofp.case_entry AS entry
        WHERE entry.pins_digest = %(run)s AND entry.entry_type IN ('LABEL_ACCEPTED', 'LABEL_REJECTED')
            AND entry.source_ref = asserted.assertion_id AND entry.case_id = asserted.case_id
        ORDER BY sequence LIMIT 1
    ) AS answered ON true"""


def reconcile_loop(
    connection: Connection[Any],
    pins: ContextPins,
    event_type: str,
    event_ids: Iterable[str],
    between: tuple[Basis, Basis],
    facts: ComparedFacts,
) -> LoopReconciliation:
    """The sums of a run. `event_ids`: of the events of the type that stand in the log between the two bases, as often as they do;
    `facts`: the governance facts of the database, compared with their stream.

    Raises:
        psycopg.Error: the database does not answer.
    """
    run = pins_digest(pins)
    traffic = set(event_ids)
    decided_counts: Counter[str] = Counter(dict(connection.execute(_DECIDED, (run, event_type)).fetchall()))
    [(shadow_count,)] = connection.execute(_SHADOW, (run, event_type)).fetchall()
    [(leaf_count, unproven, quarantined)] = connection.execute(_LEAVES, (run, event_type)).fetchall()
    [(intents, executed, denied, failed, open_intents)] = connection.execute(_ACTIONS, (run,)).fetchall()
    [(asserted, accepted, rejected)] = connection.execute(_LABELS, {"run": run}).fetchall()
    decisions = decided_counts.total()
    differences = [
        *_name_some("events without a decision", sorted(traffic - decided_counts.keys())),
        *_name_some("decisions on events that do not stand there", sorted(decided_counts.keys() - traffic)),
        *_name_some("governance facts without a message on their stream", facts.without_message),
        *_name_some("messages on the stream of governance without a fact", facts.without_fact),
        *_name_some("events decided on more than once", sorted(name for name, count in decided_counts.items() if count > 1)),
    ]
    sums = (
        ("intents without an outcome", open_intents),
        ("decisions behind the newest head of the audit log", unproven),
        ("decisions of incomplete provenance, in quarantine", quarantined),
        ("labels that the label store has not answered", asserted - accepted - rejected),
    )
    differences += [f"{count:,} {words}" for words, count in sums if count]
    return LoopReconciliation(
        context_pins=pins,
        event_type=event_type,
        begin=between[0],
        end=between[1],
        traffic=len(traffic),
        decisions=decisions,
        shadow_decisions=shadow_count,
        intents=intents,
        executed=executed,
        denied=denied,
        failed=failed,
        open_intents=open_intents,
        decision_leaves=leaf_count,
        unproven_decisions=unproven,
        quarantined_decisions=quarantined,
        labels_asserted=asserted,
        labels_accepted=accepted,
        labels_rejected=rejected,
        labels_pending=asserted - accepted - rejected,
        governance_facts=facts.fact_count,
        governance_messages=facts.message_count,
        differences=tuple(differences),
    )


def keep_reconciliation(objects: ObjectStore, report: LoopReconciliation) -> str:
    """Write a report once, under its digest; its path.

    Raises:
        ObjectStoreUnavailable | ObjectConflict: see there.
    """
    path = f"loop/reconciliation/{pins_digest(report.context_pins)[:16]}/{report.digest}.json"
    objects.put_same(path, report.stored())
    return path


def _name_some(words: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return [f"{len(names):,} {words}: {', '.join(names[:_MOST_NAMED])}{more}"]
