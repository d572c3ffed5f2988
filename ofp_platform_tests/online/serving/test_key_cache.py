"""The cache of key states, alone: whatever comes, it holds the state at its head and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ofp_platform.online.serving import key_cache
from ofp_platform.online.serving.key_cache import Head, KeyCache
from ofp_platform.online.state import touched_keys
from ofp_platform.online.state.touched_keys import (
    BUCKETS,
    MOST_MARKS,
    TouchedKeys,
    key_bucket,
    key_buckets,
    key_mark,
    pack_marks,
    unpack_marks,
    without_gap,
)

KEYS = [("account", f"a-{number}") for number in range(4)] + [("merchant", f"a-{number}") for number in range(4)]
SOME = st.sets(st.sampled_from(KEYS))


@dataclass(frozen=True)
class State:
    """What a key is at a version: the last version that touched it."""

    touched_at: int
    nbytes: int


def head(version: int) -> Head:
    return Head(version, f"basis {version}", version)


def told_keys(keys: Iterable[tuple[str, str]], most_marks: int) -> TouchedKeys:
    ids: dict[str, list[str]] = {}
    for key_type, key_id in keys:
        ids.setdefault(key_type, []).append(key_id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(touched_keys, "MOST_MARKS", most_marks)
        return TouchedKeys.of(ids)


class Following(RuleBasedStateMachine):
    """A store with its commits, and a cache that follows it: late, with gaps, and too small."""

    @initialize(capacity=st.sampled_from([0, 3_000, 1 << 20]))
    def begin(self, capacity: int) -> None:
        self.cache: KeyCache[State] = KeyCache(capacity)
        self.commits: dict[int, TouchedKeys] = {}
        self.history: list[dict[tuple[str, str], int]] = [dict.fromkeys(KEYS, 0)]

    @property
    def version(self) -> int:
        return len(self.history) - 1

    @rule(touched=SOME, told=st.sampled_from(["by marks", "by buckets", "not"]))
    def commit(self, touched: set[tuple[str, str]], told: str) -> None:
        self.history.append(self.history[-1] | dict.fromkeys(touched, self.version + 1))
        self.commits[self.version] = TouchedKeys() if told == "not" else told_keys(touched, 0 if told == "by buckets" else 100)

    @rule(behind=st.integers(0, 3))
    def follow(self, behind: int) -> None:
        """As a statement that began some commits ago saw it."""
        at = self.cache.head
        if at is not None:
            to = max(at.version, self.version - behind)
            self.cache.advance(head(to), [(v, m) for v, m in self.commits.items() if at.version < v <= to])

    @rule(version=st.integers(1, 100))
    def forget_a_commit(self, version: int) -> None:
        """The store keeps the last commits only."""
        self.commits.pop(version, None)

    @rule()
    def start(self) -> None:
        self.cache.start(head(self.version))

    @rule()
    def lose(self) -> None:
        self.cache.lose()
        assert self.cache.head is None
        assert len(self.cache) == self.cache.nbytes == 0

    @precondition(lambda self: self.version > 0)
    @rule(back=st.integers(1, 3))
    def restore(self, back: int) -> None:
        """The store was put back to an earlier version, and told so."""
        del self.history[max(1, len(self.history) - back) :]
        self.commits = {version: marks for version, marks in self.commits.items() if version <= self.version}
        if self.cache.head is not None and self.cache.head.version > self.version:
            self.cache.advance(head(self.version), [])

    @rule(key=st.sampled_from(KEYS), behind=st.integers(0, 2), size=st.sampled_from([0, 100, 5_000]))
    def read(self, key: tuple[str, str], behind: int, size: int) -> None:
        """What a statement read, now or some commits ago."""
        version = max(0, self.version - behind)
        self.cache.put(version, key, State(self.history[version][key], size))

    @invariant()
    def what_is_held_is_the_state_at_the_head(self) -> None:
        held = {key: state for key in KEYS if (state := self.cache.get(key)) is not None}
        assert len(held) == len(self.cache)
        assert self.cache.nbytes <= self.cache.capacity_bytes
        assert self.cache.nbytes == sum(state.nbytes + key_cache._ENTRY_BYTES for state in held.values())
        if held:
            assert self.cache.head is not None
            known = self.history[self.cache.head.version]
            assert {key: state.touched_at for key, state in held.items()} == {key: known[key] for key in held}


TestFollowing = Following.TestCase


def test_the_least_recently_used_goes_first() -> None:
    cache: KeyCache[State] = KeyCache(3 * (key_cache._ENTRY_BYTES + 100))
    cache.start(head(1))
    for key in KEYS[:3]:
        cache.put(1, key, State(0, 100))
    assert cache.get(KEYS[0]) is not None
    cache.put(1, KEYS[3], State(0, 100))
    assert [cache.get(key) is not None for key in KEYS[:4]] == [True, False, True, True]


def test_keys_of_one_mark_replace_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_cache, "key_mark", lambda *key: 7)
    cache: KeyCache[State] = KeyCache(1 << 20)
    cache.start(head(1))
    for key in KEYS[:2]:
        cache.put(1, key, State(0, 100))
    assert [cache.get(key) is not None for key in KEYS[:2]] == [False, True]
    assert len(cache) == 1


def test_marks() -> None:
    assert unpack_marks(pack_marks(KEYS)) == [key_mark(*key) for key in KEYS]
    assert len({key_mark(*key) for key in KEYS}) == len(KEYS)


def test_gaps() -> None:
    assert without_gap([], 3, 3)
    assert without_gap([4, 5], 3, 5)
    assert not without_gap([], 3, 4)
    assert not without_gap([5], 3, 5)
    assert not without_gap([4], 3, 5)
    assert not without_gap([4, 5], 3, 4)
    assert not without_gap([], 3, 2)


def test_a_commit_of_many_keys_costs_those_that_it_touched_and_few_others() -> None:
    cache: KeyCache[State] = KeyCache(1 << 30)
    cache.start(head(1))
    held = [("account", f"held-{number}") for number in range(2_000)]
    for key in held:
        cache.put(1, key, State(0, 1))
    touched = [f"other-{number}" for number in range(MOST_MARKS)] + [key_id for _, key_id in held[:500]]
    commit = TouchedKeys.of({"account": touched, "merchant": ["held-1999"]})
    assert commit.marks is None
    assert commit.buckets is not None
    assert len(commit.buckets) == BUCKETS // 8 == 8 * MOST_MARKS
    cache.advance(head(2), [(2, commit)])
    kept = [key for key in held if cache.get(key) is not None]
    assert not set(kept) & set(held[:500])
    assert len(kept) >= 1_400  # of 1,500: two in a hundred share a bucket with a touched key
    assert cache.epoch == 1
    cache.advance(head(3), [(3, TouchedKeys())])
    assert len(cache) == 0


def test_buckets_of_many_keys_are_those_of_each() -> None:
    ids = ["a", "", "Zoë", "a" * 200, *(f"a-{number}" for number in range(500))]
    assert key_buckets("account", ids).tolist() == [key_bucket("account", key_id) for key_id in ids]
    assert len(set(key_buckets("account", ids))) >= 500
    assert key_bucket("account", "a") != key_bucket("merchant", "a")
    assert len(TouchedKeys.of({"account": ids[:100]}).marks or b"") == 800
