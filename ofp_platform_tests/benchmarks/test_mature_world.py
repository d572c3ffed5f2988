"""The mature world is what its rows say: full windows, five keys an event, two hot keys, ordinary ones by Zipf's law."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import orjson

from benchmarks.mature_world import GROUPS, HISTORY_US, KEY_TYPES, MatureWorld, Population, questions
from benchmarks.world import START

WORLD = MatureWorld(Population(2_000), 60, seed=3)
LARGE = MatureWorld(Population(50_000), 60, seed=3)


def test_the_windows_of_every_account_card_and_customer_are_full_and_the_hot_keys_have_their_shares() -> None:
    columns = list(WORLD.history())
    payloads = [orjson.loads(payload) for part in columns for payload in part.payloads if isinstance(payload, bytes)]
    ts = np.concatenate([part.ts for part in columns])
    assert len(payloads) == WORLD.history_records == 400 * 60
    assert ts.min() == START
    assert ts.max() < START + HISTORY_US
    assert len(np.unique(ts)) == len(ts)
    counts = {name: Counter(payload[f"{name}_id"] for payload in payloads) for name in KEY_TYPES}
    for name in ("account", "card", "customer"):
        assert len(counts[name]) == 400
        assert set(counts[name].values()) == {60}
    for name, share in (("device", 0.01), ("merchant", 0.1)):
        hot = counts[name].pop(f"{name}-00000400")
        assert abs(hot / len(payloads) - share) < 0.005
        assert len(counts[name]) == 400
        assert min(counts[name].values()) > 30


def test_a_history_of_several_groups_has_no_two_events_of_one_time_or_name() -> None:
    groups = list(LARGE.history())
    assert len(groups) == 3
    ts = np.concatenate([part.ts for part in groups])
    assert len(np.unique(ts)) == len(ts) == LARGE.history_records
    assert len({event_id for part in groups for event_id in part.event_ids}) == len(ts)
    assert all(part.ts[0] < START + HISTORY_US // 1_000 and part.ts[-1] > START + HISTORY_US * 999 // 1_000 for part in groups)
    assert all(np.all(np.diff(part.ts) > 0) for part in groups)


def test_no_event_comes_twice_and_the_same_world_gives_the_same_events() -> None:
    live = [WORLD.live(first, np.arange(first, first + 500)) for first in (WORLD.history_records, WORLD.history_records + 500)]
    event_ids = [event_id for part in chain(WORLD.history(), live) for event_id in part.event_ids]
    assert len(set(event_ids)) == len(event_ids)
    again = MatureWorld(Population(2_000), 60, seed=3).live(WORLD.history_records, live[0].ts)
    assert list(again.payloads) == list(live[0].payloads)


def test_live_events_follow_zipf_beside_the_hot_keys() -> None:
    population = Population(50_000, exponent=1.0)
    members = population.live_members(np.random.default_rng(1), 100_000)
    assert abs(np.mean(members.merchant == population.hot) - 0.1) < 0.01
    assert abs(np.mean(members.device == population.hot) - 0.01) < 0.002
    counts = np.array(sorted(Counter(members.person.tolist()).values(), reverse=True))
    assert members.person.max() < population.size
    # the first is twice the second, and ten times the tenth
    assert 1.7 < counts[0] / counts[1] < 2.3
    assert 8 < counts[0] / counts[9] < 12
    ordinary = population.ordinary_members(np.random.default_rng(1), 1_000)
    assert max(ordinary.merchant.max(), ordinary.device.max()) < population.size


def test_a_question_names_the_five_keys_of_a_payment() -> None:
    members = WORLD.population.live_members(np.random.default_rng(1), 3)
    body = orjson.loads(questions(members, START)[0])
    assert [key["key_type"] for key in body["feature_keys"]] == list(KEY_TYPES)
    assert body["feature_keys"][4]["key_id"] == f"merchant-{members.merchant[0]:08d}"
    assert [group["group_name"] for group in body["feature_groups"]] == list(GROUPS)
