"""Policies that were taken up, among the governance facts: one for each change, however often a policy is read."""

from __future__ import annotations

from typing import Any, Literal

from psycopg import Connection

from ofp_platform.log.governance_log import append_facts_with
from ofp_platform.storage.governance_facts import role_of
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.offline.governance_fact import PolicyInForce

_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('ofp.policy_in_force/' || %s || %s, 0))"
_LAST = """
    SELECT digest, content::jsonb ->> 'rev' FROM ofp.governance_fact
    WHERE fact = 'policy_in_force' AND content::jsonb ->> 'policy_kind' = %s AND content::jsonb -> 'context_pins' = %s::jsonb
    ORDER BY fact_number DESC LIMIT 1"""


def note_policy(
    connection: Connection[Any], pins: ContextPins, policy_kind: Literal["action_policy", "class_map"], rev: str
) -> bool:
    """Append a fact, in the caller's transaction, unless that policy is the last that was taken up in the run; whether it was.

    Raises:
        psycopg.Error: nothing was appended; call again.
    """
    connection.execute(_ONE_AT_A_TIME, (pins_digest(pins), policy_kind))
    pins_text = canonical_bytes(pins.model_dump(mode="json")).decode("utf-8")
    last = connection.execute(_LAST, (policy_kind, pins_text)).fetchone()
    if last is not None and last[1] == rev:
        return False
    fact = PolicyInForce(
        context_pins=pins,
        policy_kind=policy_kind,
        rev=rev,
        former_rev=None if last is None else last[1],
        former_fact=None if last is None else last[0],
        actor=role_of(connection),
    )
    append_facts_with(connection, [fact])
    return True
