"""Incomplete provenance: why a record may not become a leaf yet. It goes into quarantine, is told, and is looked at again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import Connection

from ofp_platform.audit.leaf_sources import DECISION, Record
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord

_SNAPSHOTS = "SELECT snapshot_hash FROM ofp.snapshot_index WHERE snapshot_hash = ANY(%s)"
_BUNDLES = "SELECT DISTINCT bundle_digest FROM ofp.bundle_event WHERE step = 'PUBLISHED' AND bundle_digest = ANY(%s)"
_RULES = "SELECT digest FROM ofp.evidence WHERE digest = ANY(%s)"


def incomplete(connection: Connection[Any], leaf_kind: str, records: Sequence[Record]) -> dict[str, str]:
    """The records among these that cannot be a leaf: subject and reason.

    Of a decision of this installation the rule must be kept, too, or the bundle published. What a principal sent names a rule of
    its own, by digest.
    """
    reasons = {record.subject: record.fault for record in records if record.fault is not None}
    if leaf_kind == DECISION:
        reasons |= _unproven_decisions(connection, [record for record in records if record.fault is None])
    return reasons


def _unproven_decisions(connection: Connection[Any], records: Sequence[Record]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    decisions: dict[str, DecisionRecord] = {}
    own_subjects = set()
    for record in records:
        assert record.content is not None
        assert record.row is not None
        try:
            decisions[record.subject] = DecisionRecord.model_validate_json(record.content)
        except ValueError:
            reasons[record.subject] = "its content is no decision record"
        if record.row["submitted_by"] is None:
            own_subjects.add(record.subject)
    hashes = {subject: decision.feature_snapshot_hash for subject, decision in decisions.items()}
    snapshots = _present(connection, _SNAPSHOTS, filter(None, hashes.values()))
    rules = _present(connection, _RULES, (decision.rule.digest for decision in decisions.values() if decision.rule is not None))
    bundle_digests = {
        subject: decision.bundle.bundle.digest for subject, decision in decisions.items() if decision.bundle is not None
    }
    bundles = _present(connection, _BUNDLES, bundle_digests.values())
    for subject, decision in decisions.items():
        if hashes[subject] is not None and hashes[subject] not in snapshots:
            reasons[subject] = f"its snapshot {hashes[subject]} is not in the index"
        elif subject in own_subjects and decision.rule is not None and decision.rule.digest not in rules:
            reasons[subject] = f"the text of its rule {decision.rule.digest} is not kept"
        elif subject in bundle_digests and bundle_digests[subject] not in bundles:
            reasons[subject] = f"its bundle {bundle_digests[subject]} was never published"
    return reasons


def _present(connection: Connection[Any], query: str, digests: Iterable[str]) -> set[str]:
    return {digest for (digest,) in connection.execute(query, (sorted(set(digests)),)).fetchall()}
