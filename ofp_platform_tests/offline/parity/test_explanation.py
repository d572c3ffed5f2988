"""The events behind a value are those that the oracle counts for it, each where it stands first."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.offline.parity.explanation import ExplainedWindow, FeatureName, NotExplained, explain, windows_of
from ofp_platform.registry.pack import pack_content
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.replayed import record_batches, world_registry
from ofp_platform_tests.oracle.strategies import PINS, SECOND, SKEW, START, World, times, worlds

KEYS = {"account": "a-1", "merchant": "m-1", "card": "c-1", "device": "d-1", "customer": "u-1"}


def explained(world: World, group: dict[str, Any], feature: str, key_id: str, as_of: int) -> list[ExplainedWindow]:
    name = FeatureName(group["key_type"], key_id, group["name"], group["version"], feature, as_of)
    return explain(record_batches(world.records), world_registry(), ContextPins(**PINS), SKEW, name)


def sides(feature: dict[str, Any]) -> list[dict[str, Any]]:
    return [feature["numerator"], feature["denominator"]] if feature["aggregation"] == "ratio" else [feature]


@given(world=worlds(), as_of=times(), data=st.data())
def test_the_events_are_those_of_the_oracle(world: World, as_of: int, data: st.DataObject) -> None:
    content = pack_content(world_registry().pack)
    known = fold.known_events(world.records, world.basis, PINS, content, SKEW)
    group = data.draw(st.sampled_from(content["groups"]))
    feature = data.draw(st.sampled_from(group["features"]))
    key_id = KEYS[group["key_type"]]
    touching = {
        identity: event
        for identity, event in fold.in_force(known, content, as_of).items()
        if (group["name"], group["version"]) in event.groups and fold._touches(event, content, group["key_type"], key_id)
    }
    windows = explained(world, group, feature["name"], key_id, as_of)
    assert [window.role for window in windows] == (["value"] if len(windows) == 1 else ["numerator", "denominator"])
    for window, selection in zip(windows, sides(feature), strict=True):
        items = sorted(fold._items(selection, list(touching.values()), as_of), key=lambda item: (item.ts, item.tie))
        assert [(event.ts, event.value) for event in window.events] == [(item.ts, item.value) for item in items]
        counted = {(item.ts, item.tie) for item in items}
        in_order = sorted(touching.items(), key=lambda entry: (entry[1].ts, entry[1].tie))
        ids = [identity[1] for identity, event in in_order if (event.ts, event.tie) in counted]
        assert [event.event_id for event in window.events] == ids
        records = {(record.partition_id, record.offset): record for record in world.records}
        for event in window.events:
            record = records[event.partition_id, event.offset]  # type: ignore[index]
            same = [other for other in world.records if other.envelope == record.envelope]
            usable = [other for other in same if fold.micros(other.envelope["ts_utc"]) <= other.admitted_at + SKEW]
            assert event.copies == len(usable) - 1
            assert record.envelope["event_id"] == event.event_id


def test_what_is_not_there_is_named_with_what_is() -> None:
    registry = world_registry()
    group = registry.pack.groups[0]
    name = FeatureName(group.key_type.value, "k", group.name, group.version, "nothing", START + 9 * SECOND)
    with pytest.raises(NotExplained, match=rf"has no feature nothing; it has {group.features[0].name}"):
        windows_of(registry, name)
    with pytest.raises(NotExplained, match="no group other v1"):
        windows_of(registry, FeatureName("account", "k", "other", "v1", "x", START))
    computed = next((group, group.on_demand[0]) for group in registry.pack.groups if group.on_demand)
    on_demand = FeatureName(computed[0].key_type.value, "k", computed[0].name, computed[0].version, computed[1].name, START)
    with pytest.raises(NotExplained, match="computed on demand"):
        windows_of(registry, on_demand)
