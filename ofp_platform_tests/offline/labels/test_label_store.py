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

from ofp_platform.offline.labels.event_index import IndexedLabels
from ofp_platform.offline.labels.label_columns import LABEL_SCHEMA, OBSERVED_TIME, RowEvents, label_columns
from ofp_platform.offline.labels.label_intake import LabelIntake
from ofp_platform.offline.labels.label_leakage import check_no_leak
from ofp_platform.offline.labels.label_store import AppendReceipt, LabelStore, as_observed
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.embedded import SUPERUSER, as_role
from ofp_platform.storage.governance_facts import read_facts, role_of
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy, LabelBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.governance_fact import LabelsPublished
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
    usual = {
        "event_class": "payment",
        "label_type": "fraud",
        "source": "desk",
        "effective_time_utc": format_time(START),
    }
    return LabelAssertion(event_id=event_id, value=value, observed_time_utc=format_time(START + observed), **(usual | more))


def basis(store: LabelStore, as_of: int, maturity_seconds: int = 5) -> LabelBasis:
    """Of what the store holds now."""
    return LabelBasis(
        label_type="fraud",
        as_of_utc=format_time(START + as_of),
        maturity_seconds=maturity_seconds,
        next_sequence=store.next_sequence(),
    )


def of_payments(ids: pa.Array | pa.ChunkedArray, ts: np.ndarray) -> RowEvents:
    return RowEvents(pa.array(["payment"] * len(ids), pa.string()), ids, ts)


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
        event_class=st.sampled_from(("payment", "payment", "login")),
    ),
    max_size=25,
)
EVENTS = st.tuples(
    st.sampled_from(("payment", "payment", "login")), st.sampled_from(("e-1", "e-2", "e-3", "E:4/x_.", "NA", "12", "none"))
)
ROWS = st.lists(st.tuples(EVENTS, MOMENTS), max_size=15)


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
    rows: list[tuple[tuple[str, str], int]],
    as_of: int,
    maturity: int,
    means: int | None,
) -> None:
    store = LabelStore(pool, new_run())
    edges = [0, *sorted(cuts), len(assertions)]
    for start, stop in pairwise(edges):
        store.append(assertions[start:stop], as_observed)
    by = basis(store, as_of, maturity)
    resolved = store.resolve(by)
    expected = {
        (one.event_class, one.event_id): found.assertion_id
        for one in assertions
        if (found := resolve(assertions, (one.event_class, one.event_id), "fraud", START + as_of)) is not None
    }
    assert {(row["event_class"], row["event_id"]): row["assertion_id"] for row in resolved.table.to_pylist()} == expected

    classes, ids = (pa.array([event[part] for event, _ in rows], pa.string()) for part in (0, 1))
    events = RowEvents(classes, ids, np.array([START + at for _, at in rows], np.int64))
    columns = label_columns(resolved, events, policy(means))
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
        label_row(assertions, event, START + at, "fraud", START + as_of, maturity * SECOND, means) for event, at in rows
    ]
    labelled = sum(value is not None for value, _, _ in found_rows)
    every = store.assertions("fraud")
    assert every.num_rows == len({one.assertion_id for one in assertions if one.label_type == "fraud"})
    assert by.next_sequence == len({one.assertion_id for one in assertions})
    assert check_no_leak(columns, events, by, policy(means), IndexedLabels(every)) == labelled


def test_ids_may_come_in_chunks_and_large_strings(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    store.append([assertion("e-2", 0)], as_observed)
    ids = pa.chunked_array([["e-1"], ["e-2", "e-2"], []], pa.large_string())
    columns = label_columns(store.resolve(basis(store, SECOND)), of_payments(ids, np.full(3, START, np.int64)), policy())
    assert columns["label_value"].to_pylist() == [None, 1, 1]
    with pytest.raises(ValueError, match="3 event ids, but 3 classes and 2 times"):
        of_payments(ids, np.full(2, START, np.int64))


def published(pool: Pool, pins: ContextPins) -> list[tuple[int, int, str]]:
    """First and next sequence of each publication of a run, and by whom; the newest first."""
    facts = [recorded.fact for recorded in read_facts(pool, "labels_published", limit=1_000)]
    own = [fact for fact in facts if isinstance(fact, LabelsPublished) and fact.context_pins == pins]
    assert all(fact.label_types == ("fraud",) for fact in own)
    return [(fact.first_sequence, fact.next_sequence, fact.actor) for fact in own]


def test_a_publication_is_a_fact_and_a_repetition_is_none(pool: Pool) -> None:
    pins = new_run()
    store = LabelStore(pool, pins)
    store.append([assertion("e-1", 0), assertion("e-2", 0)], as_observed, submitted_by="ann")
    store.append([assertion("e-1", 0)], as_observed, submitted_by="bob")
    store.append([])
    assert published(pool, pins) == [(0, 2, "ann")]
    store.append([assertion("e-1", 0), assertion("e-3", 0)], as_observed)
    with pool.connection() as connection:
        role = role_of(connection)
    assert published(pool, pins) == [(2, 3, role), (0, 2, "ann")]


def test_an_append_is_idempotent(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    first = [assertion("e-1", 0), assertion("e-2", 0), assertion("e-1", 0)]
    assert store.append(first, as_observed) == AppendReceipt(2, 1)
    assert store.append([*first, assertion("e-1", 1)], as_observed) == AppendReceipt(1, 3)
    assert store.append([]) == AppendReceipt(0, 0)
    # the same statement, admitted again by another clock: it was known before
    assert store.append(first) == AppendReceipt(0, 3)
    assert store.next_sequence() == 3
    assert store.assertions("fraud").num_rows == 3
    assert (store.known_until("fraud"), store.known_until("fraud", START)) == (START + 1, START)
    assert (store.known_until("fraud", START - 1), store.known_until("other")) == (None, None)


def test_a_failed_append_leaves_nothing(pool: Pool) -> None:
    pins = new_run()
    store = LabelStore(pool, pins)

    def broken() -> Iterator[LabelAssertion]:
        yield assertion("e-1", 0)
        raise RuntimeError("the file ends here")

    with pytest.raises(RuntimeError, match="the file ends here"):
        store.append(broken(), as_observed)
    assert store.assertions("fraud").num_rows == 0
    assert published(pool, pins) == []


def test_another_run_has_other_labels(pool: Pool) -> None:
    one, other = LabelStore(pool, new_run()), LabelStore(pool, new_run())
    one.append([assertion("e-1", 0)], as_observed)
    assert other.append([assertion("e-1", 0, value=0)], as_observed) == AppendReceipt(1, 0)
    assert one.resolve(basis(one, 0)).table["value"].to_pylist() == [1]
    assert (one.next_sequence(), other.next_sequence()) == (1, 1)


def test_two_appenders_of_the_same_labels(pool: Pool) -> None:
    run = new_run()
    store = LabelStore(pool, run)
    labels = [assertion(f"e-{number}", number) for number in range(3_000)]
    together = threading.Barrier(4)

    def append(offered: Sequence[LabelAssertion]) -> AppendReceipt:
        together.wait(timeout=30)
        return store.append(offered, as_observed)

    with ThreadPoolExecutor(4) as threads:
        receipts = list(threads.map(append, [labels, labels[::-1], labels[1_000:], labels[:2_000]]))
    assert sum(receipt.new_count for receipt in receipts) == 3_000
    assert sum(receipt.known_count for receipt in receipts) == 7_000
    assert store.resolve(basis(store, 3_000)).table.num_rows == 3_000
    # one after the other: each number is there once, and no number was skipped
    with pool.connection() as connection:
        rows = connection.execute(
            "SELECT sequence FROM ofp.label_assertion WHERE pins_digest = %s ORDER BY 1", (pins_digest(run),)
        ).fetchall()
    assert [number for (number,) in rows] == list(range(3_000))


def test_the_digest_is_of_what_is_known(pool: Pool) -> None:
    store, again = LabelStore(pool, new_run()), LabelStore(pool, new_run())
    store.append([assertion("e-1", 0), assertion("e-2", 5), assertion("e-1", 9)], as_observed)
    again.append([assertion("e-2", 5)], as_observed)
    again.append([assertion("e-1", 0)], as_observed)
    assert store.resolve(basis(store, 5)).digest == again.resolve(basis(again, 5)).digest
    assert store.resolve(basis(store, 9)).digest != again.resolve(basis(again, 9)).digest
    assert (store.resolve(basis(store, 5)).last_heard_us, store.resolve(basis(store, -1)).last_heard_us) == (START + 5, None)


def test_what_is_appended_now_is_not_known_before(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    store.append([assertion("e-1", 0)], as_observed)
    store.append([assertion("e-1", 5, value=0), assertion("e-2", 5)])
    far = 10**18
    assert store.resolve(basis(store, SECOND)).table["value"].to_pylist() == [1]
    # as of later than any clock it is
    later = basis(store, 0).model_copy(update={"as_of_utc": "9999-12-31T23:59:59Z"})
    assert store.resolve(later).table["value"].to_pylist() == [0, 1]
    observed = store.assertions("fraud")["observed_time"].cast(pa.int64()).to_pylist()
    assert START + 5 < observed[1] == observed[2] < far
    # one that states a later time than its admission keeps it
    store.append([assertion("e-3", 10**17)])
    assert store.assertions("fraud")["observed_time"].cast(pa.int64()).to_pylist()[-1] == START + 10**17


def test_a_basis_holds_what_was_in_front_of_it(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    store.append([assertion("e-1", 0)], as_observed)
    before = basis(store, SECOND)
    store.append([assertion("e-1", 3, value=0), assertion("e-2", 1)], as_observed)
    assert store.resolve(before).table["value"].to_pylist() == [1]
    assert store.resolve(basis(store, SECOND)).table["value"].to_pylist() == [0, 1]
    assert store.assertions("fraud", before.next_sequence).num_rows == 1
    with pytest.raises(BuildRefused, match="ends at 3, the label basis at 4: it lost assertions") as caught:
        store.resolve(before.model_copy(update={"next_sequence": 4}))
    assert caught.value.reason is BuildReason.BASIS_UNRESOLVED


def test_two_classes_may_share_an_id(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    store.append([assertion("e-1", 0), assertion("e-1", 0, value=0, event_class="login")], as_observed)
    resolved = store.resolve(basis(store, 0))
    events = RowEvents(pa.array(["login", "payment", "refund"]), pa.array(["e-1"] * 3), np.full(3, START, np.int64))
    assert label_columns(resolved, events, policy())["label_value"].to_pylist() == [0, 1, None]


def test_labels_of_before_are_refused_in_words(pool: Pool) -> None:
    run = new_run()
    old = "INSERT INTO ofp.label_assertion_without_class VALUES (%s, 'a', 'e-1', 'fraud', 1, 0, 0, 'desk')"
    with pool.connection() as connection:
        connection.execute(old, (pins_digest(run),))
    store = LabelStore(pool, run)
    with pytest.raises(BuildRefused, match="load them again"):
        store.next_sequence()
    store.append([assertion("e-1", 0)], as_observed)
    assert store.next_sequence() == 1


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
    ("table", "column"),
    [
        ("label_assertion", "value"),
        ("label_assertion_without_class", "value"),
        ("decision_record", "content"),
        ("run_facts", "content"),
    ],
)
def test_the_database_refuses_every_change(module_dsn: str, table: str, column: str, statement: str, replica: bool) -> None:
    # the superuser alone may say that the session is a replica's
    with psycopg.connect(as_role(module_dsn, SUPERUSER), autocommit=True) as connection, connection.transaction():
        if replica:
            connection.execute("SET LOCAL session_replication_role = replica")
        with pytest.raises(psycopg.errors.RestrictViolation, match=rf"ofp\.{table} are never changed"), connection.transaction():
            connection.execute(statement.format(table=table, column=column))


def test_an_insert_cannot_overwrite(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    store.append([assertion("e-1", 0)], as_observed)
    overwrite = """
        INSERT INTO ofp.label_assertion SELECT * FROM ofp.label_assertion
        ON CONFLICT (pins_digest, sequence) DO UPDATE SET value = 0"""
    with pool.connection() as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute(overwrite)


def test_a_database_that_is_gone_is_a_refusal_that_may_pass() -> None:
    class Away:
        def connection(self) -> None:
            raise psycopg.OperationalError("gone")

    with pytest.raises(BuildRefused) as caught:
        LabelStore(Away(), new_run()).append([assertion("e-1", 0)])  # type: ignore[arg-type]
    assert caught.value.reason is BuildReason.STORE_UNAVAILABLE
    assert caught.value.retryable


def test_observed_times_are_utc_microseconds(pool: Pool) -> None:
    store = LabelStore(pool, new_run())
    store.append([assertion("e-1", 1)], as_observed)
    assert store.resolve(basis(store, 1)).table["observed_time"].type == OBSERVED_TIME
    assert store.assertions("none").schema == store.assertions("fraud").schema


def test_a_label_of_a_simulated_clock_counts_from_the_time_that_it_states(pool: Pool) -> None:
    """Taken in one at a time: by the clock of the database it counts from now on, by that of a replay from then on."""
    routing = shipped_pack("card_payments").events
    said = assertion("e-1", 3, event_class="card_payment")
    by_replay, by_database = LabelStore(pool, new_run()), LabelStore(pool, new_run())
    assert LabelIntake(by_replay, routing, as_observed)(said, "ada") is None
    assert LabelIntake(by_database, routing)(said, "ada") is None
    assert by_replay.known_until("fraud") == START + 3
    seen_now = by_database.known_until("fraud")
    assert seen_now is not None
    assert seen_now > START + 3
