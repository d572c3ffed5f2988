"""Totals are those of the ledger, of the run alone; where it cannot be read, they stay."""

from __future__ import annotations

import json
from math import inf

import psycopg
import pytest

from ofp_platform.online.plane import Plane
from ofp_platform.online.service import totals_watch
from ofp_platform.online.service.counters import Counters
from ofp_platform.online.service.totals_watch import LOOK_SECONDS, TotalsWatch
from ofp_platform.storage.posture_looks import note_look
from ofp_platform.storage.recorded_totals import RecordedTotals, read_recorded_totals
from ofp_platform.vocabulary.posture_policy import Mode, PosturePolicy, Threshold

_SUBMIT = """
    INSERT INTO ofp.build_run (run_key, intent_kind, intent, attempt_limit, publish_attempt_limit)
    VALUES (%s, 'dataset_build', %s, 3, 3)"""
_CLAIM = "UPDATE ofp.build_run SET state = 'RUNNING', attempts = 1 WHERE run_key = %s"
_PLAN = "UPDATE ofp.build_run SET plan = '{}' WHERE run_key = %s"
_DONE = "UPDATE ofp.build_run SET state = 'DONE', outcome = '{}' WHERE run_key = %s"
_FAIL = """
    UPDATE ofp.build_run SET state = 'FAILED', refusal_reason = 'NOTHING_TO_BUILD', refusal_field = '', refusal_message = 'x'
    WHERE run_key = %s"""
_PUBLISH = """
    INSERT INTO ofp.dataset_index (dataset_name, dataset_identity, manifest_path, manifest_digest, request_id)
    VALUES ('d', %(key)s, 'p', %(key)s, %(key)s)"""
_ANOMALY = "INSERT INTO ofp.anomaly VALUES (%s, '0000', %s, 'e', %s, '0000', '0')"


def fill(plane: Plane, run_id: str, offset: int) -> None:
    """Four builds of a run: one waits, one runs, one is done and published, one failed."""
    pins = plane.profile.context_pins.wire() | {"run_id": run_id}
    with plane.pool.connection() as connection:
        keys = [f"{offset + number:064x}" for number in range(4)]
        for key in keys:
            connection.execute(_SUBMIT, (key, json.dumps({"context_pins": pins})))
        for key in keys[1:]:
            connection.execute(_CLAIM, (key,))
        connection.execute(_PLAN, (keys[2],))
        connection.execute(_DONE, (keys[2],))
        connection.execute(_FAIL, (keys[3],))
        connection.execute(_PUBLISH, {"key": keys[2]})


def sample(counters: Counters, name: str, **labels: str) -> float | None:
    return counters.registry.get_sample_value(name, labels)


def test_they_are_those_of_the_run(plane: Plane) -> None:
    row, counters = plane.ensure_live(), Counters()
    fill(plane, plane.profile.context_pins.run_id, 0)
    fill(plane, "another", 100)
    with plane.pool.connection() as connection:
        for offset, event_type in (("1", "card_payment"), ("2", "unheard_of"), ("3", "unheard_of")):
            connection.execute(_ANOMALY, (row.projection_id, offset, event_type))
        totals = read_recorded_totals(connection, plane.profile.context_pins, row.projection_id)
    anomalies = {"card_payment": 1, "unheard_of": 2}
    assert totals == RecordedTotals(4, 1, {"NOTHING_TO_BUILD": 1}, 1, anomalies)
    TotalsWatch(plane, counters).look(row.projection_id, 0.0)
    assert sample(counters, "ofp_build_requested_total") == 4
    assert sample(counters, "ofp_build_completed_total") == 1
    assert sample(counters, "ofp_build_failed", reason="NOTHING_TO_BUILD") == 1
    assert sample(counters, "ofp_datasets_built_total") == 1
    assert sample(counters, "ofp_anomalies_by_class_total", event_class="unheard_of") == 2
    metrics = [metric for metric in counters.registry.collect() if metric.name == "ofp_anomalies_by_class_total"]
    assert sum(point.value for metric in metrics for point in metric.samples) == 3


def test_one_that_is_tried_again_has_not_failed_any_more(plane: Plane) -> None:
    row, counters = plane.ensure_live(), Counters()
    fill(plane, plane.profile.context_pins.run_id, 0)
    watch = TotalsWatch(plane, counters)
    watch.look(row.projection_id, 0.0)
    with plane.pool.connection() as connection:
        connection.execute(
            "UPDATE ofp.build_run SET state = 'QUEUED', refusal_reason = NULL, refusal_field = NULL, refusal_message = NULL"
            " WHERE state = 'FAILED'"
        )
    watch.look(row.projection_id, LOOK_SECONDS - 1)
    assert sample(counters, "ofp_build_failed", reason="NOTHING_TO_BUILD") == 1  # not looked at again yet
    watch.look(row.projection_id, LOOK_SECONDS)
    assert sample(counters, "ofp_build_failed", reason="NOTHING_TO_BUILD") is None


def test_signals_that_nobody_looks_at_are_told(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(watch: TotalsWatch, counters: Counters, now: float) -> float | None:
        watch.look(row.projection_id, now)
        return sample(counters, "ofp_signals_unwatched_seconds")

    row, pins = plane.ensure_live(), plane.profile.context_pins
    assert seconds(TotalsWatch(plane, counters := Counters()), counters, 0.0) == 0  # nothing is to be looked at
    policy = PosturePolicy(thresholds=(Threshold(signal="lag_records", at_least=9, mode=Mode.REDUCED),))
    watching = Plane(plane.profile.model_copy(update={"posture": policy}), plane.dsn, plane.pool, plane.log)
    watch = TotalsWatch(watching, counters := Counters())
    assert sample(counters, "ofp_signals_unwatched_seconds") == inf  # before the first look
    assert seconds(watch, counters, 0.0) == inf
    with plane.pool.connection() as connection:
        note_look(connection, pins)
    seen = seconds(watch, counters, LOOK_SECONDS)
    assert seen is not None
    assert seen < inf

    def away(*_: object) -> RecordedTotals:
        raise psycopg.OperationalError("no answer")

    monkeypatch.setattr(totals_watch, "read_recorded_totals", away)
    assert seconds(watch, counters, 2 * LOOK_SECONDS) == inf


def test_where_they_cannot_be_read_they_stay(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    row, counters = plane.ensure_live(), Counters()
    fill(plane, plane.profile.context_pins.run_id, 0)
    watch = TotalsWatch(plane, counters)
    watch.look(row.projection_id, 0.0)

    def away(*_: object) -> RecordedTotals:
        raise psycopg.OperationalError("no answer")

    monkeypatch.setattr(totals_watch, "read_recorded_totals", away)
    watch.look(row.projection_id, LOOK_SECONDS)
    assert sample(counters, "ofp_build_requested_total") == 4
