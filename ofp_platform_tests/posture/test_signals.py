"""Each signal is read as an integer, or is absent; a name that nobody reads is refused."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from ofp_platform.client import AsyncOfpClient, RetryPolicy
from ofp_platform.posture.evaluator import asked_mode
from ofp_platform.posture.signals import OF_SERVICE, OF_TABLES, HealthQuestions, UnknownSignal, demand_known, read_signals
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.loop.posture import Mode, PosturePolicy
from ofp_platform_tests.actions.test_webhook import dripping
from ofp_platform_tests.posture.conftest import Run

NAMES = sorted([*OF_SERVICE, *OF_TABLES])
POLICY = PosturePolicy.model_validate(
    {"thresholds": [{"signal": name, "at_least": 1_000_000_000, "mode": "REDUCED"} for name in NAMES], "absent": "HOLD"}
)
HEALTH: dict[str, Any] = {
    "kind": "ofp_health",
    "contract_version": "v0",
    "state": "AMBER",
    "reasons": [],
    "projection": None,
    "input_basis": None,
    "watermark_utc": None,
    "watermark_age_seconds": 7,
    "partitions": [{"partition_id": "0000", "lag_records": 2}, {"partition_id": "0001", "lag_records": 3}],
    "counters": {"snapshots_built": 3, "snapshot_failures": 1},
    "apply_failures": {},
}


def questions(answer: httpx.Response | Exception) -> HealthQuestions:
    def handle(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    transport = httpx.MockTransport(handle)
    return HealthQuestions(AsyncOfpClient("http://here", transport=transport, retries=RetryPolicy(attempts=1)), 20.0)


def read(run: Run, answer: httpx.Response | Exception) -> dict[str, int | None]:
    with questions(answer) as asked:
        return read_signals(POLICY, asked.ask, run.plane.pool, run.pins, run.plane.profile.stream_name)


def of_service(signals: dict[str, int | None]) -> dict[str, int | None]:
    return {name: value for name, value in signals.items() if name in OF_SERVICE}


def test_a_health_document_is_read(run: Run) -> None:
    expected = {"projection_posture": 1, "lag_records": 5, "watermark_age_seconds": 7, "failed_ppm": 250_000}
    assert of_service(read(run, httpx.Response(200, json=HEALTH))) == expected
    red = {**HEALTH, "state": "RED", "partitions": [], "counters": {}, "watermark_age_seconds": None}
    absent = {"projection_posture": 2, "lag_records": None, "watermark_age_seconds": None, "failed_ppm": None}
    assert of_service(read(run, httpx.Response(503, json=red))) == absent


@pytest.mark.parametrize(
    "answer", [httpx.ConnectError("refused"), httpx.ReadTimeout("late"), httpx.Response(500), httpx.Response(200, text="{}")]
)
def test_a_service_that_does_not_tell_is_absent(
    run: Run, answer: httpx.Response | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        signals = read(run, answer)
    assert set(of_service(signals).values()) == {None}
    assert "does not tell its health" in caplog.text
    assert asked_mode(signals, POLICY).mode is Mode.HOLD


def test_tables_are_read(run: Run) -> None:
    signals = read(run, httpx.Response(200, json=HEALTH))
    assert (signals["log_age_seconds"], signals["ambiguous_publishes"], signals["quarantine_ppm"]) == (None, 0, 0)
    with run.plane.pool.connection() as connection:
        connection.execute(
            "INSERT INTO ofp.log_stream (stream_name, partition_count, partition_key, server)"
            " VALUES (%s, 1, 'payload.account_id', ofp.log_server())",
            (run.plane.profile.stream_name,),
        )
        connection.execute(
            "INSERT INTO ofp.log_head (stream_name, partition_id, next_offset, last_broker_time)"
            " SELECT %s, '0000', 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - 90000000",
            (run.plane.profile.stream_name,),
        )
    age = read(run, httpx.Response(200, json=HEALTH))["log_age_seconds"]
    assert age is not None
    assert 90 <= age < 3_600


def test_a_database_that_does_not_answer_is_absent(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    pool = open_pool(run.plane.dsn, max_size=1)
    pool.close()
    with questions(httpx.Response(200, json=HEALTH)) as asked, caplog.at_level(logging.WARNING):
        signals = read_signals(POLICY, asked.ask, pool, run.pins, run.plane.profile.stream_name)
    assert {signals[name] for name in OF_TABLES} == {None}
    assert of_service(signals)["lag_records"] == 5
    assert "does not answer" in caplog.text


def test_a_service_that_answers_byte_by_byte_is_absent(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with dripping(1_000) as address, HealthQuestions(AsyncOfpClient(address, retries=RetryPolicy(attempts=1)), 0.2) as asked:
        signals = read_signals(POLICY, asked.ask, run.plane.pool, run.pins, run.plane.profile.stream_name)
    assert set(of_service(signals).values()) == {None}
    assert "GET /health: no whole answer within 0.2 s" in caplog.text


def test_a_signal_that_nobody_reads_is_refused() -> None:
    demand_known(POLICY)
    policy = PosturePolicy.model_validate({"thresholds": [{"signal": "luck", "at_least": 1, "mode": "HOLD"}]})
    with pytest.raises(UnknownSignal, match=r"nobody reads luck; there are ambiguous_publishes, .*watermark_age_seconds"):
        demand_known(policy)
