"""Incomplete provenance: why a record may not become a leaf yet. It goes into quarantine, is told, and is looked at again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import Connection

from ofp_platform.audit.leaf_sources import DECISION, Record
from ofp_platform.vocabulary.offline.decision_record import DecisionRecord

_SNAPSHOTS = "SELECT snapshot_hash FROM ofp.snapshot_index WHERE snapshot_hash = ANY(%s)"
_RULES = "SELECT digest FROM ofp.evidence WHERE digest = ANY(%s)"


def incomplete(connection: Connection[Any], leaf_kind: str, records: Sequence[Record]) -> dict[str, str]:
    """The records among these that cannot be a leaf: subject and reason.

    Of a decision of this installation the rule must be kept, too. What a principal sent names a rule of its own, by digest.
    """
    reasons = {record.subject: record.fault for record in records if record.fault is not None}
    if leaf_kind == DECISION:
        reasons |= _unproven_decisions(connection, [record for record in records if record.fault is None])
    return reasons


def _unproven_decisions(connection: Connection[Any], records: Sequence[Record]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    decisions: dict[str, DecisionRecord] = {}
    own = set()
    for record in records:
        assert record.content is not None
        assert record.row is not None
        try:
            decisions[record.subject] = DecisionRecord.model_validate_json(record.content)
        except ValueError:
            reasons[record.subject] = "its content is no decision record"
        if record.row["submitted_by"] is None:
            own.add(record.subject)
    snapshots = _present(connection, _SNAPSHOTS, (decision.feature_snapshot_hash for decision in decisions.values()))
    rules = _present(connection, _RULES, (decision.rule.digest for decision in decisions.values()))
    for subject, decision in decisions.items():
        if decision.feature_snapshot_hash not in snapshots:
            reasons[subject] = f"its snapshot {decision.feature_snapshot_hash} is not in the index"
        elif subject in own and decision.rule.digest not in rules:
            reasons[subject] = f"the text of its rule {decision.rule.digest} is not kept"
    return reasons


def _present(connection: Connection[Any], query: str, digests: Iterable[str]) -> set[str]:
    return {digest for (digest,) in connection.execute(query, (sorted(set(digests)),)).fetchall()}
