"""The run ledger: one run per request, one builder per run, bounded attempts, and transitions that the database guards."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psycopg
import pytest
from jsonschema import Draft202012Validator

from ofp_platform.api.contract_files import contract_schemas
from ofp_platform.cli.offline.run_line import line_of
from ofp_platform.offline.runs.run_lease import LeaseLost, ReceiptConflict, RunLease
from ofp_platform.offline.runs.run_ledger import RetryRefused, RunLedger, RunOfOldForm, UnknownRun
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of
from ofp_platform.vocabulary.offline.build_intent import EntityTime, PerEntity, PerGrid, Purpose, request_id
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.profile import BuildLimits
from ofp_platform_tests.oracle.build_plans import LEAK, STORE_DOWN, dataset_intent, plan_of
from ofp_platform_tests.oracle.intents import DATASET

INTENT = dataset_intent()
KEY = request_id(INTENT)
OUTCOME = {"dataset_identity": "6" * 64, "rows": 12}


@pytest.fixture
def ledger(dsn: str) -> Iterator[RunLedger]:
    with open_pool(dsn, max_size=6) as pool:
        yield RunLedger(pool)


def claimed(ledger: RunLedger) -> RunLease:
    """A lease of the run whose context was left without an end: what is left of a killed builder."""
    with ledger.claim(KEY) as lease:
        assert lease is not None
    return lease


def built(ledger: RunLedger) -> None:
    with ledger.claim(KEY) as lease:
        assert lease is not None
        lease.store_plan(plan_of(INTENT))
        lease.record_receipt("dataset", {"rows": 12})
        lease.publish_pending(STORE_DOWN)


def test_the_same_request_is_one_run(ledger: RunLedger) -> None:
    run = ledger.submit(INTENT)
    assert (run.run_key, run.state, run.attempts, run.attempt_limit) == (KEY, RunState.QUEUED, 0, 3)
    assert run.intent == INTENT
    assert ledger.submit(INTENT.model_copy(update={"note": "again", "submitted_by": "me"})) == run
    assert ledger.runs() == [run]
    other = ledger.submit(dataset_intent("another"))
    assert ledger.runs() == [other, run]
    assert ledger.runs(limit=1) == [other]
    assert ledger.runs(RunState.DONE) == []


def test_a_plan_of_an_older_form_is_said_to_be_one(ledger: RunLedger, dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    ledger.submit(INTENT)
    plan = plan_of(INTENT).wire()
    # a basis of labels as it was before the store had a sequence
    plan["label_basis"] = {"label_type": "fraud", "as_of_utc": "2026-01-18T00:00:00Z", "maturity_seconds": 604_800}
    text = canonical_bytes(plan).decode()
    with ledger.claim(KEY), psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE ofp.build_run SET plan = %s", (text,))
        connection.execute(
            "INSERT INTO ofp.build_run (run_key, intent_kind, intent, attempt_limit, publish_attempt_limit)"
            " VALUES (%s, 'dataset_build', '{\"intent\": \"dataset_build\"}', 1, 1)",
            ("7" * 64,),
        )
    (run,) = ledger.runs()
    assert (run.plan, run.plan_digest, run.old_form) == (
        None,
        digest_of(plan),
        "another release planned it, in an older form: label_basis.next_sequence: Field required",
    )
    assert run.old_form in line_of(run)
    Draft202012Validator(contract_schemas()["ofs_build_run_v0.schema.json"]).validate(run.wire())
    assert "7" * 64 in caplog.text
    assert "submit the request again" in caplog.text
    with pytest.raises(RunOfOldForm, match="was submitted to a release of another form"):
        ledger.show("7" * 64)


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING", "PUBLISH_PENDING"])
def test_a_run_that_is_not_over_is_cancelled_once(ledger: RunLedger, state: str) -> None:
    ledger.submit(INTENT)
    if state == "PUBLISH_PENDING":
        built(ledger)
    if state == "RUNNING":
        claimed(ledger)
    assert ledger.show(KEY).state == state
    run = ledger.cancel(KEY, "an operator", "it is too large")
    assert (run.state, run.publish_only, run.refusal and run.refusal.reason) == (RunState.FAILED, False, BuildReason.CANCELLED)
    assert run.refusal is not None
    assert run.refusal.message == "cancelled by an operator: it is too large"
    assert ledger.cancel(KEY, "somebody else") == run
    assert ledger.is_cancelled(KEY)
    with ledger.claim(KEY) as lease:
        assert lease is None
    with pytest.raises(RetryRefused):
        ledger.retry(KEY)
    assert ledger.submit(INTENT) == run
    assert ledger.reopen(KEY).state is RunState.QUEUED
    with pytest.raises(UnknownRun):
        ledger.cancel("0" * 64, "me")


def test_the_builder_of_a_cancelled_run_writes_nothing(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    with ledger.claim(KEY) as lease:
        assert lease is not None
        lease.store_plan(plan_of(INTENT))
        ledger.demand_running(lease.run)
        ledger.cancel(KEY, "an operator")
        for attempt in (
            lambda: ledger.demand_running(lease.run),
            lambda: lease.record_receipt("dataset", {"rows": 1}),
            lambda: lease.succeed(OUTCOME),
            lambda: lease.running().__enter__(),
        ):
            with pytest.raises(LeaseLost, match=r"cancelled|is over"):
                attempt()
    assert ledger.show(KEY).state is RunState.FAILED


def test_what_is_done_stays_done_whoever_cancels_it(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    with ledger.claim(KEY) as lease:
        assert lease is not None
        lease.store_plan(plan_of(INTENT))
        with ThreadPoolExecutor(1) as pool:
            with lease.running():  # whoever cancels waits for the end of the publication
                cancelling = pool.submit(ledger.cancel, KEY, "an operator")
                lease.succeed(OUTCOME)
            assert cancelling.result().state is RunState.DONE


def test_only_a_cancellation_skips_the_states_between(ledger: RunLedger, dsn: str) -> None:
    ledger.submit(INTENT)
    with psycopg.connect(dsn, autocommit=True) as connection, pytest.raises(psycopg.errors.CheckViolation, match="impossible"):
        connection.execute(
            "UPDATE ofp.build_run SET state = 'FAILED', refusal_reason = 'LEAKAGE_DETECTED', refusal_field = '',"
            " refusal_message = ''"
        )


def test_open_requests_of_one_principal_are_bounded(dsn: str) -> None:
    with open_pool(dsn, max_size=6) as pool:
        ledger = RunLedger(pool, BuildLimits(max_open_intents=2))

        def submit(number: int, who: str | None = "me") -> BuildRun | BuildReason:
            try:
                return ledger.submit(dataset_intent(f"d{number}").model_copy(update={"submitted_by": who}))
            except BuildRefused as refused:
                words.add(refused.message)
                return refused.reason

        words: set[str] = set()

        with ThreadPoolExecutor(6) as threads:
            outcomes = list(threads.map(submit, range(6)))
        assert outcomes.count(BuildReason.QUOTA_EXCEEDED) == 4
        first = next(run for run in outcomes if isinstance(run, BuildRun))
        assert submit(7) is BuildReason.QUOTA_EXCEEDED
        assert isinstance(submit(7, None), BuildRun)  # nobody is a principal, too
        assert ledger.submit(first.intent) == first  # the same request is no other one
        ledger.cancel(first.run_key, "me")
        assert isinstance(submit(7, "you"), BuildRun)
        assert isinstance(submit(8), BuildRun)
        assert all("builds.max_open_intents of the profile is 2" in message for message in words)


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (
            PerGrid(key_type="customer", from_utc="2026-01-01T00:00:00Z", to_utc="2026-01-02T00:00:00Z", step_seconds=1),
            "86,400 times for each entity of the replay",
        ),
        (
            PerGrid(
                key_type="customer",
                from_utc="2026-01-01T00:00:00Z",
                to_utc="2026-01-02T00:00:00Z",
                step_seconds=60,
                key_ids=tuple(f"c{number}" for number in range(8)),
            ),
            "1,440 times for 8 entities",
        ),
        (
            PerEntity(
                key_type="customer",
                rows=tuple(EntityTime(key_id=f"c{n}", as_of_time_utc="2026-01-01T00:00:00Z") for n in range(10_001)),
            ),
            "10,001 entities and times",
        ),
    ],
)
def test_a_scope_that_is_too_large_whatever_the_log_has(dsn: str, scope: PerGrid | PerEntity, words: str) -> None:
    intent = INTENT.model_copy(update={"scope": scope, "label": None, "purpose": Purpose.ANALYSIS})
    with open_pool(dsn) as pool:
        ledger = RunLedger(pool, BuildLimits(max_rows=10_000))
        with pytest.raises(BuildRefused, match=f"BUILD_TOO_LARGE.*{words}, more than builds.max_rows of the profile, 10,000"):
            ledger.submit(intent)
        assert ledger.runs() == []
        assert RunLedger(pool).submit(intent).state is RunState.QUEUED


def test_many_submit_at_once(ledger: RunLedger) -> None:
    together = Barrier(4)

    def submit(_: int) -> BuildRun:
        together.wait()
        return ledger.submit(INTENT)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(submit, range(4)))
    assert found == [found[0]] * 4
    assert len(ledger.runs()) == 1


def test_one_of_many_claims_gets_the_run(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    together, told = Barrier(4), Barrier(4)

    def claim(_: int) -> bool:
        together.wait()
        with ledger.claim(KEY) as lease:
            told.wait()  # nobody lets go before everybody has tried
            return lease is not None

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(claim, range(4))) == [False, False, False, True]
    assert ledger.show(KEY).attempts == 1


def test_a_build_from_end_to_end(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    with ledger.claim_next() as lease:
        assert lease is not None
        assert (lease.run_key, lease.publish_only, lease.run.state) == (KEY, False, RunState.RUNNING)
        plan = lease.store_plan(plan_of(INTENT))
        content = {"records": 10, "basis": plan.replay_basis.model_dump(mode="json")}
        assert lease.record_receipt("replay", content) == digest_of(content)
        assert lease.record_receipt("replay", content) == digest_of(content)
        lease.succeed(OUTCOME)
    run = ledger.show(KEY[:8])
    assert (run.state, run.outcome, run.plan, run.refusal, run.attempts) == (RunState.DONE, OUTCOME, plan, None, 1)
    assert [(one.stage, one.attempt, one.digest) for one in ledger.receipts(KEY)] == [("replay", 1, digest_of(content))]
    assert ledger.submit(INTENT) == ledger.retry(KEY) == ledger.reopen(KEY) == run
    with ledger.claim(KEY) as nothing, ledger.claim_next() as next_one:
        assert nothing is None
        assert next_one is None


def kill_builders(dsn: str) -> None:
    """End the sessions that hold a run, as when their processes are killed."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        holders = connection.execute(
            "SELECT pid FROM pg_locks JOIN pg_database ON oid = database"
            " WHERE locktype = 'advisory' AND datname = current_database()"
        ).fetchall()
        assert len(holders) == 1
        connection.execute("SELECT pg_terminate_backend(%s, 10000)", holders[0])


def test_a_killed_builder_is_followed_by_the_next(ledger: RunLedger, dsn: str) -> None:
    ledger.submit(INTENT)
    with open_pool(dsn) as pool, RunLedger(pool).claim(KEY) as lease:
        assert lease is not None
        lease.store_plan(plan_of(INTENT))
        kill_builders(dsn)
        with ledger.claim(KEY) as follower:
            assert follower is not None
            assert follower.run.attempts == 2
            # another plan comes too late: the first one holds
            assert follower.store_plan(plan_of(INTENT, next_offset=99)) == plan_of(INTENT)
            # but that of other code replaces it: the manifest names the code that builds
            other_code = plan_of(INTENT, next_offset=99).model_copy(update={"ofs_code_release_id": "ofp-platform-1"})
            assert follower.store_plan(other_code) == other_code == ledger.show(KEY).plan
        with pytest.raises(LeaseLost, match="the connection that held it ended"):
            lease.succeed(OUTCOME)
    assert ledger.show(KEY).state is RunState.RUNNING


def test_who_is_overtaken_writes_nothing(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    with ledger.claim(KEY) as old:
        assert old is not None
        # as if the lock had been lost without anybody noticing
        old._connection.execute("SELECT pg_advisory_unlock_all()")
        with ledger.claim(KEY) as new:
            assert new is not None
            for write in (
                lambda: old.store_plan(plan_of(INTENT)),
                lambda: old.record_receipt("replay", {}),
                lambda: old.succeed(OUTCOME),
                lambda: old.fail(LEAK),
                lambda: old.publish_pending(STORE_DOWN),
            ):
                with pytest.raises(LeaseLost, match="attempt 1 is over"):
                    write()
            assert ledger.show(KEY).plan is None
            assert ledger.receipts(KEY) == []
            new.fail(LEAK)
            with pytest.raises(LeaseLost):
                new.fail(STORE_DOWN)
    assert ledger.show(KEY).refusal == LEAK


def test_builders_that_die_use_the_attempts_up(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    for attempt in (1, 2, 3):
        assert claimed(ledger).run.attempts == attempt
    with ledger.claim(KEY) as lease:
        assert lease is None
    run = ledger.show(KEY)
    assert run.state is RunState.FAILED
    assert run.refusal is not None
    assert run.refusal.reason is BuildReason.ATTEMPTS_EXHAUSTED
    assert not run.retryable
    reopened = ledger.reopen(KEY)
    assert (reopened.state, reopened.attempts, reopened.attempt_limit) == (RunState.QUEUED, 3, 6)
    assert claimed(ledger).run.attempts == 4


def test_what_may_pass_is_tried_again_within_bounds(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    for attempt in (1, 2, 3):
        with ledger.claim(KEY) as lease:
            assert lease is not None
            lease.fail(STORE_DOWN)
        run = ledger.show(KEY)
        assert run.refusal is not None
        assert run.retryable == (attempt < 3)
        with ledger.claim(KEY) as nothing:
            assert nothing is None  # not before somebody asks for it
        if run.retryable:
            assert run.refusal == STORE_DOWN
            assert ledger.retry(KEY).state is RunState.QUEUED
    assert run.refusal.reason is BuildReason.ATTEMPTS_EXHAUSTED
    assert "3 attempts; the last: STORE_UNAVAILABLE: the object store is full" in run.refusal.message
    assert [one.content["reason"] for one in ledger.receipts(KEY)] == ["STORE_UNAVAILABLE"] * 2 + ["ATTEMPTS_EXHAUSTED"]
    with pytest.raises(RetryRefused, match="ATTEMPTS_EXHAUSTED"):
        ledger.retry(KEY)


def test_what_does_not_pass_by_itself_waits_for_a_person(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    with ledger.claim(KEY) as lease:
        assert lease is not None
        lease.fail(LEAK)
    failed = ledger.show(KEY)
    assert (failed.state, failed.refusal) == (RunState.FAILED, LEAK)
    assert ledger.submit(INTENT) == failed
    with pytest.raises(RetryRefused, match="LEAKAGE_DETECTED"):
        ledger.retry(KEY)
    assert ledger.reopen(KEY).refusal is None
    assert claimed(ledger).run.attempts == 2


def test_a_publish_only_retry_is_told_so(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    built(ledger)
    pending = ledger.show(KEY)
    assert (pending.state, pending.publish_only, pending.refusal) == (RunState.PUBLISH_PENDING, True, STORE_DOWN)
    with ledger.claim(KEY) as lease:
        assert lease is not None
        assert lease.publish_only
        assert lease.run.plan == plan_of(INTENT)
        assert (lease.run.attempts, lease.run.publish_attempts) == (1, 1)
        lease.record_receipt("publication", {"put": 3})
        lease.succeed(OUTCOME)
    assert ledger.show(KEY).state is RunState.DONE
    stages = [(one.stage, one.attempt, one.publish_attempt) for one in ledger.receipts(KEY)]
    assert stages == [("dataset", 1, 0), ("refusal", 1, 0), ("publication", 1, 1)]


def test_publication_is_tried_within_bounds_and_a_killed_publisher_only_publishes(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    built(ledger)
    assert claimed(ledger).publish_only
    assert claimed(ledger).publish_only
    with ledger.claim(KEY) as lease:
        assert lease is not None
        lease.publish_pending(STORE_DOWN)
    failed = ledger.show(KEY)
    assert (failed.state, failed.attempts, failed.publish_attempts) == (RunState.FAILED, 1, 3)
    assert failed.refusal is not None
    assert failed.refusal.reason is BuildReason.ATTEMPTS_EXHAUSTED
    again = ledger.reopen(KEY)
    assert (again.state, again.publish_only, again.publish_attempt_limit) == (RunState.PUBLISH_PENDING, True, 6)
    with ledger.claim(KEY) as lease:
        assert lease is not None
        lease.fail(LEAK)
    rebuilt = ledger.reopen(KEY, rebuild=True)
    assert (rebuilt.state, rebuilt.publish_only, rebuilt.plan) == (RunState.QUEUED, False, None)
    with ledger.claim(KEY) as lease:
        assert lease is not None
        assert not lease.publish_only
        assert lease.run.attempts == 2


def test_waiting_runs_are_claimed_oldest_first_and_held_ones_passed_over(ledger: RunLedger) -> None:
    keys = [ledger.submit(dataset_intent(name)).run_key for name in ("a", "b", "c")]
    with ledger.claim_next() as first, ledger.claim_next() as second, ledger.claim(keys[0]) as held:
        assert first is not None
        assert second is not None
        assert [first.run_key, second.run_key] == keys[:2]
        assert held is None


def test_receipts_of_a_stage_agree_in_an_attempt(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    with ledger.claim(KEY) as lease:
        assert lease is not None
        lease.record_receipt("labels", {"rows": 1})
        with pytest.raises(ReceiptConflict, match="labels"):
            lease.record_receipt("labels", {"rows": 2})
        with pytest.raises(ValueError, match="the plan is of request"):
            lease.store_plan(plan_of(dataset_intent("another")))
    with ledger.claim(KEY) as lease:
        assert lease is not None
        lease.record_receipt("labels", {"rows": 2})


def test_what_contradicts_itself_never_becomes_a_run(ledger: RunLedger) -> None:
    with pytest.raises(BuildRefused) as caught:
        ledger.submit(INTENT.model_copy(update={"label": None}))
    assert caught.value.reason is BuildReason.LABEL_ASOF_MISSING
    assert ledger.runs() == []


def test_a_run_without_a_policy_is_tried_once(ledger: RunLedger) -> None:
    intent = dataset_intent(policy={"policy_id": "none", "revision": 1})
    assert ledger.submit(intent).attempt_limit == 1


def test_unknown_runs(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    for key in ("0" * 64, "0" * 8, KEY[:7], "", "%" * 8):
        with pytest.raises(UnknownRun):
            ledger.show(key)
    for ask in (ledger.retry, ledger.reopen, lambda key: ledger.claim(key).__enter__()):
        with pytest.raises(UnknownRun):
            ask("0" * 64)


IMPOSSIBLE = [
    "INSERT INTO ofp.build_run (run_key, intent_kind, intent, attempt_limit, publish_attempt_limit, state, refusal_reason,"
    " refusal_field, refusal_message) VALUES (repeat('a', 64), 'x', '{}', 1, 1, 'FAILED', 'a', 'b', 'c')",
    "DELETE FROM ofp.build_run",
    "TRUNCATE ofp.build_run CASCADE",
    "UPDATE ofp.build_run SET intent = '{}'",
    "UPDATE ofp.build_run SET run_key = repeat('a', 64)",
    "UPDATE ofp.build_run SET state = state",
    "UPDATE ofp.build_run SET attempts = attempts",
]
FROM_QUEUED = [
    *(f"UPDATE ofp.build_run SET state = '{state}'" for state in ("DONE", "FAILED", "PUBLISH_PENDING", "RUNNING", "OTHER")),
    "UPDATE ofp.build_run SET state = 'DONE', plan = '{}', outcome = '{}'",
    "UPDATE ofp.build_run SET state = 'RUNNING', attempts = 2",
    "UPDATE ofp.build_run SET state = 'RUNNING', attempts = 1, publish_attempts = 1",
    "UPDATE ofp.build_run SET state = 'RUNNING', publish_attempts = 1, publish_only = true, plan = '{}'",
    "UPDATE ofp.build_run SET state = 'RUNNING', attempts = 1, plan = '{}'",
    "UPDATE ofp.build_run SET state = 'RUNNING', attempts = 1, attempt_limit = 9",
    "INSERT INTO ofp.build_receipt (run_key, attempt, publish_attempt, stage, content, digest)"
    " SELECT run_key, 0, 0, 'x', '{}', encode(sha256('{}'), 'hex') FROM ofp.build_run",
]
FROM_RUNNING = [
    "UPDATE ofp.build_run SET state = 'QUEUED'",
    "UPDATE ofp.build_run SET state = 'DONE', outcome = '{}'",  # never planned
    "UPDATE ofp.build_run SET state = 'FAILED'",  # without a reason
    "UPDATE ofp.build_run SET state = 'FAILED', refusal_reason = 'x'",
    "UPDATE ofp.build_run SET state = 'FAILED', publish_only = true, plan = '{}', refusal_reason = 'x', refusal_field = 'x',"
    " refusal_message = 'x'",
    "UPDATE ofp.build_run SET attempts = attempts - 1",
    "UPDATE ofp.build_run SET attempts = attempts + 2",
    "INSERT INTO ofp.build_receipt (run_key, attempt, publish_attempt, stage, content, digest)"
    " SELECT run_key, 1, 0, 'x', '{}', repeat('0', 64) FROM ofp.build_run",
]
FROM_DONE = [
    "UPDATE ofp.build_run SET state = 'QUEUED', outcome = NULL",
    "UPDATE ofp.build_run SET state = 'RUNNING', outcome = NULL, attempts = attempts + 1",
    "UPDATE ofp.build_run SET outcome = '{}'",
    "UPDATE ofp.build_run SET plan = NULL",
    "UPDATE ofp.build_receipt SET content = '{}'",
    "DELETE FROM ofp.build_receipt",
    "TRUNCATE ofp.build_receipt",
]


def refused(dsn: str, statements: list[str]) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(statement)


def test_the_database_refuses_what_is_impossible(ledger: RunLedger, dsn: str) -> None:
    queued = ledger.submit(INTENT)
    refused(dsn, IMPOSSIBLE + FROM_QUEUED)
    assert ledger.show(KEY) == queued
    with ledger.claim(KEY) as lease:
        assert lease is not None
        refused(dsn, IMPOSSIBLE + FROM_RUNNING)
        lease.store_plan(plan_of(INTENT))
        lease.record_receipt("replay", {"records": 1})
        refused(dsn, ["UPDATE ofp.build_run SET plan = '{}'"])
        lease.succeed(OUTCOME)
    done = ledger.show(KEY)
    refused(dsn, IMPOSSIBLE + FROM_DONE)
    assert ledger.show(KEY) == done
    assert len(ledger.receipts(KEY)) == 1


def test_contract_of_a_run(ledger: RunLedger) -> None:
    ledger.submit(INTENT)
    built(ledger)
    wire = ledger.show(KEY).wire()
    schema = contract_schemas()["ofs_build_run_v0.schema.json"]
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(wire)
    assert not Draft202012Validator(schema).is_valid({**wire, "state": "ASLEEP"})
    assert BuildRun.model_validate(wire) == ledger.show(KEY)
    assert wire["intent"] == {**DATASET, "parity_anchors": "all_decisions_in_replay", "scope": wire["intent"]["scope"]}
