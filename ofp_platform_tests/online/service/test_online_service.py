"""The service on a store: its cache follows commits, a lost connection and a switch, and says so when the store is gone."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import psycopg
import pytest
from psycopg_pool import PoolTimeout

from ofp_platform.api.app import Application
from ofp_platform.api.build_requests import BuildRequests
from ofp_platform.api.operator_views import OperatorViews
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.port import StreamNotFound
from ofp_platform.online.plane import Plane
from ofp_platform.online.service.counters import Counters
from ofp_platform.online.service.online_service import OnlineService
from ofp_platform.online.service.projection_monitor import ProjectionMonitor
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.vocabulary.background_tasks import EndedTasks
from ofp_platform.vocabulary.catalogue import Catalogue
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyType
from ofp_platform.vocabulary.identity_link import EntityProfile
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.serving import PostureState
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.api.fake_port import FakeOverviews, FakePosture, FakeRecords
from ofp_platform_tests.api.keys import BEARER, authentication
from ofp_platform_tests.online.answered import answered
from ofp_platform_tests.online.service.served_plane import AS_OF, ENOUGH, commit, until
from ofp_platform_tests.oracle.strategies import PINS

REQUEST = orjson.dumps(
    {
        "context_pins": PINS,
        "feature_keys": [{"key_type": "account", "key_id": "customer-1"}],
        "feature_groups": [{"group_name": "account_activity", "group_version": "v1"}],
        "as_of_time_utc": AS_OF,
    }
)


@asynccontextmanager
async def opened(profile: Profile, dsn: str, ended: EndedTasks | None = None) -> AsyncIterator[OnlineService]:
    service = OnlineService(profile, dsn, connections=2, ended=ended)
    await service.open()
    try:
        yield service
    finally:
        await service.close()


async def count(service: OnlineService) -> int:
    body = orjson.loads((await answered(service, REQUEST)).body)
    found: int = body["snapshot"]["by_key"][0]["by_group"][0]["features"]["count_1d"]
    return found


def held(service: OnlineService) -> Any:
    assert service.reader is not None
    return service.reader.cache


async def test_the_cache_follows_the_projector(profile: Profile, dsn: str, plane: Plane) -> None:
    async with opened(profile, dsn) as service:
        await until(lambda: held(service).head is not None)
        for number in range(1, 4):
            assert await count(service) == number
            assert len(held(service)) == 1
            at = held(service).head.version
            await asyncio.to_thread(commit, plane, f"e-{number}")
            await until(lambda at=at: held(service).head.version > at)  # type: ignore[misc]
            assert len(held(service)) == 0


async def test_a_lost_connection_empties_the_cache_until_it_is_back(profile: Profile, dsn: str, plane: Plane) -> None:
    async with opened(profile, dsn) as service:
        await until(lambda: held(service).head is not None)
        assert await count(service) == 1
        epoch = held(service).epoch
        with psycopg.connect(dsn, autocommit=True) as connection:
            # the listener alone is not of the pool, so it does not carry the pool's name
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND query LIKE 'LISTEN%'"
            )
        await until(lambda: held(service).epoch > epoch)
        await asyncio.to_thread(commit, plane, "e-1")
        assert await count(service) == 2  # whether or not the service listens again by now: nothing is held
        live = await asyncio.to_thread(plane.live)
        assert live is not None
        await until(lambda: held(service).head is not None and held(service).head.version == live.version)
        assert [await count(service) for _ in range(3)] == [2, 2, 2]
        assert len(held(service)) == 1


def everything(pins: ContextPins) -> bool:
    return True


async def test_what_was_served_is_found_by_its_hash(profile: Profile, dsn: str, plane: Plane) -> None:
    async with opened(profile, dsn) as service:
        answer = await answered(service, REQUEST)
        record = orjson.loads(await service.snapshot(answer.hash, everything))
    assert record["feature_snapshot_hash"] == answer.hash
    assert service.counters.total("snapshots_built") == 1


async def test_a_snapshot_that_is_served_again_while_it_is_stored_is_found(
    profile: Profile, dsn: str, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SnapshotStore.log
    async with opened(profile, dsn) as service:
        loop = asyncio.get_running_loop()

        def log(self: SnapshotStore, answers: Sequence[Answer]) -> None:
            store(self, answers)
            assert service.served_log is not None
            loop.call_soon_threadsafe(service.served_log.offer, answers[0])
            monkeypatch.undo()

        monkeypatch.setattr(SnapshotStore, "log", log)
        answer = await answered(service, REQUEST)
        assert orjson.loads(await service.snapshot(answer.hash, everything))["feature_snapshot_hash"] == answer.hash


async def test_the_page_of_the_api_shows_requests_that_this_service_answers(profile: Profile, dsn: str, plane: Plane) -> None:
    async with opened(profile, dsn) as service:
        transport = httpx.ASGITransport(
            Application(
                service,
                BuildRequests(dsn),
                OperatorViews(profile, dsn),
                FakeRecords(),
                FakeOverviews(),
                posture=FakePosture(),
                authentication=authentication(pins=profile.context_pins),
            )
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=BEARER) as http:
            paths = (await http.get("/openapi.json")).json()["paths"]
            asked = paths["/v0/get_features"]["post"]
            body = asked["requestBody"]["content"]["application/json"]["example"]
            shown = asked["responses"]["200"]["content"]["application/json"]["example"]
            answer = (await http.post("/v0/get_features", json=body)).json()
            assert answer["provenance"]["feature_snapshot_hash"] == shown["provenance"]["feature_snapshot_hash"]
            named = paths["/v0/snapshots/{snapshot_hash}"]["get"]["parameters"][0]["example"]
            assert (await http.get(f"/v0/snapshots/{named}")).status_code == 200


async def test_every_failure_is_counted_and_every_counter_exported(profile: Profile, dsn: str, plane: Plane) -> None:
    async with opened(profile, dsn) as service:
        with pytest.raises(ContractError):
            await answered(service, b"{")
        assert service.reader is not None
        assert service.served_log is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(service.reader, "answer", None)
            with pytest.raises(TypeError):
                await answered(service, REQUEST)
        service.served_log.dropped = 3
        lines = service.metrics().decode().splitlines()
        health = await service.health()
    assert 'ofp_snapshot_failures_total{error_code="INVALID_REQUEST",reason="MALFORMED_JSON"} 1.0' in lines
    assert 'ofp_snapshot_failures_total{error_code="UNAVAILABLE",reason="INTERNAL"} 1.0' in lines
    assert "ofp_served_log_dropped_total 3.0" in lines
    assert health.counters["snapshot_failures"] == 2
    assert health.counters["served_log_dropped"] == 3
    exported = {re.split(r"[ {]", line)[0] for line in lines if not line.startswith("#")}
    for name in (
        "snapshots_built", "snapshot_failures", "events_applied", "duplicates", "stale_graph_version", "missing_features",
        "late_events", "anomalies",
    ):  # fmt: skip
        assert f"ofp_{name}_total" in exported
    assert {"ofp_lag_records", "ofp_watermark_age_seconds", "ofp_posture"} <= exported


async def test_a_store_that_is_silent_is_red_and_no_second_look_joins_the_first(
    profile: Profile, dsn: str, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(profile, dsn) as service:
        # the first observation also looks into the archive, which is opened for it
        monkeypatch.setattr("ofp_platform.online.service.projection_monitor._OBSERVATION_SECONDS", 0.05)
        assert (await service.health()).state is PostureState.GREEN
        assert service.monitor is not None
        asked = threading.Event()
        answers = threading.Event()
        look = service.monitor.read_observation
        looks = []

        def hangs() -> Any:
            looks.append(1)
            asked.set()
            assert answers.wait(ENOUGH)
            return look()

        monkeypatch.setattr(service.monitor, "read_observation", hangs)
        for _ in range(3):
            await service.monitor.observe()
        assert asked.is_set()
        assert (await service.health()).reasons == ("STORE_DOWN",)
        assert len(looks) == 1
        monkeypatch.setattr(service.monitor, "read_observation", look)
        answers.set()
        monkeypatch.setattr("ofp_platform.online.service.projection_monitor._OBSERVATION_SECONDS", ENOUGH)
        await service.monitor.observe()
        assert (await service.health()).state is PostureState.GREEN


async def test_an_outage_is_logged_in_words(profile: Profile, dsn: str, plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(profile, dsn):
        try:
            raise ConnectionRefusedError("no")
        except ConnectionRefusedError:
            logging.getLogger("asyncpg.pool").exception("Failed to restore the pool connection floor; retrying")
    assert "Failed to restore" in caplog.text
    assert "Traceback" not in caplog.text


BACKGROUND = {
    "projection monitor": ("monitor", "observe"),
    "commit listener": ("_listener", "listen_once"),
    "served log": ("served_log", "_store_waiting"),
}


@pytest.mark.parametrize("name", BACKGROUND)
async def test_a_background_task_that_ends_makes_every_worker_red_and_says_which(
    profile: Profile, dsn: str, plane: Plane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr("ofp_platform.online.service.projection_monitor.MONITOR_SECONDS", 0.01)
    part, method = BACKGROUND[name]
    reason = f"TASK_ENDED:{name}:ZeroDivisionError"

    async def fails() -> None:
        raise ZeroDivisionError("nobody expects it")

    async with opened(profile, dsn, EndedTasks(tmp_path)) as worker, opened(profile, dsn, EndedTasks(tmp_path)) as neighbour:
        assert (await worker.health()).state is (await neighbour.health()).state is PostureState.GREEN
        monkeypatch.setattr(getattr(worker, part), method, fails)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND query LIKE 'LISTEN%'"
            )
        await answered(worker, REQUEST)
        await until(lambda: not worker.tasks.running()[name])
        assert worker.monitor is not None
        await until(lambda: worker.monitor is not None and reason in worker.monitor.posture["reasons"])  # told one turn later
        health = await worker.health()
        assert (health.state, health.reasons[0]) == (PostureState.RED, reason)
        assert orjson.loads((await answered(worker, REQUEST)).body)["provenance"]["posture"]["reasons"][0] == reason
        lines = worker.metrics().decode().splitlines()
        assert f'ofp_background_task_up{{task="{name}"}} 0.0' in lines
        assert "ofp_posture 2.0" in lines
        assert neighbour.monitor is not None
        await until(lambda: neighbour.monitor is not None and reason in neighbour.monitor.posture["reasons"])
        assert (await neighbour.health()).state is PostureState.RED


async def test_a_posture_that_is_judged_no_more_is_red(profile: Profile, dsn: str, plane: Plane) -> None:
    now = [0.0]
    monitor = ProjectionMonitor(plane, plane.ensure_live(), profile.thresholds, Counters(), monotonic=lambda: now[0])
    await monitor.observe()
    assert monitor.posture["state"] == "GREEN"
    now[0] = 15.5
    assert monitor.posture == {"state": "RED", "reasons": ["NOT_OBSERVED_SECONDS>15"], "lag_records": None}
    await monitor.observe()
    assert monitor.posture["state"] == "GREEN"


async def test_what_cannot_be_observed_for_an_unexpected_reason_is_red_until_it_can(
    profile: Profile, dsn: str, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(profile, dsn) as service:
        assert service.monitor is not None
        for error in (StreamNotFound("it was deleted"), KeyError("a defect")):
            with monkeypatch.context() as patch:
                patch.setattr(service.monitor, "read_observation", raising(error))
                await service.monitor.observe()
                assert (await service.health()).reasons == (f"NOT_OBSERVED:{type(error).__name__}",)
        await service.monitor.observe()
        assert (await service.health()).state is PostureState.GREEN


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


async def test_what_cannot_be_recorded_is_not_served(
    profile: Profile, dsn: str, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = profile.model_copy(update={"served_log_mb": 1})
    async with opened(small, dsn) as service:
        assert service.monitor is not None
        assert service.served_log is not None
        served = 0
        with monkeypatch.context() as patch:
            patch.setattr(SnapshotStore, "log", lambda *_: raising(ObjectStoreUnavailable("no"))())
            while not service.served_log.is_full:
                await answered(service, REQUEST)
                served += 1
            with pytest.raises(ContractError) as caught:
                await answered(service, REQUEST)
            assert (caught.value.reason, caught.value.retryable) == (Reason.SERVED_LOG_FULL, True)
            assert 1 << 20 <= service.served_log.waiting_bytes < 1 << 21
            service.metrics()
            assert service.counters.registry.get_sample_value("ofp_served_log_bytes") == service.served_log.waiting_bytes
            await service.monitor.observe()
            health = await service.health()
            assert (health.state, health.reasons) == (PostureState.RED, ("SERVED_LOG_FULL",))
        await until(lambda: service.served_log is not None and not service.served_log.waiting_bytes)
        await answered(service, REQUEST)
        await service.monitor.observe()
        assert (await service.health()).state is PostureState.GREEN
    assert served > 100
    assert service.served_log.dropped == 0


async def test_answers_that_cannot_be_logged_show_in_the_posture(
    profile: Profile, dsn: str, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(profile, dsn) as service:
        assert service.monitor is not None
        assert service.served_log is not None
        for error, state, reasons in (
            (ObjectStoreUnavailable("no"), PostureState.AMBER, ("OBJECT_STORE_DOWN", "SERVED_LOG_WAITS")),
            (PoolTimeout("no"), PostureState.AMBER, ("SERVED_LOG_WAITS",)),
            (KeyError("a defect"), PostureState.RED, ("SERVED_LOG_FAILS:KeyError",)),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(SnapshotStore, "log", lambda *_, error=error: raising(error)())
                await answered(service, REQUEST)
                await service.served_log.flushed()
                await service.monitor.observe()
                health = await service.health()
                assert (health.state, health.reasons) == (state, reasons)
        await until(lambda: service.served_log is not None and service.served_log.trouble is None)
        await service.monitor.observe()
        assert (await service.health()).state is PostureState.GREEN


def counts(dsn: str) -> tuple[int, ...]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        tables = ("registry_pack", "registry_group", "projection")
        rows = [connection.execute(f"SELECT count(*) FROM ofp.{table}").fetchone() for table in tables]  # type: ignore[arg-type]
        return tuple(row[0] for row in rows if row is not None)


async def refused(service: OnlineService, body: bytes) -> tuple[str, str]:
    with pytest.raises(ContractError) as error:
        await answered(service, body)
    return error.value.code.value, error.value.reason.value


async def test_a_run_that_nobody_projected_is_not_known_and_not_made_by_asking(profile: Profile, dsn: str) -> None:
    async with opened(profile, dsn) as service:
        health = await service.health()
        assert (health.state, health.reasons, health.projection) == (PostureState.RED, ("NO_PROJECTION",), None)
        assert await refused(service, REQUEST) == ("NOT_FOUND", "UNKNOWN_RUN")
        assert await refused(service, b"{") == ("INVALID_REQUEST", "MALFORMED_JSON")
        with pytest.raises(ContractError, match="no live projection"):
            await service.feature_groups()
        with pytest.raises(ContractError, match="no live projection"):
            await service.catalogue()
        assert counts(dsn) == (0, 0, 0)
        with pytest.raises(StreamNotFound):
            Plane.open(profile, dsn, create_stream=False)
        with Plane.open(profile, dsn) as plane:
            await asyncio.to_thread(plane.ensure_live)
            await until(lambda: service.reader is not None)
            assert service.monitor is not None
            await service.monitor.observe()
            health = await service.health()
            assert (health.state, health.reasons) == (PostureState.AMBER, ("NOTHING_APPLIED",))
            assert await count(service) == 0
            await asyncio.to_thread(commit, plane, "e-0")
            await service.monitor.observe()
            assert (await service.health()).state is PostureState.GREEN
            catalogue = Catalogue.model_validate_json(await service.catalogue())
            assert catalogue.readers_known
            assert [group.group_name for group in catalogue.groups] == sorted(group.group_name for group in catalogue.groups)


async def test_a_service_that_starts_while_kinesis_is_away_serves_the_whole_state(
    profile: Profile, dsn: str, moto_server: str
) -> None:
    kinesis = {"log_kind": "kinesis", "stream_name": f"served-{dsn.partition('/t_')[2][:12]}"}
    served = profile.model_copy(update={**kinesis, "kinesis_endpoint_url": moto_server})
    with await asyncio.to_thread(Plane.open, served, dsn) as plane:
        await asyncio.to_thread(plane.ensure_live)
        await asyncio.to_thread(commit, plane, "e-0")
    away = served.model_copy(update={"kinesis_endpoint_url": "http://127.0.0.1:1"})
    async with opened(away, dsn) as service:
        answer = orjson.loads((await answered(service, REQUEST)).body)
        assert answer["snapshot"]["by_key"][0]["by_group"][0]["features"]["count_1d"] == 1
        assert answer["provenance"]["posture"]["state"] != PostureState.GREEN.value
        assert service.monitor is not None
        assert service.monitor.posture["state"] != PostureState.GREEN.value


async def test_an_entity_is_that_of_the_graph(profile: Profile, dsn: str, plane: Plane) -> None:
    key = FeatureKey(key_type=KeyType.ACCOUNT, key_id="customer-1")
    async with opened(profile, dsn) as service:
        with pytest.raises(ContractError, match="names no context_stream") as caught:
            await service.entity(key, 0)
        assert caught.value.reason is Reason.IEG_DOWN
    linked = profile.model_copy(update={"context_stream": "links"})
    with Plane.open(linked, dsn) as with_links:
        payload = {"key_type": "account", "member": "b", "canonical": "customer-1", "effective_time_utc": "2026-01-01T00:00:00Z"}
        head = {"event_id": "l-1", "event_type": "identity_link", "schema_version": "1", "ts_utc": "2026-01-01T00:00:00Z"}
        assert with_links.context_log(create=True).append([{**head, **PINS, "payload": payload}]).appended == 1
        async with opened(linked, dsn) as service:
            with pytest.raises(ContractError, match="nobody has folded"):
                await service.entity(key, 0)
            with_links.graph_projector().drain()
            at = parse_time("2026-01-02T00:00:00Z")
            known = EntityProfile.model_validate_json(await service.entity(key, at))
            assert known == with_links.graph_reader().profile(key, at)
            assert known.members == ("b", "customer-1")
