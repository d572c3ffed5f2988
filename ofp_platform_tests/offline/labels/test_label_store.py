"""The label store against the law read aloud, its idempotency, its guards, and two appenders at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofp_platform.offline.labels.label_columns import LABEL_SCHEMA, OBSERVED_TIME, label_columns
from ofp_platform.offline.labels.label_leakage import check_no_leak
from ofp_platform.offline.labels.label_store import AppendReceipt, LabelStore
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy, LabelBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.labels import label_row, resolve

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
_runs = count()


def new_run() -> ContextPins:
    """Pins that no other test has used."""
    return ContextPins(scenario_id="labels", run_id=f"run-{next(_runs)}", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)


def assertion(event_id: str, observed: int, value: int = 1, **more: Any) -> LabelAssertion:
    """Observed at START + observed microseconds."""
    usual = {"label_type": "fraud", "source": "desk", "effective_time_utc": format_time(START)}
    return LabelAssertion(event_id=event_id, value=value, observed_time_utc=format_time(START + observed), **(usual | more))


def basis(as_of: int, maturity_seconds: int = 5, label_type: str = "fraud") -> LabelBasis:
    return LabelBasis(label_type=label_type, as_of_utc=format_time(START + as_of), maturity_seconds=maturity_seconds)


def policy(unlabelled_means: int | None = None, coverage: str = "0.0") -> BuildPolicy:
    return BuildPolicy(policy_id="test", revision=1, min_label_coverage=coverage, unlabelled_means=unlabelled_means)


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


MOMENTS = st.one_of(st.integers(-2, 12).map(lambda second: second * SECOND), st.integers(0, 10 * SECOND))
ASSERTIONS = st.lists(
    st.builds(
        assertion,
        st.sampled_from(("e-1", "e-2", "e-3", "E:4/x_.", "NA", "12")),
        MOMENTS,
        st.sampled_from((0, 1, -7, 2**53 - 1)),
        source=st.sampled_from(("desk", "bank")),
        label_type=st.sampled_from(("fraud", "fraud", "dispute")),
    ),
    max_size=25,
)
ROWS = st.lists(st.tuples(st.sampled_from(("e-1", "e-2", "e-3", "E:4/x_.", "NA", "12", "none")), MOMENTS), max_size=15)


@settings(max_examples=60)
@given(
    assertions=ASSERTIONS,
    cuts=st.lists(st.integers(0, 25), max_size=3),
    rows=ROWS,
    as_of=MOMENTS,
    maturity=st.integers(0, 6),
    means=st.sampled_from((None, 0, 5)),
)
def test_columns_are_those_of_the_law(
    pool: Pool,
    assertions: list[LabelAssertion],
    cuts: list[int],
    rows: list[tuple[str, int]],
    as_of: int,
    maturity: int,
    means: int | None,
) -> None:
    store = LabelStore(pool, new_run())
    edges = [0, *sorted(cuts), len(assertions)]
    for start, stop in pairwise(edges):
        store.append(assertions[start:stop])
    resolved = store.resolve(basis(as_of, maturity))
    expected = {
        one.event_id: found.assertion_id
        for one in assertions
        if (found := resolve(assertions, one.event_id, "fraud", START + as_of)) is not None
    }
    assert dict(zip(*(resolved.table[name].to_pylist() for name in ("event_id", "assertion_id")), strict=True)) == expected

    ids, ts = pa.array([event_id for event_id, _ in rows], pa.string()), np.array([START + at for _, at in rows], np.int64)
    columns = label_columns(resolved, ids, ts, policy(means))
    assert columns.schema == LABEL_SCHEMA
    columns.validate(full=True)
    found_rows = list(
        zip(
            columns["label_value"].to_pylist(),
            columns["label_observed_time"].cast(pa.int64()).to_pylist(),
            columns["label_is_mature"].to_pylist(),
            strict=True,
        )
    )
    assert found_rows == [
        label_row(assertions, event_id, START + at, "fraud", START + as_of, maturity * SECOND, means) for event_id, at in rows
    ]
    labelled = sum(value is not None for value, _, _ in found_rows)
    every = store.assertions("fraud")
    assert every.num_rows == len({one.assertion_id for one in assertions if one.label_type == "fraud"})
    assert check_no_leak(columns, ids, ts, basis(as_of, maturity), policy(means), every) == labelled


def test_ids_may_come_in_chunks_and_large_strings(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    store.append([assertion("e-2", 0)])
    ids = pa.chunked_array([["e-1"], ["e-2", "e-2"], []], pa.large_string())
    columns = label_columns(store.resolve(basis(SECOND)), ids, np.full(3, START, np.int64), policy())
    assert columns["label_value"].to_pylist() == [None, 1, 1]
    with pytest.raises(ValueError, match="3 event ids, but 2 times"):
        label_columns(store.resolve(basis(SECOND)), ids, np.full(2, START, np.int64), policy())


def test_an_append_is_idempotent(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    first = [assertion("e-1", 0), assertion("e-2", 0), assertion("e-1", 0)]
    assert store.append(first) == AppendReceipt(2, 1)
    assert store.append([*first, assertion("e-1", 1)]) == AppendReceipt(1, 3)
    assert store.append([]) == AppendReceipt(0, 0)
    assert store.assertions("fraud").num_rows == 3
    assert (store.known_until("fraud"), store.known_until("fraud", START)) == (START + 1, START)
    assert (store.known_until("fraud", START - 1), store.known_until("other")) == (None, None)


def test_a_failed_append_leaves_nothing(pool: Pool) -> None:
    store = LabelStore(pool, new_run())

    def broken() -> Iterator[LabelAssertion]:
        yield assertion("e-1", 0)
        raise RuntimeError("the file ends here")

    with pytest.raises(RuntimeError, match="the file ends here"):
        store.append(broken())
    assert store.assertions("fraud").num_rows == 0


def test_another_run_has_other_labels(pool: Pool) -> None:
    one, other = LabelStore(pool, new_run()), LabelStore(pool, new_run())
    one.append([assertion("e-1", 0)])
    assert other.append([assertion("e-1", 0, value=0)]) == AppendReceipt(1, 0)
    assert one.resolve(basis(0)).table["value"].to_pylist() == [1]


def test_two_appenders_of_the_same_labels(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    labels = [assertion(f"e-{number}", number) for number in range(3_000)]
    together = threading.Barrier(4)

    def append(offered: Sequence[LabelAssertion]) -> AppendReceipt:
        together.wait(timeout=30)
        return store.append(offered)

    with ThreadPoolExecutor(4) as threads:
        receipts = list(threads.map(append, [labels, labels[::-1], labels[1_000:], labels[:2_000]]))
    assert sum(receipt.new_count for receipt in receipts) == 3_000
    assert sum(receipt.known_count for receipt in receipts) == 7_000
    assert store.resolve(basis(3_000)).table.num_rows == 3_000


def test_the_digest_is_of_what_is_known(pool: Pool) -> None:
    store, again = LabelStore(pool, new_run()), LabelStore(pool, new_run())
    store.append([assertion("e-1", 0), assertion("e-2", 5), assertion("e-1", 9)])
    again.append([assertion("e-2", 5)])
    again.append([assertion("e-1", 0)])
    assert store.resolve(basis(5)).digest == again.resolve(basis(5)).digest
    assert store.resolve(basis(9)).digest != again.resolve(basis(9)).digest
    assert (store.resolve(basis(5)).last_heard_us, store.resolve(basis(-1)).last_heard_us) == (START + 5, None)


@pytest.mark.parametrize("replica", [False, True])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ofp.{table} SET {column} = {column}",
        "DELETE FROM ofp.{table}",
        "TRUNCATE ofp.{table}",
        "TRUNCATE ofp.{table} CASCADE",
        "MERGE INTO ofp.{table} t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
    ],
)
@pytest.mark.parametrize(
    ("table", "column"), [("label_assertion", "value"), ("decision_record", "content"), ("run_facts", "content")]
)
def test_the_database_refuses_every_change(pool: Pool, table: str, column: str, statement: str, replica: bool) -> None:
    with pool.connection() as connection, connection.transaction():
        if replica:
            connection.execute("SET LOCAL session_replication_role = replica")
        with pytest.raises(psycopg.errors.RestrictViolation, match=rf"ofp\.{table} are never changed"), connection.transaction():
            connection.execute(statement.format(table=table, column=column))


def test_an_insert_cannot_overwrite(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    store.append([assertion("e-1", 0)])
    overwrite = """
        INSERT INTO ofp.label_assertion SELECT * FROM ofp.label_assertion
        ON CONFLICT (pins_digest, assertion_id) DO UPDATE SET value = 0"""
    with pool.connection() as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute(overwrite)


def test_a_database_that_is_gone_is_a_refusal_that_may_pass(dsn: str) -> None:
    with open_pool(dsn, timeout_seconds=0.5) as lost:
        lost.close()
        with pytest.raises(BuildRefused) as caught:
            LabelStore(lost, new_run()).append([assertion("e-1", 0)])
    assert caught.value.reason is BuildReason.STORE_UNAVAILABLE
    assert caught.value.retryable


def test_observed_times_are_utc_microseconds(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    store.append([assertion("e-1", 1)])
    assert store.resolve(basis(1)).table["observed_time"].type == OBSERVED_TIME
    assert store.assertions("none").schema == store.assertions("fraud").schema
