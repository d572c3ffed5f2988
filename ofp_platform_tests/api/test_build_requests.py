"""Builds asked for over HTTP against a real run ledger: one request is one run, refusals name the field, outages pass."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import conninfo, sql

from ofp_platform.api.app import Application
from ofp_platform.api.bounded_work import WorkBounds
from ofp_platform.api.build_examples import intent_example
from ofp_platform.api.build_requests import BuildRequests
from ofp_platform.api.service import MayRead
from ofp_platform.client import AsyncOfpClient, RetryPolicy
from ofp_platform.offline.runs.builder import build
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.storage.embedded import as_role
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.roles import Job, default_role
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_intent import intent_wire
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.profile import BuildLimits
from ofp_platform_tests.api.fake_port import FakeOperators, FakeOverviews, FakePort, FakePosture, FakeRecords
from ofp_platform_tests.api.keys import KEY, authentication
from ofp_platform_tests.oracle.failover import end_sessions
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane

CARD = "4111111111111111"
NOWHERE = "host=127.0.0.1 port=1 dbname=nothing"


REFUSED = BuildRefused(BuildReason.RUN_FACTS_UNAVAILABLE, "no facts are published under this reference", "run_facts_ref")


def everything(pins: ContextPins) -> bool:
    return True


@asynccontextmanager
async def service(dsn: str) -> AsyncIterator[httpx.ASGITransport]:
    builds = BuildRequests(dsn)
    try:
        yield httpx.ASGITransport(
            Application(
                FakePort(),
                builds,
                FakeOperators(),
                FakeRecords(),
                FakeOverviews(),
                posture=FakePosture(),
                authentication=authentication(),
            )
        )
    finally:
        await builds.close()


@asynccontextmanager
async def client_of(dsn: str, retries: RetryPolicy | None = None) -> AsyncIterator[AsyncOfpClient]:
    async with (
        service(dsn) as transport,
        AsyncOfpClient("http://localhost", token=KEY, transport=transport, retries=retries) as ofp,
    ):
        yield ofp


async def test_submitted_twice_it_is_one_run_and_its_outcome_is_seen(dsn: str, tmp_path: Path) -> None:
    world = LabelledPlane.prepare(dsn, tmp_path)
    try:
        intent = world.intent()
        async with client_of(dsn) as ofp:
            queued = await ofp.submit_intent(intent)
            assert queued.state is RunState.QUEUED
            assert await ofp.submit_intent({**intent_wire(intent), "note": "once more"}) == queued
            assert len(world.build_context.ledger.runs()) == 1
            built = await asyncio.to_thread(build, world.build_context, queued.run_key)
            done = await ofp.build_run(queued.run_key)
            assert done == built
            assert done.state is RunState.DONE
            assert done.outcome is not None
            assert done.outcome["dataset_name"] == "fraud_by_payment"
            assert await ofp.submit_intent(intent) == done
    finally:
        world.plane.close()


async def test_many_submitting_at_once_get_the_same_run(dsn: str) -> None:
    async with client_of(dsn, retries=RetryPolicy(attempts=50)) as ofp:
        runs = await asyncio.gather(*(ofp.submit_intent(intent_example()) for _ in range(12)))
    assert len({run.model_dump_json() for run in runs}) == 1
    with open_pool(dsn) as pool:
        assert RunLedger(pool).runs() == [runs[0]]


async def test_why_a_build_was_refused_is_seen_on_its_run(dsn: str) -> None:
    async with client_of(dsn) as ofp:
        run_key = (await ofp.submit_intent(intent_example())).run_key
        with open_pool(dsn) as pool, RunLedger(pool).claim(run_key) as lease:
            assert lease is not None
            lease.fail(REFUSED.refusal)
        run = await ofp.build_run(run_key)
    assert (run.state, run.refusal) == (RunState.FAILED, REFUSED.refusal)


async def test_a_build_is_cancelled_and_stays_so(dsn: str) -> None:
    async with client_of(dsn) as ofp:
        run_key = (await ofp.submit_intent(intent_example())).run_key
        run = await ofp.cancel_build(run_key)
        assert (run.state, run.refusal and run.refusal.reason) == (RunState.FAILED, BuildReason.CANCELLED)
        assert await ofp.cancel_build(run_key) == run == await ofp.build_run(run_key) == await ofp.submit_intent(intent_example())
        with pytest.raises(ContractError) as caught:
            await ofp.cancel_build("0" * 64)
    assert caught.value.reason is Reason.UNKNOWN_BUILD_RUN


async def test_an_intent_beyond_the_limits_is_refused_before_it_is_a_run(dsn: str) -> None:
    grid = {"kind": "per_grid", "key_type": "account", "from_utc": "2020-01-01T00:00:00Z", "to_utc": "2026-01-01T00:00:00Z"}
    intent = intent_example() | {"scope": {**grid, "step_seconds": 1}, "purpose": "analysis"}
    intent.pop("label")
    builds = BuildRequests(dsn, limits=BuildLimits(max_open_intents=1))
    with pytest.raises(ContractError, match=r"BUILD_TOO_LARGE.*189,388,800 times for each entity.*builds.max_rows"):
        await builds.submit(json.dumps(intent).encode(), "tester", everything)
    await builds.submit(json.dumps(intent_example()).encode(), "tester", everything)
    with pytest.raises(ContractError, match=r"QUOTA_EXCEEDED.*builds.max_open_intents of the profile is 1"):
        await builds.submit(json.dumps(intent_example() | {"dataset_name": "another"}).encode(), "tester", everything)
    await builds.close()


async def test_only_whoever_submitted_a_run_cancels_it(dsn: str) -> None:
    builds = BuildRequests(dsn)
    run_key = json.loads(await builds.submit(json.dumps(intent_example()).encode(), "tester", everything))["run_key"]
    with pytest.raises(ContractError) as caught:
        await builds.cancel(run_key, "another", everything, "another")
    assert caught.value.reason is Reason.FORBIDDEN
    with pytest.raises(ContractError) as caught:
        await builds.cancel(run_key, "another", lambda _pins: False, None)
    assert caught.value.reason is Reason.UNKNOWN_BUILD_RUN
    assert json.loads(await builds.run(run_key, everything))["state"] == "QUEUED"
    assert json.loads(await builds.cancel(run_key, "tester", everything, "tester"))["refusal"]["message"] == "cancelled by tester"
    assert (
        json.loads(await builds.cancel(run_key, "an operator", everything, None))["refusal"]["message"] == "cancelled by tester"
    )
    await builds.close()


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (b"", "MALFORMED_JSON", "line 1"),
        (b"{", "MALFORMED_JSON", "line 1"),
        (b"\xff\xfe", "MALFORMED_JSON", "line 1"),
        (b'{"a": NaN}', "MALFORMED_JSON", "line 1"),
        (b"[" * 50_000, "MALFORMED_JSON", "line 1"),
        (b"intent: dataset_build", "MALFORMED_JSON", "line 1"),
        (b"[]", "INTENT_REFUSED", "INVALID_INTENT: an intent is an object"),
        (b"{}", "INTENT_REFUSED", "INVALID_INTENT (intent): is required"),
        (b'{"a": 1, "a": 2}', "INTENT_REFUSED", "INVALID_INTENT (a): a field is written twice"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "INTENT_REFUSED", "INVALID_INTENT"),
    ],
)
async def test_bodies_that_are_no_intent(body: bytes, reason: str, words: str) -> None:
    with pytest.raises(ContractError) as caught:
        await BuildRequests(NOWHERE).submit(body, "tester", everything)
    assert caught.value.reason.value == reason
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": None}, "LABEL_ASOF_MISSING (label): a training set needs a label"),
        ({"label": {"label_type": "fraud", "maturity_seconds": 1}}, "LABEL_ASOF_MISSING (label.as_of_utc): "),
        ({"as_of_basis": CARD[:12]}, "INVALID_INTENT (as_of_basis): is not one of the values allowed here"),
        ({"intent": CARD[:12]}, "INVALID_INTENT (intent): is not one of"),
        ({"dataset_name": CARD[:12]}, "INVALID_INTENT (dataset_name): "),
        ({"dataset_name": CARD}, "INVALID_INTENT (dataset_name): a raw identifier"),
        ({"note": f"of card {CARD}"}, "INVALID_INTENT (note): a raw identifier"),
        ({CARD: CARD[:12]}, "INVALID_INTENT"),
        (
            {"replay": {"select": "admission_times", "from_utc": "2026-03-02T00:00:00Z", "to_utc": "2026-03-01T00:00:00Z"}},
            "BASIS_UNRESOLVED (replay.to_utc): the time range is reversed",
        ),
    ],
)
async def test_an_intent_that_is_wrong_is_refused_by_field_and_never_quoted(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ContractError) as caught:
        await BuildRequests(NOWHERE).submit(json.dumps({**intent_example(), **changes}).encode(), "tester", everything)
    assert caught.value.reason is Reason.INTENT_REFUSED
    assert not caught.value.retryable
    assert caught.value.message.startswith(words)
    assert CARD[:12] not in caught.value.message


async def test_a_run_that_nobody_asked_for(dsn: str) -> None:
    async with client_of(dsn) as ofp:
        with pytest.raises(ContractError) as caught:
            await ofp.build_run("0" * 64)
    assert caught.value.reason is Reason.UNKNOWN_BUILD_RUN


async def test_no_database_is_told_as_such() -> None:
    builds = BuildRequests(NOWHERE)
    for ask in (builds.submit(json.dumps(intent_example()).encode(), "tester", everything), builds.run("0" * 64, everything)):
        with pytest.raises(ContractError) as caught:
            await ask
        assert caught.value.reason is Reason.STORE_DOWN
        assert caught.value.retryable
    await builds.close()


@contextmanager
def gone(server: str, dsn: str) -> Iterator[None]:
    """The database is not there under its name while the context lasts, and nobody is connected to it any more."""
    name = conninfo.conninfo_to_dict(dsn)["dbname"]
    here, away = sql.Identifier(str(name)), sql.Identifier(f"{name}_away")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(here))
        end_sessions(connection, str(name))
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(here, away))
        try:
            yield
        finally:
            connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(away, here))
            connection.execute(sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true").format(here))


async def test_the_role_of_serving_suffices(dsn: str) -> None:
    async with client_of(as_role(dsn, default_role(Job.SERVING))) as ofp:
        run = await ofp.submit_intent(intent_example())
        assert await ofp.submit_intent(intent_example()) == run
        assert (await ofp.build_run(run.run_key)).run_key == run.run_key


async def test_an_outage_is_told_and_passes(embedded_server: str, dsn: str) -> None:
    async with service(dsn) as transport:
        hasty = AsyncOfpClient("http://localhost", token=KEY, transport=transport, retries=RetryPolicy(attempts=1))
        patient = AsyncOfpClient("http://localhost", token=KEY, transport=transport, retries=RetryPolicy(attempts=20))
        run = await hasty.submit_intent(intent_example())
        with gone(embedded_server, dsn):
            for ask in (hasty.build_run(run.run_key), hasty.submit_intent(intent_example())):
                with pytest.raises(ContractError) as caught:
                    await ask
                assert caught.value.reason is Reason.STORE_DOWN
        assert await patient.submit_intent(intent_example()) == run


async def test_a_database_that_hangs_is_told_and_passes(dsn: str) -> None:
    intent = json.dumps(intent_example()).encode()
    builds = BuildRequests(dsn, bounds=WorkBounds(answer_seconds=0.3))
    async with await psycopg.AsyncConnection.connect(dsn) as holder:
        await holder.execute("LOCK TABLE ofp.build_run IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ContractError) as caught:
            await builds.submit(intent, "tester", everything)
        assert caught.value.reason is Reason.STORE_DOWN
        (left,) = builds.work.under_way
    # what nobody waited for any more was done all the same, and counts once
    expected = await left
    await builds.close()
    patient = BuildRequests(dsn)
    assert await patient.submit(intent, "tester", everything) == expected
    await patient.close()


@pytest.mark.parametrize("bounds", [{"most_waiting": 64}, {"most_waiting_bytes": 128}])
async def test_builds_take_few_threads_and_bounded_memory(dsn: str, bounds: dict[str, int]) -> None:
    builds, release, entered = BuildRequests(dsn, bounds=WorkBounds(**bounds)), threading.Event(), threading.Semaphore(0)

    def held(body: bytes, submitted_by: str, may_read: MayRead) -> bytes:
        entered.release()
        release.wait()
        return body

    builds._submit = held  # type: ignore[method-assign]
    under_way = [asyncio.create_task(builds.submit(b"%02d" % number, "tester", everything)) for number in range(68)]
    for _ in range(4):
        await asyncio.to_thread(entered.acquire)
    with pytest.raises(ContractError) as caught:
        await builds.run("0" * 64, everything)
    assert caught.value.reason is Reason.OVERLOADED
    assert len(builds.work.under_way) == 4
    release.set()
    assert await asyncio.gather(*under_way) == [b"%02d" % number for number in range(68)]
    with pytest.raises(ContractError) as caught:
        await builds.run("0" * 64, everything)
    assert caught.value.reason is Reason.UNKNOWN_BUILD_RUN
    await builds.close()
