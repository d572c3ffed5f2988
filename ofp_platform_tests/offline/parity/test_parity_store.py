"""Parity records in the database: appended once, never otherwise, with rates by day and group."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from ofp_platform.offline.parity.parity_overview import _shown
from ofp_platform.offline.parity.parity_store import ParityRate, parity_counts, parity_rates, parity_requests, store_records
from ofp_platform.offline.parity.parity_summary import ParityUnreadable, parity_summary
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, AsOfSpec
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.parity_record import FeatureDifference, ParityOutcome, ParityResult, UncheckableReason
from ofp_platform.vocabulary.serving import FeatureGroupRef
from ofp_platform.vocabulary.times import parse_time

REQUEST, OTHER = "a" * 64, "b" * 64
GROUPS = (FeatureGroupRef(group_name="one", group_version="v1"), FeatureGroupRef(group_name="two", group_version="v3"))
MATCH, MISMATCH, UNCHECKABLE = ParityOutcome


def record(name: str, outcome: ParityOutcome = MATCH, day: int = 1, groups: tuple[FeatureGroupRef, ...] = GROUPS) -> ParityResult:
    digest = name * 64
    return ParityResult(
        comparison_id=REQUEST,
        decision_id=f"decision-{name}",
        online_snapshot_ref=digest,
        offline_snapshot_ref={MATCH: digest, MISMATCH: "0" * 64, UNCHECKABLE: None}[outcome],
        outcome=outcome,
        reason=UncheckableReason.REGISTRY_MISSING if outcome is UNCHECKABLE else None,
        as_of=AsOfSpec(as_of_time_utc=f"2026-01-0{day}T23:59:59.999999Z", as_of_basis=AsOfBasis.DECISION),
        feature_groups=groups,
        differences=(FeatureDifference(where="values", feature="count", served=None, rebuilt=3),) if outcome is MISMATCH else (),
    )


def test_records_are_appended_once_and_told_by_day_and_group(dsn: str) -> None:
    found = [record("1"), record("2", MISMATCH), record("3", day=2, groups=GROUPS[:1]), record("4", UNCHECKABLE, day=2)]
    with open_pool(dsn, max_size=2) as pool:
        assert store_records(pool, []) == 0
        assert store_records(pool, found) == 4
        assert store_records(pool, found[::-1]) == 0
        first, second = (parse_time(f"2026-01-0{day}T00:00:00Z") for day in (1, 2))
        assert parity_rates(pool, REQUEST) == [
            ParityRate(first, "one v1", 1, 1, 0),
            ParityRate(first, "two v3", 1, 1, 0),
            ParityRate(second, "one v1", 1, 0, 1),
            ParityRate(second, "two v3", 0, 0, 1),
        ]
        assert parity_counts(pool, REQUEST) == {"MATCH": 2, "MISMATCH": 1, "UNCHECKABLE": 1}
        assert parity_rates(pool, OTHER) == []
        assert parity_requests(pool) == parity_requests(pool, "aaaa") == [REQUEST]
        assert parity_requests(pool, "b") == []
        assert parity_summary(pool, REQUEST).mismatches == (found[1],)


def test_a_comparison_that_an_older_version_kept_is_refused_in_words(dsn: str) -> None:
    with open_pool(dsn, max_size=1) as pool:
        store_records(pool, [record("1", MISMATCH)])
        with pool.connection() as connection:
            connection.execute("""UPDATE ofp.parity_record SET record = replace(record, 'parity_result', 'ofs_parity_record')""")
        with pytest.raises(ParityUnreadable, match=REQUEST[:12]):
            parity_summary(pool, REQUEST)


def test_what_was_compared_is_never_compared_otherwise(dsn: str) -> None:
    with open_pool(dsn, max_size=2) as pool:
        store_records(pool, [record("1"), record("2", MISMATCH), record("3", UNCHECKABLE)])
        for other in (record("1", MISMATCH), record("1", UNCHECKABLE), record("2", MATCH)):
            with pytest.raises(BuildRefused, match="has changed") as caught:
                store_records(pool, [record("9"), other])
            assert caught.value.reason is BuildReason.PARITY_MISMATCH
        assert parity_counts(pool, REQUEST) == {"MATCH": 1, "MISMATCH": 1, "UNCHECKABLE": 1}
        # what could not be compared may be compared later
        assert store_records(pool, [record("3", MATCH)]) == 1
        assert parity_counts(pool, REQUEST) == {"MATCH": 2, "MISMATCH": 1}


@pytest.mark.parametrize(
    ("where", "value", "shown"),
    [
        ("values", [1, 2], [1, 2]),
        ("values", [{"category": "x", "value": 3}], [{"category": "x", "value": 3}]),
        ("values", 3, 3),
        ("values", {"count": 3}, None),
        ("warnings", ["NO_DATA"], None),
    ],
)
def test_a_list_is_shown_where_it_is_a_value(where: Literal["values", "warnings"], value: Any, shown: Any) -> None:
    assert _shown(FeatureDifference(where=where, served=value), value) == shown
