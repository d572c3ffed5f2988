"""Adjudications of conflicting ids, kept among the governance facts: who decided what, when and why, for good."""

from __future__ import annotations

from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.adjudication import Adjudication
from ofp_platform.vocabulary.offline.governance_fact import FACT, IdAdjudicated

_OF_STREAM = """
    SELECT content FROM ofp.governance_fact
    WHERE fact = 'id_adjudicated' AND content::jsonb ->> 'stream_name' = %s ORDER BY fact_number"""


def read_decisions(pool: Pool, stream_name: str, pins: ContextPins) -> list[IdAdjudicated]:
    """The decisions about ids of a run, oldest first; those that were replaced, too."""
    with pool.connection() as connection:
        rows = connection.execute(_OF_STREAM, (stream_name,)).fetchall()
    decisions = [FACT.validate_json(content) for (content,) in rows]
    return [decision for decision in decisions if isinstance(decision, IdAdjudicated) and decision.context_pins == pins]


def standing_adjudications(pool: Pool, stream_name: str, pins: ContextPins) -> tuple[Adjudication, ...]:
    """The last decision about each id of a run, in the order of class and id."""
    last = {decision.adjudication.name: decision.adjudication for decision in read_decisions(pool, stream_name, pins)}
    return tuple(last[name] for name in sorted(last))
