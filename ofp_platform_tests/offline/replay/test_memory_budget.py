"""Memory as a setting: what follows from a budget, and what is refused."""

from __future__ import annotations

import pytest

from ofp_platform.offline.replay.key_shards import KEYS_HELD
from ofp_platform.offline.replay.memory_budget import (
    LEAST_SHARDS,
    MOST_SHARDS,
    FoldSizes,
    MemoryBudget,
    MemoryTooSmall,
    memory_bytes,
)
from ofp_platform_tests.oracle.replayed import world_registry

GIGA = 10**9


def test_without_a_budget_a_fold_has_the_least_shards() -> None:
    assert MemoryBudget(None, 64).fold_sizes(10**10, world_registry()) == FoldSizes(LEAST_SHARDS, KEYS_HELD)


def test_more_records_in_one_budget_make_more_shards_of_which_each_fits() -> None:
    budget = MemoryBudget(3 * GIGA, 2)
    shards = [budget.fold_sizes(10**digits, world_registry()).shards for digits in range(9)]
    assert shards == sorted(shards)
    assert shards[0] == LEAST_SHARDS < shards[-1] <= MOST_SHARDS
    assert {MOST_SHARDS % number for number in shards} == {0}  # so that parts of keys are never divided


def test_less_memory_or_more_workers_make_more_shards() -> None:
    few = MemoryBudget(8 * GIGA, 2).fold_sizes(10**8, world_registry()).shards
    assert MemoryBudget(2 * GIGA, 2).fold_sizes(10**8, world_registry()).shards > few
    assert MemoryBudget(8 * GIGA, 16).fold_sizes(10**8, world_registry()).shards > few


def test_less_memory_holds_fewer_keys() -> None:
    sizes = [MemoryBudget(giga * GIGA, 2).fold_sizes(1000, world_registry()) for giga in (2, 3, 64)]
    assert 0 < sizes[0].keys_held < sizes[1].keys_held <= sizes[2].keys_held == KEYS_HELD


def test_a_budget_that_does_not_hold_the_workers_is_refused_with_the_least_that_does() -> None:
    least = MemoryBudget(3 * GIGA, 2).least
    MemoryBudget(least, 2)
    with pytest.raises(
        MemoryTooSmall, match=r"1,159 MB is too small: a build with 2 workers needs at least 1,160 MB.*fewer workers"
    ):
        MemoryBudget(least - 1_000_000, 2)
    with pytest.raises(MemoryTooSmall, match=r"give it more$"):
        MemoryBudget(1, 1)


def test_records_that_fit_into_no_shard_are_refused_with_a_memory_that_holds_them() -> None:
    budget = MemoryBudget(2 * GIGA, 2)
    with pytest.raises(
        MemoryTooSmall, match=r"10,000,000,000 records: even one of 1024 parts.* give it [\d,]+ MB, or fewer"
    ) as refused:
        budget.fold_sizes(10**10, world_registry())
    enough = int(str(refused.value).partition("give it ")[2].partition(" MB")[0].replace(",", "")) * 1_000_000
    assert MemoryBudget(enough, 2).fold_sizes(10**10, world_registry()).shards == MOST_SHARDS


@pytest.mark.parametrize(("text", "amount"), [("3GB", 3 * GIGA), ("800MB", 800_000_000), ("1.5GiB", 1_610_612_736)])
def test_amounts_of_memory(text: str, amount: int) -> None:
    assert memory_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "much", "0", "-1GB", "3 bananas"])
def test_a_text_that_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 3GB"):
        memory_bytes(text)
