"""What others recorded opens cases, each once: decisions that wait for a person, ids with two payloads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from ofp_platform.api.examples import decision_example
from ofp_platform.cases import triggering
from ofp_platform.cases.triggering import (
    COLLECTOR,
    WHOLE_LOOK_SECONDS,
    Collection,
    Collector,
    CollectReport,
    collect,
)
from ofp_platform.registry.models import event_class
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.case_entries import append_entries, cases_named, read_timelines
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.storage.embedded import as_role
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.storage.roles import Job, default_role
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.case import AnomalyEvidence, CaseTrigger, DecisionEvidence, Triggered
from ofp_platform.vocabulary.loop.case_standing import CaseState
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.cases.conftest import START, Office, new_run
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND
from ofp_platform_tests.oracle.strategies import START as LOG_START


@pytest.fixture(params=[Job.SERVING, Job.OFFLINE])
def role_pool(module_dsn: str, request: pytest.FixtureRequest) -> Iterator[Pool]:
    with open_pool(as_role(module_dsn, default_role(request.param))) as opened:
        yield opened


def decision(pins: ContextPins, number: int, outcome: str, **more: Any) -> DecisionRecord:
    event_id = f"payment-{number}"
    content = {
        **decision_example(),
        "context_pins": pins.wire(),
        "event_id": event_id,
        "decision_id": decision_id(pins, "card_payment", event_id),
        "outcome": outcome,
        # an outcome of another kind in the content is not that of the decision
        "request_context": {"outcome": "review"},
        **more,
    }
    return DecisionRecord.model_validate(content, strict=False)


def record(pool: Pool, records: list[DecisionRecord]) -> None:
    with pool.connection() as connection:
        append_decisions(connection, records)


def collection(pins: ContextPins) -> Collection:
    events = shipped_pack("card_payments").events
    return Collection(pins, lambda event_type: event_class(events, event_type), lambda: START)


def outcomes(report: CollectReport) -> tuple[int, int, int]:
    return report.triggers, report.known, report.conflicts


def test_decisions_to_review_or_decline_open_cases_once(role_pool: Pool, office: Office) -> None:
    pins = office.pins
    kinds = ["approve", "review", "decline", "review", "approve"]
    records = [decision(pins, number, kind) for number, kind in enumerate(kinds)]
    record(office.pool, records)
    assert outcomes(collect(role_pool, collection(pins))) == (3, 0, 0)
    assert outcomes(collect(role_pool, collection(pins))) == (0, 0, 0)
    # decided long ago, and recorded only now: nothing is passed over
    late = decision(pins, 9, "review", decided_at_utc="2020-01-01T00:00:00Z")
    record(office.pool, [late, decision(pins, 10, "approve")])
    assert outcomes(collect(role_pool, collection(pins))) == (1, 0, 0)

    cases = office.desk.cases(CaseState.OPEN, 10).cases
    assert [case.event_id for case in cases if case.standing.priority == 3] == ["payment-2"]  # declined: nobody waits
    assert {case.event_id for case in cases if case.standing.priority == 2} == {"payment-1", "payment-3", "payment-9"}
    case = office.desk.case(office.desk.find("payment-1")[0])
    content = case.timeline[0].content
    assert isinstance(content, Triggered)
    assert isinstance(content.evidence, DecisionEvidence)
    assert (content.trigger, case.timeline[0].actor) == (CaseTrigger.DECISION_ESCALATION, COLLECTOR)
    evidence, expected = content.evidence, records[1]
    assert (evidence.decision_id, evidence.snapshot_hash) == (expected.decision_id, expected.feature_snapshot_hash)
    assert evidence.record_digest == digest_of(expected.wire())
    assert evidence.position == f"{expected.event_position.partition_id}:{expected.event_position.offset}"
    assert case.event_class == "card_payment"


def test_only_decisions_of_the_run_are_collected(office: Office) -> None:
    other = new_run()
    record(office.pool, [decision(other, 1, "review"), decision(office.pins, 2, "review")])
    assert outcomes(collect(office.pool, collection(office.pins))) == (1, 0, 0)
    assert office.desk.find("payment-1") == []


def test_pages_end_where_the_source_ends(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggering, "PAGE", 2)
    record(office.pool, [decision(office.pins, number, "review") for number in range(4)])
    assert outcomes(collect(office.pool, collection(office.pins))) == (4, 0, 0)
    record(office.pool, [decision(office.pins, number, "decline") for number in range(4, 9)])
    assert outcomes(collect(office.pool, collection(office.pins))) == (5, 0, 0)


def test_a_pass_that_is_cut_short_loses_nothing_and_doubles_nothing(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggering, "PAGE", 2)
    record(office.pool, [decision(office.pins, number, "review") for number in range(7)])
    calls = itertools.count()

    def failing(*arguments: Any) -> Any:
        appended = append_entries(*arguments)
        if next(calls) == 1:
            raise psycopg.OperationalError("the server went away")
        return appended

    monkeypatch.setattr(triggering, "append_entries", failing)
    with pytest.raises(psycopg.OperationalError):
        collect(office.pool, collection(office.pins))
    assert len(office.desk.cases(CaseState.OPEN, 10).cases) == 2
    assert outcomes(collect(office.pool, collection(office.pins))) == (5, 0, 0)


def test_collectors_side_by_side_open_each_case_once(office: Office) -> None:
    record(office.pool, [decision(office.pins, number, "review") for number in range(60)])
    start = threading.Barrier(3)

    def run(_: int) -> CollectReport:
        start.wait()
        return collect(office.pool, collection(office.pins))

    with ThreadPoolExecutor(3) as threads:
        reports = list(threads.map(run, range(3)))
    assert sum(report.triggers for report in reports) == 60
    assert sum(report.conflicts for report in reports) == 0
    assert len(office.desk.cases(CaseState.OPEN, 100).cases) == 60


def test_a_record_that_cannot_be_read_is_told_and_stops_nothing(office: Office) -> None:
    record(office.pool, [decision(office.pins, 1, "review")])
    with office.pool.connection() as connection:
        connection.execute(
            "INSERT INTO ofp.decision_record (decision_id, pins_digest, stream_name, partition_id, record_offset, event_id,"
            """ snapshot_hash, content) VALUES (%s, %s, 's', '0', 1, 'e', 'h', '{"decided_at_utc":"2026-01-01T00:00:00Z","""
            """"outcome":"review"}')""",
            ("f" * 64, pins_digest(office.pins)),
        )
    report = collect(office.pool, collection(office.pins))
    assert (report.triggers, report.unreadable) == (1, (f"decision {'f' * 64}",))
    assert collect(office.pool, collection(office.pins)).unreadable == report.unreadable  # until somebody looks


def test_who_goes_on_collecting_looks_at_what_was_decided_lately_and_at_all_of_it_in_time(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = parse_time("2026-02-01T12:00:00Z")
    own = replace(collection(office.pins), now=lambda: now)
    seconds = [0.0]
    collector = Collector(office.pool, own, lambda: seconds[0])

    def collected(*records: DecisionRecord) -> int:
        record(office.pool, list(records))
        return collector.collect().triggers

    def decided(number: int, at_utc: str) -> DecisionRecord:
        return decision(office.pins, number, "review", decided_at_utc=at_utc)

    assert collected(decided(0, "2020-01-01T00:00:00Z")) == 1  # the first looks at all
    seconds[0] = WHOLE_LOOK_SECONDS - 1
    assert collected(decided(1, "2020-01-01T00:00:00Z"), decided(2, "2026-02-01T11:59:30Z")) == 1
    assert collected(decided(3, "2026-02-01T12:00:30Z")) == 1  # the clock of who decides is ahead
    seconds[0] += 1
    assert collected() == 1
    assert collected(decided(4, "2020-01-01T00:00:00Z")) == 0
    with monkeypatch.context() as patch:
        patch.setattr(triggering, "append_entries", _go_away)
        with pytest.raises(psycopg.OperationalError):
            collected(decided(5, "2026-02-01T11:59:30Z"))
    assert collected() == 2  # behind an outage it looks at all


def _go_away(*_: object) -> None:
    raise psycopg.OperationalError("the server went away")


def test_ids_with_two_payloads_open_cases_once(pool: Pool) -> None:
    plane = SmallPlane(pool, "cases-anomalies")
    events = [payment("again", 0), payment("again", SECOND, amount=7), payment("once", SECOND)]
    plane.append(events, admitted_at=LOG_START + 10 * SECOND)
    plane.drain()
    anomalies = Collection(plane.pins, lambda event_type: event_type, lambda: START)
    assert outcomes(collect(pool, anomalies)) == (1, 0, 0)
    assert outcomes(collect(pool, anomalies)) == (0, 0, 0)
    with pool.connection() as connection:
        name = cases_named(connection, plane.pins, "again")
        timeline = read_timelines(connection, plane.pins, name)[0]
        assert cases_named(connection, plane.pins, "once") == []
    content = timeline.entries[0].content
    assert isinstance(content, Triggered)
    assert isinstance(content.evidence, AnomalyEvidence)
    assert content.trigger is CaseTrigger.ANOMALY
    assert content.evidence.position != content.evidence.first_position
    assert timeline.event.event_class == "payment"
