"""The whole way of an event (pack, router, kernel, finalisation) against the oracle's fold, to the byte."""

from __future__ import annotations

from functools import cache

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.finalise import group_values, wire
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.windows import NEVER, Evaluation, evaluate
from ofp_platform.registry import on_demand
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.registry.pack import load_pack, pack_content
from ofp_platform.registry.routing import Router
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.many_times import evaluate_many
from ofp_platform_tests.oracle.strategies import ACCOUNTS, MERCHANTS, PINS, PLAIN_PACK, SKEW, World, times, worlds

REQUEST = {"amount": 12345}


@cache
def registry() -> CompiledRegistry:
    return compile_pack(load_pack(PLAIN_PACK))


@cache
def arrays(key_type: str) -> LayoutArrays:
    return LayoutArrays.of(registry().layouts[key_type])


def matrices(known: fold.Known) -> dict[tuple[str, str], Int64Array]:
    """Per key the sorted event matrix, from the router."""
    events = list(known.events.items())
    routed = Router(registry()).route(
        event_types=[event.event_type for _, event in events],
        event_ids=[identity[1] for identity, _ in events],
        schema_versions=["1"] * len(events),
        ts=np.array([event.ts for _, event in events], np.int64),
        payload_hashes=[identity[2] for identity, _ in events],
        payloads=[orjson.dumps(event.payload) for _, event in events],
        amends=[None] * len(events),
    )
    assert not routed.failures
    found = {}
    for key_type, touched in routed.touched.items():
        assert registry().layouts[key_type].ties == (key_type == "account")
        for key_id in set(touched.key_ids):
            own = touched.matrix[:, [name == key_id for name in touched.key_ids]]
            ties = own[2:4].view(np.uint64)
            order = np.lexsort((ties[1], ties[0], own[0]) if key_type == "account" else (own[0],))
            found[key_type, key_id] = np.ascontiguousarray(own[:, order])
    return found


def features(group: CompiledGroup, found: Evaluation, time: int) -> dict[str, int | str | None]:
    query = query_of(arrays(group.key_type), [group])
    values = group_values(group, query, found, time)
    assert list(values) == sorted(values)
    values |= {one.name: on_demand.evaluate(one, values, REQUEST) for one in group.on_demand}
    return {name: wire(value) for name, value in values.items()}


@given(worlds(), st.lists(times(45), min_size=1, max_size=6))
def test_values_and_last_updates_are_the_oracle_s(world: World, moments: list[int]) -> None:
    content = pack_content(registry().pack)
    known = fold.known_events(world.records, world.basis, PINS, content, SKEW)
    state = matrices(known)
    moments.sort()
    for key_type, key_id in [*(("account", one) for one in ACCOUNTS), *(("merchant", one) for one in MERCHANTS)]:
        layout = registry().layouts[key_type]
        matrix = state.get((key_type, key_id), np.empty((layout.column_count, 0), np.int64))
        events = [
            event
            for event in known.events.values()
            if event.payload.get(f"{key_type}_id") == key_id and key_type in content["events"][event.event_type]["keys"]
        ]
        for group in registry().groups.values():
            if group.key_type != key_type:
                continue
            wanted = next(one for one in content["groups"] if (one["name"], one["version"]) == (group.name, group.version))
            query = query_of(arrays(key_type), [group])
            slid = evaluate_many(query, matrix, np.array(moments, np.int64))
            for index, time in enumerate(moments):
                found = evaluate(query, matrix, time)
                assert found.rows == slid.at(index).rows
                assert np.array_equal(found.touches, slid.touches[index])
                last = fold.last_update(wanted, events, time)
                assert found.touches.tolist() == [NEVER if last is None else last]
                assert features(group, found, time) == fold.group_features(wanted, events, time, REQUEST)
