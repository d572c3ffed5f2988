"""Decisions and labels over HTTP against a real plane: features asked for, a decision sent, parity finds that it matches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from ofp_platform.api.app import Application
from ofp_platform.api.bounded_work import WorkBounds
from ofp_platform.api.record_requests import RecordRequests
from ofp_platform.cli.demo.replay import project_available
from ofp_platform.client import AsyncOfpClient, ReceivedFeatures
from ofp_platform.decisions.decision_point import CARD_PAYMENTS
from ofp_platform.decisions.event_reader import EventReader, ReadEvent
from ofp_platform.decisions.recorder import record_of
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.offline.parity.forensic_rebuild import RunPolicies
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.run_parity import RunToProve, prove_run
from ofp_platform.online.plane import Plane
from ofp_platform.online.service.online_service import OnlineService
from ofp_platform.storage.embedded import as_role
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.roles import Job, default_role
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.api.fake_port import FakeBuilds, FakeOperators, FakeOverviews, FakePosture
from ofp_platform_tests.api.keys import KEY, authentication, principal
from ofp_platform_tests.oracle.simulated_log import append, profile

DECIDED_AT = 1_800_000_000_000_000
ELSEWHERE_KEY, ELSEWHERE = principal("elsewhere", ["decisions:write", "snapshots:read", "events:write"], [{"run_id": "another"}])


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    with Plane.open(profile(tmp_path, allowed_lateness="30d"), dsn) as opened:
        append(opened.log)
        project_available(opened.projector(opened.ensure_live()), 1_000, lambda records: None)
        yield opened


@asynccontextmanager
async def client_of(plane: Plane, dsn: str) -> AsyncIterator[tuple[AsyncOfpClient, httpx.AsyncClient]]:
    """Both as the principal who may do everything, by the database roles of the service."""
    pins = plane.profile.context_pins
    service = OnlineService(plane.profile, dsn, connections=2)
    records = RecordRequests(as_role(dsn, default_role(Job.SERVING)), pins, service.snapshot, service.pack)
    caller = authentication(ELSEWHERE, pins=pins)
    application = Application(
        service, FakeBuilds(), FakeOperators(), records, FakeOverviews(), posture=FakePosture(), authentication=caller
    )
    await service.open()
    try:
        transport = httpx.ASGITransport(application)
        async with (
            AsyncOfpClient("http://localhost", token=KEY, transport=transport, timeout_seconds=60) as ofp,
            httpx.AsyncClient(base_url="http://localhost", transport=transport) as http,
        ):
            yield ofp, http
    finally:
        await records.close()
        await service.close()


def payments(plane: Plane, number: int) -> list[ReadEvent]:
    """The last ones, each once."""
    reader = EventReader(plane.log, plane.profile.context_pins, "card_payment", plane.profile.clock_skew_us)
    events = [event for page in reader.pages() for event in page.events]
    distinct = {event.event_id: event for event in reversed(events) if type(event.payload.get("amount_minor")) is int}
    return list(distinct.values())[:number]


async def decide(ofp: AsyncOfpClient, plane: Plane, event: ReadEvent, number: int = 0) -> DecisionRecord:
    """A decision on an event, `number` seconds after the first, by features asked for over HTTP."""
    request = CARD_PAYMENTS.request(event, plane.profile.context_pins)
    assert request is not None
    answer: ReceivedFeatures = await ofp.ask(request)
    return record_of(answer, event, "card_payment", CARD_PAYMENTS.rule, DECIDED_AT + number * 500_000)


def changed(record: DecisionRecord, **changes: Any) -> DecisionRecord:
    return DecisionRecord.model_validate_json(record.model_copy(update=changes).model_dump_json())


async def refusal(sent: Any) -> ContractError:
    with pytest.raises(ContractError) as caught:
        await sent
    return caught.value


async def test_a_decision_of_another_is_an_anchor_like_our_own(plane: Plane, dsn: str, tmp_path: Path) -> None:
    async with client_of(plane, dsn) as (ofp, _):
        records = [await decide(ofp, plane, event, number) for number, event in enumerate(payments(plane, 5))]
        receipts = [await ofp.record_decision(record) for record in records]
        assert {receipt.submitted_by for receipt in receipts} == {"everything"}
        assert [await ofp.record_decision(record) for record in records] == receipts
        assert [await ofp.decision(record.decision_id) for record in records] == records
        conflict = await refusal(ofp.record_decision(changed(records[0], score=records[0].score + 1)))  # type: ignore[operator]
        assert (conflict.reason, await ofp.decision(records[0].decision_id)) == (Reason.DECISION_CONFLICT, records[0])
        unknown = await refusal(ofp.decision("0" * 64))
        assert unknown.reason is Reason.UNKNOWN_DECISION

        # the list: the latest first, page by page; by entity, event and time
        listed, cursor = [], None
        while True:
            page = await ofp.decisions(limit=2, cursor=cursor)
            listed += page.decisions
            cursor = page.next_cursor
            if cursor is None:
                break
        assert listed == records[::-1]
        for record in records:
            assert (await ofp.decisions(event_id=record.event_id)).decisions == (record,)
            for key in record.feature_keys:
                about = tuple(one for one in listed if key in one.feature_keys)
                assert (await ofp.decisions(key=key)).decisions == about
        span = {"from_utc": format_time(DECIDED_AT + 500_000), "to_utc": format_time(DECIDED_AT + 1_500_000)}
        assert (await ofp.decisions(**span)).decisions == (records[2], records[1])  # type: ignore[arg-type]
        assert (await ofp.decisions(key=("account", "nobody-1"))).decisions == ()

        # what is already recorded is answered as before also by a service that has lost the snapshot
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DELETE FROM ofp.snapshot_index")
        assert await ofp.record_decision(records[0]) == receipts[0]

    objects = ObjectStore(plane.profile.object_store_url)
    build_context = BuildContext(plane.pool, plane.log, objects, tmp_path / "builds")
    run = RunToProve(plane.profile.context_pins, RunPolicies.of(plane.profile), plane.log.ends())
    outcomes = await asyncio.to_thread(prove_run, build_context, run)
    assert outcomes == {"MATCH": 5}


async def test_what_the_snapshot_does_not_say_is_refused_by_name(plane: Plane, dsn: str) -> None:
    first_event, second_event = payments(plane, 2)
    async with client_of(plane, dsn) as (ofp, http):
        record, other = [await decide(ofp, plane, event) for event in (first_event, second_event)]
        assert record.feature_keys != other.feature_keys
        basis = record.input_basis
        for field, changes in {
            "feature_keys": {"feature_keys": other.feature_keys},
            "feature_groups": {"feature_groups": other.feature_groups[:2]},
            "as_of_time_utc": {"as_of_time_utc": "2026-01-01T00:00:00Z"},
            "run_config_digest": {"run_config_digest": "0" * 64},
            "input_basis": {"input_basis": basis.model_copy(update={"partitions": basis.partitions[:1]})},
            "request_context": {"request_context": None},
            "feature_definition_set.digest": {
                "feature_definition_set": record.feature_definition_set.model_copy(update={"digest": "0" * 64})
            },
            "event_position": {"event_position": record.event_position.model_copy(update={"offset": 10**9})},
        }.items():
            error = await refusal(ofp.record_decision(changed(record, **changes)))
            assert (error.reason, error.message.partition(":")[0]) == (Reason.DECISION_MISMATCH, field)
        error = await refusal(ofp.record_decision(changed(record, feature_snapshot_hash="0" * 64)))
        assert error.reason is Reason.UNKNOWN_SNAPSHOT
        pins = record.context_pins.model_copy(update={"run_id": "another"})
        of_another = changed(record, context_pins=pins, decision_id=decision_id(pins, record.event_type, record.event_id))
        assert (await refusal(ofp.record_decision(of_another))).reason is Reason.UNKNOWN_RUN

        # somebody of another run: as if there were none
        await ofp.record_decision(record)
        headers = {"authorization": f"Bearer {ELSEWHERE_KEY}", "content-type": "application/json"}
        for method, path, body, reason in [
            ("POST", "/v0/decisions", record.model_dump_json(exclude_none=True), "UNKNOWN_RUN"),
            ("POST", "/v0/decisions", of_another.model_dump_json(exclude_none=True), "UNKNOWN_RUN"),
            ("GET", f"/v0/decisions/{record.decision_id}", None, "UNKNOWN_DECISION"),
            ("GET", "/v0/decisions", None, "UNKNOWN_RUN"),
        ]:
            answer = await http.request(method, path, content=body, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (404, reason)
        assert (await ofp.decisions()).decisions == (record,)

        # a body that is no decision names the field, and a card number in it is no text of an answer
        headers["authorization"] = f"Bearer {KEY}"
        wire = record.wire()
        for body, reason in [
            ({**wire, "outcome": "perhaps"}, "INVALID_FIELD"),
            ({name: value for name, value in wire.items() if name != "rule"}, "MISSING_FIELD"),
            ({**wire, "request_context": {"note": "4111111111111111"}}, "RAW_IDENTIFIER"),
            ({**wire, "decision_id": "0" * 64}, "INVALID_FIELD"),
            ({**wire, "4111111111111111": 1}, "INVALID_FIELD"),
        ]:
            answer = await http.post("/v0/decisions", json=body, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (400, reason)
            assert "4111" not in answer.json()["message"]
        for text in (b"{", b'{"kind":1,"kind":2}', b"[]", b"\xff"):
            assert (await http.post("/v0/decisions", content=text, headers=headers)).status_code == 400
        for query in (
            "limit=0",
            "limit=201",
            "limit=x",
            "cursor=x",
            "key_type=account",
            "sql=1",
            "limit=1&limit=2",
            "event_id=a%00b",
            "from_utc=yesterday",
            "key_type=account&key_id=4111111111111111",
            "key_type=planet&key_id=a",
        ):
            answer = await http.get(f"/v0/decisions?{query}", headers=headers)
            assert answer.status_code == 400, query


async def test_labels_are_appended_once_and_never_before_they_came(plane: Plane, dsn: str) -> None:
    (event,) = payments(plane, 1)
    pins = plane.profile.context_pins
    label = LabelAssertion(
        event_class="card_payment",
        event_id=event.event_id,
        label_type="fraud",
        value=1,
        effective_time_utc=format_time(event.ts),
        observed_time_utc=format_time(event.ts),
        source="chargebacks",
    )
    async with client_of(plane, dsn) as (ofp, _):
        receipt = await ofp.append_labels(pins, [label, label])
        assert (receipt.new_count, receipt.known_count) == (1, 1)
        receipt = await ofp.append_labels(pins, [label])
        assert (receipt.new_count, receipt.known_count) == (0, 1)
        foreign = label.model_copy(update={"event_class": "planet"})
        error = await refusal(ofp.append_labels(pins, [label.model_copy(update={"value": 0}), foreign]))
        assert (error.reason, error.message.partition(":")[0]) == (Reason.INVALID_FIELD, "assertions.1.event_class")
        error = await refusal(ofp.append_labels(pins.model_copy(update={"run_id": "another"}), [label]))
        assert error.reason is Reason.UNKNOWN_RUN
    (row,) = LabelStore(plane.pool, pins).assertions("fraud").to_pylist()
    assert row["event_id"] == event.event_id
    assert row["observed_time"].year >= 2026
    with plane.pool.connection() as connection:
        stated = connection.execute("SELECT submitted_by, observed_time > stated_time FROM ofp.label_assertion").fetchall()
    assert stated == [("everything", True)]


async def test_a_damaged_decision_is_told_and_an_outage_passes(plane: Plane, dsn: str) -> None:
    (event,) = payments(plane, 1)
    async with client_of(plane, dsn) as (ofp, _):
        record = await decide(ofp, plane, event)
        await ofp.record_decision(record)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("ALTER TABLE ofp.decision_record DISABLE TRIGGER append_only")
            connection.execute("UPDATE ofp.decision_record SET content = replace(content, 'score', 'scare')")
        for ask in (ofp.decision(record.decision_id), ofp.decisions()):
            assert (await refusal(ask)).reason is Reason.DECISION_CORRUPT

    async def nothing(snapshot_hash: str, may_read: Any) -> bytes:
        return b""

    nowhere = "host=127.0.0.1 port=1 dbname=nothing"
    records = RecordRequests(nowhere, plane.profile.context_pins, nothing, lambda: None, WorkBounds(0.5))  # type: ignore[arg-type, return-value]
    assert (await refusal(records.decision("0" * 64, lambda pins: True))).reason is Reason.STORE_DOWN
    await records.close()
