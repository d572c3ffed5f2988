"""The simulation of epochs: what can be computed by hand, and what must hold for any world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks import epochs
from benchmarks.epochs import EpochWorld, Pauses, simulate

PAUSES = Pauses("some", 0.01, 200.0)


def always(monkeypatch: pytest.MonkeyPatch, durations: Callable[[tuple[int, int]], object]) -> None:
    monkeypatch.setattr(epochs, "_duration", lambda _world, _rng, shape: np.broadcast_to(durations(shape), shape))


def test_an_answer_waits_for_the_slowest_shard_and_for_the_end_of_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch, lambda shape: np.array([30.0] + [10.0] * (shape[1] - 1)))
    alone, three = simulate(EpochWorld(1)), simulate(EpochWorld(3))
    assert three.p50 == pytest.approx(30 + 25, abs=1)
    assert three.p99 == pytest.approx(30 + 49.5, abs=0.5)
    assert alone.p99 == alone.own_shard_p99
    assert three.own_shard_p99 < three.p99


def test_of_two_copies_the_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    always(monkeypatch, lambda shape: np.array([[40.0], [10.0]])[: shape[0]])
    assert simulate(EpochWorld(4, copies=2)).p50 == pytest.approx(10 + 25, abs=1)
    assert simulate(EpochWorld(4)).p50 == pytest.approx(40 + 25, abs=1)


@pytest.mark.parametrize("barrier", [False, True])
def test_a_shard_that_takes_longer_than_an_epoch_falls_behind(monkeypatch: pytest.MonkeyPatch, barrier: bool) -> None:
    always(monkeypatch, lambda _: 60.0)
    freshness = simulate(EpochWorld(2, barrier=barrier), epochs=1_000)
    assert freshness.falls_behind
    assert freshness.p50 == pytest.approx(60 + 10 * 499.5 + 25, abs=30)  # ten more with each epoch
    always(monkeypatch, lambda _: 49.0)
    assert not simulate(EpochWorld(2, barrier=barrier), epochs=1_000).falls_behind


def test_a_backlog_is_worked_off(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = iter([500.0] + [10.0] * 999)
    always(monkeypatch, lambda _: next(durations))
    freshness = simulate(EpochWorld(1), epochs=1_000)
    assert freshness.p50 == pytest.approx(10 + 25, abs=2)
    assert not freshness.falls_behind


def test_a_seed_is_a_world() -> None:
    world = EpochWorld(8, pauses=PAUSES)
    assert simulate(world, epochs=500) == simulate(world, epochs=500)
    assert simulate(world, epochs=500) != simulate(world, epochs=500, seed=2)


def test_more_shards_and_longer_commits_are_never_fresher() -> None:
    by_shards = [simulate(EpochWorld(shards, pauses=PAUSES), epochs=4_000).p99 for shards in (1, 8, 64)]
    assert by_shards == sorted(by_shards)
    by_commit = [simulate(EpochWorld(16, commit=commit), epochs=4_000).p50 for commit in (2.0, 10.0, 25.0)]
    assert by_commit == sorted(by_commit)
    assert simulate(EpochWorld(64, pauses=PAUSES, copies=2), epochs=4_000).p99 < by_shards[-1]
