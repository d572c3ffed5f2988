"""Decisions end to end: a real server on a small plane, the log read as a decision service reads it, records as anchors."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from ofp_platform.cli.demo.replay import project_available
from ofp_platform.client import AsyncOfpClient, OfpClient, RetryPolicy, ServiceUnreachable
from ofp_platform.decisions.decision_point import CARD_PAYMENTS
from ofp_platform.decisions.loop import DecisionService, Tally
from ofp_platform.decisions.recorder import DecisionRecorder
from ofp_platform.log.archive_store import Archive
from ofp_platform.offline.parity.forensic_rebuild import RunPolicies, rebuild_recorded
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.storage.decision_records import decision_ids_in, read_decisions
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import order
from ofp_platform_tests.api.keys import KEY
from ofp_platform_tests.decisions.conftest import DECIDED_AT, Served
from ofp_platform_tests.oracle.simulated_log import append, deliveries


async def test_every_payment_is_decided_on_once(served: Served) -> None:
    events = served.events()
    distinct = {event.event_id for event in events}
    assert len(events) > len(distinct) > 390
    async with served.service() as service:
        tally, basis = await service.run(served.reader())
        assert tally.events == len(events)
        assert tally.refused == {"REQUEST_CONTEXT_INVALID": 1}  # the payment with a text for an amount
        assert tally.recorded + tally.known + tally.unusable + 1 == len(events)
        records = served.recorded()
        assert len(records) == tally.recorded == tally.outcomes.total()
        assert basis == served.plane.log.ends()
        # from the end: nothing is left; from the start, by a service of another hour: everything is known
        assert (await service.run(served.reader(), basis))[0] == Tally()
    async with served.service(start=DECIDED_AT * 2) as again:
        second, _ = await again.run(served.reader())
    assert (second.recorded, second.known) == (0, tally.recorded + tally.known)
    assert served.recorded() == records

    by_event = {record.event_id: record for record in records.values()}
    first = {event.event_id: event for event in reversed(events)}
    assert len({record.outcome for record in records.values()}) > 1
    for event_id, record in by_event.items():
        assert record.event_position == first[event_id].position
        assert record.input_basis.contains(record.event_position)


async def test_a_recorded_decision_can_be_rebuilt_from_the_log(served: Served, tmp_path: Path) -> None:
    events = served.events()[-30:]
    async with served.service() as service:
        tally = await service.decide(events)
    assert tally.recorded >= 25
    registry = served.plane.registry_of(served.plane.ensure_live())
    held = StreamRecords(served.plane.log, Archive(ObjectStore(str(tmp_path / "no-archive")), served.plane.log.stream_name))
    with OfpClient(served.address, token=KEY) as client:
        for number, record in enumerate(list(served.recorded().values())[:5]):
            hashed = client.get_snapshot(record.feature_snapshot_hash).hashed
            assert hashed["feature_groups"] == [group.model_dump() for group in record.feature_groups]
            assert hashed["feature_keys"] == [key.model_dump(mode="json") for key in record.feature_keys]
            assert hashed["request_context"] == record.request_context
            assert hashed["input_basis"] == record.input_basis.model_dump(mode="json")
            assert hashed["registry_digest"] == record.feature_definition_set.digest
            assert hashed["run_config_digest"] == record.run_config_digest
            scratch, policies = tmp_path / f"replay-{number}", RunPolicies.of(served.profile)
            rebuilt = rebuild_recorded(held, registry, served.profile.context_pins, policies, hashed, scratch)
            assert rebuilt.hash == record.feature_snapshot_hash


async def test_two_services_at_once_decide_once(served: Served) -> None:
    events = served.events()
    async with served.service() as one, served.service(start=DECIDED_AT * 2) as other:
        tallies = await asyncio.gather(one.decide(events), other.decide(events[::-1]))
    assert sum(tally.recorded for tally in tallies) == len(served.recorded())
    assert [tally.events for tally in tallies] == [len(events)] * 2


async def test_a_limit_stops_in_front_of_a_page_that_is_not_decided_on_whole(served: Served) -> None:
    async with served.service() as service:
        tally, basis = await service.run(served.reader(), limit=100)
        assert tally.events == 100
        rest, end = await service.run(served.reader(), basis)
        assert end == served.plane.log.ends()
        assert tally.recorded + rest.recorded == len(served.recorded())


async def test_a_plane_that_is_behind_leaves_events_undecided(served: Served) -> None:
    part = deliveries().part(0, 5)
    append(served.plane.log, replace(part, event_ids=[f"new-{number}" for number in range(5)]))
    fresh = [event for event in served.events() if event.event_id.startswith("new-")]
    async with AsyncOfpClient(served.address, token=KEY, retries=RetryPolicy(attempts=1), timeout_seconds=20.0) as client:
        service = DecisionService(
            client, DecisionRecorder(served.plane.pool), CARD_PAYMENTS, served.profile.context_pins, lambda: DECIDED_AT
        )
        with pytest.raises(ContractError) as caught:
            await service.decide(fresh)
        assert caught.value.reason is Reason.BASIS_NOT_REACHED
        assert served.recorded() == {}
        project_available(served.plane.projector(served.plane.ensure_live()), 1_000, lambda records: None)
        assert (await service.decide(fresh)).recorded == len(fresh) > 0


async def test_what_cannot_be_asked_or_is_refused_for_good_is_counted(served: Served) -> None:
    event = served.events()[0]
    wrong = {**event.payload, "account_id": "has a blank"}
    events = [
        replace(event, event_id="without", payload={"account_id": "a"}),
        replace(event, event_id="wrong-key", payload=wrong),
        replace(event, event_id="no-context", payload={**event.payload, "amount_minor": None}),
        replace(event, event_id="context", payload={**event.payload, "amount_minor": "much"}),
        replace(event, event_id="old", ts=event.ts - 400 * 86_400_000_000),
    ]
    async with served.service() as service:
        tally = await service.decide(events)
    assert (tally.unusable, tally.recorded, tally.events) == (3, 0, 5)
    assert tally.refused == {"REQUEST_CONTEXT_INVALID": 1, "AS_OF_BEFORE_HORIZON": 1}


async def test_a_service_that_is_gone_decides_nothing(served: Served) -> None:
    async with AsyncOfpClient("http://127.0.0.1:9", retries=RetryPolicy(attempts=1)) as client:
        service = DecisionService(
            client, DecisionRecorder(served.plane.pool), CARD_PAYMENTS, served.profile.context_pins, lambda: DECIDED_AT
        )
        with pytest.raises(ServiceUnreachable):
            await service.decide(served.events()[:20])
    assert served.recorded() == {}


async def test_decisions_are_found_by_the_place_of_their_event(served: Served) -> None:
    async with served.service() as service:
        await service.run(served.reader())
    ends = served.plane.log.ends()
    whole = ReplayBasis.up_to(ends)
    spans = tuple(span.model_copy(update={"start": 20, "next": 90}) for span in whole.partitions)
    with served.plane.pool.connection() as connection:
        found = decision_ids_in(connection, served.profile.context_pins, whole.model_copy(update={"partitions": spans}))
        other = served.profile.context_pins.model_copy(update={"run_id": "other"})
        assert decision_ids_in(connection, other, whole) == []
        records = read_decisions(connection, found)
    expected = [name for name, record in served.recorded().items() if 20 <= order(record.event_position.offset) < 90]
    assert found == sorted(expected)
    assert sorted(records) == found
