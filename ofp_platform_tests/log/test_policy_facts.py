"""A policy that is taken up is told once for each change, of each run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ofp_platform.log.policy_facts import note_policy
from ofp_platform.storage.governance_facts import read_facts
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.governance_fact import PolicyInForce

PINS = ContextPins(scenario_id="policies", run_id="policies-1", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
OTHER = PINS.model_copy(update={"run_id": "policies-2"})


def note(pool: Pool, rev: str, pins: ContextPins = PINS) -> bool:
    with pool.connection() as connection, connection.transaction():
        return note_policy(connection, pins, "class_map", rev)


def ways(pool: Pool, pins: ContextPins = PINS) -> list[tuple[str | None, str]]:
    """From which policy to which, the first first."""
    facts = [recorded.fact for recorded in reversed(read_facts(pool, "policy_in_force", limit=1_000))]
    return [(fact.former_rev, fact.rev) for fact in facts if isinstance(fact, PolicyInForce) and fact.context_pins == pins]


def test_each_change_is_told_once(dsn: str) -> None:
    with open_pool(dsn) as pool:
        assert [note(pool, rev) for rev in ("a", "a", "b", "b", "a", "b", "a", "a")] == [
            True,
            False,
            True,
            False,
            True,
            True,
            True,
            False,
        ]
        assert ways(pool) == [(None, "a"), ("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")]
        assert note(pool, "a", OTHER)
        assert ways(pool, OTHER) == [(None, "a")]
        with pool.connection() as connection, connection.transaction():
            assert note_policy(connection, PINS, "action_policy", "a")
        newest = read_facts(pool, about="a", limit=1)[0].fact
        assert isinstance(newest, PolicyInForce)
        assert (newest.policy_kind, newest.former_fact) == ("action_policy", None)


def test_many_who_take_it_up_at_once_tell_once(dsn: str) -> None:
    with open_pool(dsn, max_size=8) as pool, ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda _: note(pool, "c"), range(24)))
        assert told.count(True) == 1
        assert ways(pool) == [(None, "c")]
