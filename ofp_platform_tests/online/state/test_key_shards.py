"""Which shard a key belongs to, the same in every process and release, and how a projection gets another number of them."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.online.state.key_shards import (
    KeyShard,
    ShardRefused,
    of_shards,
    read_shards,
    reshard,
    reshard_in_time,
    shard_of,
    shard_words,
    shards_of,
)
from ofp_platform.online.state.projection import open_projection
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import load_pack
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG, SmallPlane, payment
from ofp_platform_tests.oracle.strategies import PACK

IDS = st.text(max_size=12)


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn) as pool:
        yield pool


@pytest.mark.parametrize(
    ("key_type", "key_id", "two", "four", "sixty_four"),
    [
        ("account", "account-0000001", 0, 1, 19),
        ("account", "account-0000002", 1, 3, 53),
        ("merchant", "m-1", 1, 3, 49),
        ("device", "Ünï-😀", 0, 0, 13),
        ("card", "", 0, 0, 2),
    ],
)
def test_the_shard_of_a_key_never_changes(key_type: str, key_id: str, two: int, four: int, sixty_four: int) -> None:
    assert [shard_of(key_type, key_id, count) for count in (1, 2, 4, 64)] == [0, two, four, sixty_four]


@given(IDS, IDS, st.integers(1, 64))
def test_a_shard_is_a_part_of_the_range_of_the_digest(key_type: str, key_id: str, shards: int) -> None:
    number = shard_of(key_type, key_id, shards)
    digest = crc32(f"{key_type}:{key_id}".encode())
    assert number == int(digest / 2**32 * shards)
    assert 0 <= number < shards
    if 2 * shards <= 64:
        assert shard_of(key_type, key_id, 2 * shards) // 2 == number  # twice as many: each shard is cut in two


@given(st.lists(IDS, max_size=20), st.integers(1, 64))
def test_many_keys_at_once(key_ids: list[str], shards: int) -> None:
    assert shards_of("account", key_ids, shards).tolist() == [shard_of("account", key_id, shards) for key_id in key_ids]


def test_ids_that_count_up_are_spread() -> None:
    for form in ("account-{:07d}", "{}", "m-{:x}"):
        counts = np.bincount(shards_of("account", [form.format(number) for number in range(20_000)], 8), minlength=8)
        assert counts.min() > 2_200
        assert counts.max() < 2_800


@given(st.lists(st.lists(IDS, min_size=1, max_size=6), max_size=4), st.integers(1, 5))
def test_each_event_is_of_one_shard(runs: list[list[str]], shards: int) -> None:
    start = 0
    touched = []
    for ids in runs:
        touched.append((ids, np.arange(start, start + len(ids))[np.newaxis]))
        start += len(ids)
    events = []
    for number in range(shards):
        for key_type, own in of_shards({"account": touched}, shards, {number}).items():
            for ids, matrix in own:
                assert {shard_of(key_type, key_id, shards) for key_id in ids} == {number}
                events += zip(ids, matrix[0].tolist(), strict=True)
    names = [name for ids in runs for name in ids]
    assert sorted(events, key=lambda event: event[1]) == list(zip(names, range(start), strict=True))


@pytest.mark.parametrize("text", ["", "1", "2/2", "a/2", "1/b", "0/0", "-1/2", "0/65", "1/2/3", "١/2", " 0/2"])
def test_a_text_that_names_no_shard(text: str) -> None:
    with pytest.raises(ShardRefused, match="names no shard: expected I/S"):
        KeyShard.parse(text)


def test_shards_in_words() -> None:
    assert KeyShard.parse("63/64") == KeyShard(63, 64)
    assert str(KeyShard(1, 2)) == "1/2"
    assert (shard_words([3]), shard_words([2, 0])) == ("shard 3", "shards 0, 2")


def test_another_number_of_shards_is_a_version_of_the_same_basis(pool: Pool) -> None:
    plane = SmallPlane(pool, "shards")
    plane.append([payment("e-1", 0)])
    plane.drain()
    before = plane.row()
    with pool.connection() as connection:
        for refused in (0, 65):
            with pytest.raises(ShardRefused, match=f"1 to 64 key shards, not {refused}"):
                reshard(connection, plane.projection_id, refused)
        assert reshard(connection, plane.projection_id, 1) == before
    row = reshard_in_time(pool, plane.projection_id, 3)
    assert (row.shards, row.version, row.sharded_at) == (3, before.version + 1, before.version + 1)
    assert (row.basis, row.watermark) == (before.basis, before.watermark)
    with pool.connection() as connection:
        assert [part.version for part in read_shards(connection, plane.projection_id).values()] == [row.version] * 2
        assert reshard(connection, plane.projection_id, 1).shards == 1
        assert read_shards(connection, plane.projection_id) == {}


def test_a_projection_beside_has_as_many_shards_as_the_live_one(pool: Pool) -> None:
    plane = SmallPlane(pool, "beside")
    reshard_in_time(pool, plane.projection_id, 3)
    other = compile_pack(load_pack(PACK.replace("revision: 1", "revision: 2", 1)))
    with pool.connection() as connection:
        beside = open_projection(connection, "beside", plane.pins, other, RUN_CONFIG)
        assert (beside.shards, beside.version) == (3, 0)
        assert [part.version for part in read_shards(connection, beside.projection_id).values()] == [0, 0]
        assert open_projection(connection, "beside", plane.pins, other, RUN_CONFIG) == beside
