"""Transfers with a ring of mules: the same every time, ordinary one by one, and linked late."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.registry.routing import Router
from ofp_platform.simulation.rings import DAY, DEVICE, PHONE, RingSimulation, simulate_ring
from ofp_platform.vocabulary.identity import ContextPins, KeyType
from ofp_platform.vocabulary.identity_link import IdentityLinkPayload, minted_id
from ofp_platform.vocabulary.times import parse_time

PINS = ContextPins(scenario_id="rings", run_id="run-1", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)
SMALL = RingSimulation(PINS, accounts=40, families=4, ring=5)


def payloads(simulation: RingSimulation) -> list[dict[str, Any]]:
    return [orjson.loads(payload) for payload in simulate_ring(simulation).deliveries.payloads]


def test_the_same_settings_give_the_same_records() -> None:
    one, other = simulate_ring(SMALL), simulate_ring(SMALL)
    assert one.deliveries.payloads == other.deliveries.payloads
    assert one.deliveries.admitted_at.tolist() == sorted(other.deliveries.admitted_at.tolist())
    assert one.links == other.links
    assert payloads(replace(SMALL, seed=1)) != payloads(SMALL)


def test_no_account_of_the_ring_stands_out_and_its_links_come_late() -> None:
    stream = simulate_ring(SMALL)
    assert stream.ring == stream.accounts[-5:]
    day = (stream.deliveries.ts - SMALL.start) // DAY
    counts: Counter[tuple[str, int]] = Counter()
    for payload, number in zip(payloads(SMALL), day.tolist(), strict=True):
        counts[payload["account_id"], number] += 1
    ordinary = max(count for (account, _), count in counts.items() if account not in stream.ring)
    assert max(count for (account, _), count in counts.items() if account in stream.ring) <= ordinary
    links = {link.envelope["payload"]["member"]: link for link in stream.links}
    assert set(links) == {*stream.accounts[:8], *stream.ring}
    assert {links[account].admitted_at for account in stream.accounts[:8]} == {SMALL.start}
    assert {links[account].admitted_at for account in stream.ring} == {SMALL.start + 12 * DAY}
    for link in stream.links:
        payload = IdentityLinkPayload.model_validate(link.envelope["payload"])
        assert parse_time(payload.effective_time_utc) == SMALL.start
    canonicals = [links[account].envelope["payload"]["canonical"] for account in stream.accounts[:8]]
    assert [canonicals.count(one) for one in canonicals] == [2] * 8
    assert len({links[account].envelope["payload"]["canonical"] for account in stream.ring}) == 1


def test_the_shipped_pack_reads_every_transfer() -> None:
    deliveries = simulate_ring(SMALL).deliveries
    count = len(deliveries)
    batch = Router(compile_pack(shipped_pack("mule_rings"))).route(
        deliveries.event_types,
        deliveries.event_ids,
        [deliveries.schema_version] * count,
        deliveries.ts,
        [bytes(32)] * count,
        deliveries.payloads,
        [None] * count,
    )
    assert batch.failures == batch.group_failures == []
    assert np.array_equal(batch.touched["account"].record_index, np.arange(count))
    first = orjson.loads(deliveries.payloads[0])["observed_identifiers"]
    token = next(each["id_token"] for each in first if each["id_type"] == DEVICE)
    assert batch.touched["device"].key_ids[0] == minted_id(KeyType.DEVICE, DEVICE, token)
    assert PHONE not in {each["id_type"] for each in first}


def test_amendments_name_the_transfers_that_they_amend() -> None:
    stream = simulate_ring(SMALL)
    payload_of = dict(zip(stream.deliveries.event_ids, map(orjson.loads, stream.deliveries.payloads), strict=True))
    ts_of = dict(zip(stream.deliveries.event_ids, stream.deliveries.ts.tolist(), strict=True))
    assert len(stream.amendments) == SMALL.amended
    for place, amendment in enumerate(stream.amendments):
        envelope = amendment.envelope
        amends, is_void = envelope["amends"], place % 2 == 0
        before = payload_of[amends["event_id"]]
        assert (amends["kind"], envelope["event_type"]) == (("void", "transfer_reversed") if is_void else ("replace", "transfer"))
        assert envelope["payload"] == {**before, "amount_minor": before["amount_minor"] // (1 if is_void else 2)}
        assert parse_time(amends["ts_utc"]) == ts_of[amends["event_id"]] < parse_time(envelope["ts_utc"]) < amendment.admitted_at


@pytest.mark.parametrize("changes", [{"ring": 1}, {"accounts": 12}, {"quiet_days": 14}, {"linked_after_days": 15}])
def test_settings_that_make_no_ring_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"a ring has two accounts|the ring begins"):
        replace(SMALL, **changes)
