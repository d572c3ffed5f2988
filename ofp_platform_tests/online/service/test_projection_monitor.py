"""The monitor: each observation is judged and exported."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

import pytest

from ofp_platform.log.port import LogUnavailable
from ofp_platform.online.plane import Plane
from ofp_platform.online.service.counters import Counters
from ofp_platform.online.service.projection_monitor import ProjectionMonitor
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.online.service.served_plane import commit


async def test_each_observation_is_judged_and_exported(profile: Profile, plane: Plane) -> None:
    counters = Counters()
    monitor = ProjectionMonitor(plane, plane.ensure_live(), profile.thresholds, counters)
    assert monitor.posture == {"state": "AMBER", "reasons": ["STARTING"], "lag_records": None}
    await monitor.observe()
    assert monitor.posture == {"state": "GREEN", "reasons": [], "lag_records": 0}
    assert counters.registry.get_sample_value("ofp_events_applied_total") == 1
    assert counters.registry.get_sample_value("ofp_posture") == 0
    commit(plane, "e-1")
    await monitor.observe()
    assert counters.registry.get_sample_value("ofp_events_applied_total") == 2


async def test_a_store_that_fails_is_red_and_the_next_observation_is_tried(
    profile: Profile, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = Counters()
    monitor = ProjectionMonitor(plane, plane.ensure_live(), profile.thresholds, counters)
    with monkeypatch.context() as patch:
        patch.setattr(plane.log, "ordinal_lag", fail)
        await monitor.observe()
    assert monitor.observation is None
    assert monitor.posture == {"state": "RED", "reasons": ["STORE_DOWN"], "lag_records": None}
    assert counters.registry.get_sample_value("ofp_posture") == 2
    await monitor.observe()
    assert monitor.posture["state"] == "GREEN"


async def test_a_log_that_is_a_service_of_its_own_is_named_and_not_taken_for_the_store(
    profile: Profile, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = ProjectionMonitor(plane, plane.ensure_live(), profile.thresholds, Counters())
    monkeypatch.setattr(plane, "profile", profile.model_copy(update={"log_kind": "kafka"}))
    with monkeypatch.context() as patch:
        patch.setattr(plane.log, "ordinal_lag", fail)
        await monitor.observe()
        assert monitor.posture["reasons"] == ["LOG_DOWN"]
    # one that says nothing at all is named, too
    with monkeypatch.context() as patch:
        patch.setattr(plane.log, "ordinal_lag", lambda basis: asked.set() or (answers.wait(60) and {}))
        patch.setattr("ofp_platform.online.service.projection_monitor._OBSERVATION_SECONDS", 0.05)
        asked, answers = threading.Event(), threading.Event()
        while not asked.is_set():
            await monitor.observe()
        await monitor.observe()
        assert monitor.posture["reasons"] == ["LOG_DOWN"]
        answers.set()
    monkeypatch.setattr("ofp_platform.online.service.projection_monitor._OBSERVATION_SECONDS", 60)
    await monitor.observe()  # what was under way
    await monitor.observe()
    assert monitor.posture["state"] == "GREEN"


async def test_an_object_store_that_does_not_answer_is_told_though_nothing_is_served(
    profile: Profile, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monitor = ProjectionMonitor(plane, plane.ensure_live(), profile.thresholds, Counters(), monotonic=lambda: now[0])
    monitor.watch(plane.ensure_live())
    await monitor.observe()
    with monkeypatch.context() as patch:
        patch.setattr(plane.archived_log, "demand_tail", lambda: raising_store())
        now[0] += 61
        await monitor.observe()
        assert monitor.posture == {"state": "AMBER", "reasons": ["OBJECT_STORE_DOWN"], "lag_records": 0}
    now[0] += 6  # it is looked at sooner again
    await monitor.observe()
    assert monitor.posture["state"] == "GREEN"


def raising_store() -> None:
    raise ObjectStoreUnavailable("no answer")


async def test_a_clock_that_stepped_back_is_told(profile: Profile, plane: Plane) -> None:
    counters = Counters()
    monitor = ProjectionMonitor(plane, plane.ensure_live(), profile.thresholds, counters)
    with plane.pool.connection() as connection:
        connection.execute("UPDATE ofp.log_head SET last_broker_time = (extract(epoch FROM clock_timestamp()) + 100) * 1000000")
    await monitor.observe()
    assert monitor.posture == {"state": "AMBER", "reasons": ["CLOCK_BEHIND_SECONDS>1"], "lag_records": 0}
    behind = counters.registry.get_sample_value("ofp_log_clock_behind_seconds")
    assert behind is not None
    assert 1 < behind <= 100
    with plane.pool.connection() as connection:
        connection.execute("UPDATE ofp.log_head SET last_broker_time = NULL")
    await monitor.observe()
    assert monitor.posture["state"] == "GREEN"


async def test_the_graph_is_part_of_the_posture(profile: Profile, plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monitor = ProjectionMonitor(plane, plane.ensure_live(), profile.thresholds, Counters(), monotonic=lambda: now[0])
    await monitor.observe()
    assert (monitor.graph.lag, monitor.posture["reasons"]) == (0, [])
    monkeypatch.setattr(plane, "profile", profile.model_copy(update={"context_stream": "links"}))
    await monitor.observe()
    assert (monitor.graph.lag, monitor.posture["state"], monitor.posture["reasons"]) == (None, "AMBER", ["IEG_DOWN"])
    projector = plane.graph_projector()
    projector.drain()
    projector.graph()
    await monitor.observe()
    assert (monitor.graph.lag, monitor.posture["reasons"]) == (0, [])
    payload = {"key_type": "account", "member": "b", "canonical": "a", "effective_time_utc": "2026-01-01T00:00:00Z"}
    head = {"event_id": "l-1", "event_type": "identity_link", "schema_version": "1", "ts_utc": "2026-01-01T00:00:00Z"}
    assert plane.context_log().append([{**head, **profile.context_pins.wire(), "payload": payload}]).appended == 1
    await monitor.observe()
    assert (monitor.graph.lag, monitor.posture["reasons"]) == (1, [])
    now[0] += 11
    await monitor.observe()
    assert monitor.posture["reasons"] == ["IEG_STALLED_SECONDS>10"]
    projector.drain()
    await monitor.observe()
    assert (monitor.graph.lag, monitor.posture["reasons"]) == (0, [])
    with monkeypatch.context() as patch:
        patch.setattr(plane.context_log(), "ordinal_lag", fail)
        await monitor.observe()
        assert (monitor.graph.lag, monitor.posture["reasons"]) == (None, ["IEG_DOWN"])


async def test_a_pack_that_resolves_without_a_stream_of_links_is_no_health(
    profile: Profile, plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = plane.ensure_live()
    monitor = ProjectionMonitor(plane, row, profile.thresholds, Counters())
    assert profile.context_stream is None
    resolving = replace(plane.registry_of(row), resolves=True)
    monkeypatch.setattr(plane, "registry_of", lambda _row: resolving)
    for _ in range(2):
        await monitor.observe()
        assert (monitor.graph.lag, monitor.posture["state"], monitor.posture["reasons"]) == (None, "AMBER", ["IEG_DOWN"])


def fail(_basis: Basis) -> Mapping[str, int]:
    raise LogUnavailable("no answer")
