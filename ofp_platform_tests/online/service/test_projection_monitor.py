"""The monitor: each observation is judged and exported."""

from __future__ import annotations

import threading
from collections.abc import Mapping

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


def fail(_basis: Basis) -> Mapping[str, int]:
    raise LogUnavailable("no answer")
