"""Recorded decisions as anchors: their stored bytes, unread, so that a damaged one is an outcome and not an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ofp_platform.offline.parity.parity_anchor import ParityAnchor
from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.storage.decision_records import decision_ids_in
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import DIGEST_PATTERN
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis

_PAGE = 4_096
_CONTENT = "SELECT decision_id, snapshot_hash, content FROM ofp.decision_record WHERE decision_id = ANY(%s) ORDER BY decision_id"
# out of the canonical text, not as JSON: one damaged record must not hide the others
_PROVENANCE = f"""
    SELECT DISTINCT substring(content FROM '"feature_definition_set":{{"digest":"({DIGEST_PATTERN.strip("^$")})"')
    FROM ofp.decision_record WHERE decision_id = ANY(%s)"""


def decisions_in(pool: Pool, pins: ContextPins, basis: ReplayBasis) -> list[str]:
    """The ids of the run's decisions on events inside a replay basis, sorted.

    Raises:
        BuildRefused: STORE_UNAVAILABLE.
    """
    with answering(), pool.connection() as connection:
        return decision_ids_in(connection, pins, basis)


def decision_anchors(pool: Pool, decision_ids: Sequence[str]) -> Iterator[ParityAnchor]:
    """The anchors of recorded decisions, a page at a time; ids that are not recorded are left out.

    Raises:
        BuildRefused: STORE_UNAVAILABLE.
    """
    for start in range(0, len(decision_ids), _PAGE):
        with answering(), pool.connection() as connection:
            rows = connection.execute(_CONTENT, (list(decision_ids[start : start + _PAGE]),)).fetchall()
        for decision_id, snapshot_hash, content in rows:
            yield ParityAnchor(snapshot_hash, content.encode(), decision_id)


def registries_of(pool: Pool, decision_ids: Sequence[str]) -> list[str]:
    """The digests of the packs under which these decisions were served, sorted.

    Raises:
        BuildRefused: STORE_UNAVAILABLE.
    """
    digests: set[str] = set()
    for start in range(0, len(decision_ids), _PAGE):
        with answering(), pool.connection() as connection:
            digests.update(
                digest for (digest,) in connection.execute(_PROVENANCE, (list(decision_ids[start : start + _PAGE]),)) if digest
            )
    return sorted(digests)
