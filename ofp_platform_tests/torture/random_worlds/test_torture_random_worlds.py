"""Random worlds at a small length."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.registry.pack import load_pack, pack_digest
from ofp_platform_tests.torture.random_worlds import suite as random_worlds
from ofp_platform_tests.torture.random_worlds.defects import DEFECTS, left_edge_closed
from ofp_platform_tests.torture.random_worlds.packs import extended_pack, pack_count, revised_pack, world_pack
from ofp_platform_tests.torture.random_worlds.suite import SUITE, try_worlds, worlds_until_found
from ofp_platform_tests.torture.random_worlds.world import make_world


def test_worlds_agree_and_planted_defects_are_found(embedded_server: str, tmp_path: Path) -> None:
    figures = SUITE.run(size=0.0005, seed=8, dsn=embedded_server, folder=tmp_path)
    assert [row for row in figures.rows if row.reached is False] == [], f"{figures.table()}\n{figures.raw}"
    assert figures.raw["counts"]["questions"] >= 50


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_every_defect_can_be_planted_and_taken_out(name: str) -> None:
    for _ in range(2):
        with DEFECTS[name]():
            pass


@pytest.mark.parametrize(
    ("name", "worlds_before"),  # so many worlds that do not show it need not be run again each time
    [
        ("a trimmed log taken for all of it", 4),
        ("a shard listed no more taken for finished", 4),
        ("a shard that trimmed records taken for a quiet one", 12),
        ("a replay that starts late taken for whole", 4),
        ("labels dated by their source", 23),
        ("ids forgotten behind the horizon", 12),
        ("groups that need less not fed", 0),
        ("an epoch that a key shard applies twice", 238),
        ("a key that no shard takes", 0),
        ("an amendment that counts before its time", 93),
        ("an amendment that changes what it may not", 126),
        ("a link that counts a microsecond late", 1),
        ("a link that is never taken back", 244),
        ("links told apart by identity alone", 17),
        ("a member whose events are left out", 203),
    ],
)
def test_defects_of_history_shards_amendments_and_links_are_found(embedded_server: str, name: str, worlds_before: int) -> None:
    assert worlds_until_found(embedded_server, DEFECTS[name], 3 * 2**20 + worlds_before) is not None


def test_a_seed_is_a_world() -> None:
    for seed in range(20):
        assert make_world(seed) == make_world(seed)


def test_a_world_that_differs_is_repeated_by_its_seed(embedded_server: str) -> None:
    first = 3 * 2**20
    with left_edge_closed():
        tried = try_worlds(embedded_server, "torture_repeated", range(first, first + 200), stop_at_first=True)
        ((seed, what),) = tried.differing
        again = try_worlds(embedded_server, "torture_repeated", [seed])
    assert again.differing == [(seed, what)]
    assert try_worlds(embedded_server, "torture_repeated", [seed]).differing == []


def test_a_plane_that_raises_is_a_failure_with_a_seed(embedded_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(random_worlds, "try_world", broken)
    tried = try_worlds(embedded_server, "torture_raising", [7])
    assert tried.differing == [(7, "RuntimeError: out of order")]


@pytest.mark.parametrize("number", [3, 9])
def test_generated_packs_are_such_as_could_be_written(number: int) -> None:
    assert 0 < number < pack_count()
    for made in (world_pack(number), revised_pack(number), extended_pack(number)):
        pack = made.registry.pack
        assert pack_digest(load_pack(pack.model_dump_json(by_alias=True, exclude_none=True))) == made.registry.digest
