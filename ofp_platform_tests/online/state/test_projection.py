"""Projections and registries in the store: opened once, never redefined, switched with a guard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from ofp_platform.online.state.projection import (
    ProjectionConflict,
    RegistryRefused,
    UnknownProjection,
    list_projections,
    load_registry,
    make_live,
    open_projection,
    publish_registry,
    published_groups,
    read_projection,
)
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import load_pack
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG, small_registry
from ofp_platform_tests.oracle.strategies import PACK, PINS

RUN = ContextPins(**PINS)


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as opened:
        yield opened


def changed(old: str, new: str) -> CompiledRegistry:
    assert PACK.count(old) == 1
    return compile_pack(load_pack(PACK.replace(old, new)))


def test_a_projection_is_opened_once(connection: psycopg.Connection[Any]) -> None:
    first = open_projection(connection, "s", RUN, small_registry(), RUN_CONFIG)
    assert (first.status, first.version, first.watermark, first.pruned_to) == ("building", 0, None, None)
    assert (first.pins, first.basis.stream_name, first.basis.partitions) == (RUN, "s", ())
    assert open_projection(connection, "s", RUN, small_registry(), RUN_CONFIG, status="live") == first
    assert read_projection(connection, first.projection_id) == first
    others = [
        open_projection(connection, "t", RUN, small_registry(), RUN_CONFIG),
        open_projection(connection, "s", RUN.model_copy(update={"seed": 0}), small_registry(), RUN_CONFIG),
        open_projection(connection, "s", RUN, small_registry(), "d" * 64),
        open_projection(connection, "s", RUN, changed("revision: 1", "revision: 2"), RUN_CONFIG),
    ]
    assert list_projections(connection) == [first, *others]
    assert list_projections(connection, status="live") == []
    assert len({row.projection_id for row in list_projections(connection)}) == 5


def test_a_group_version_means_one_thing_for_good(connection: psycopg.Connection[Any]) -> None:
    publish_registry(connection, small_registry())
    publish_registry(connection, small_registry())
    before = published_groups(connection)
    assert set(before) == {
        ("every", "v1"),
        ("lists", "v1"),
        ("ratios", "v2"),
        ("switches", "v1"),
        ("texts", "v1"),
        ("whole", "v1"),
        ("shop", "v1"),
    }
    redefined = changed("events: [payment], window: 3s, delay: 1s}", "events: [payment], window: 4s, delay: 1s}")
    for refuse in (
        lambda: publish_registry(connection, redefined),
        lambda: open_projection(connection, "s", RUN, redefined, RUN_CONFIG),
    ):
        with pytest.raises(RegistryRefused, match="shop"):
            refuse()
    assert published_groups(connection) == before
    assert list_projections(connection) == []
    with pytest.raises(UnknownProjection):
        load_registry(connection, redefined.digest)


def test_a_published_registry_comes_back_as_it_was(connection: psycopg.Connection[Any]) -> None:
    publish_registry(connection, small_registry())
    assert load_registry(connection, small_registry().digest) == small_registry()


def test_a_second_registry_is_built_beside_the_live_one_and_switched_to(connection: psycopg.Connection[Any]) -> None:
    live = open_projection(connection, "s", RUN, small_registry(), RUN_CONFIG, status="live")
    newer = changed("revision: 1", "revision: 2")
    with pytest.raises(UnknownProjection, match="beside"):
        open_projection(connection, "s", RUN, newer, RUN_CONFIG, status="live")
    beside = open_projection(connection, "s", RUN, newer, RUN_CONFIG)
    with pytest.raises(ProjectionConflict, match="at 0, not at 1"):
        make_live(connection, beside.projection_id, 1)
    assert make_live(connection, beside.projection_id, 0) == live.projection_id
    assert make_live(connection, beside.projection_id, 0) is None
    statuses = {row.projection_id: row.status for row in list_projections(connection)}
    assert statuses == {live.projection_id: "retired", beside.projection_id: "live"}


def test_what_is_not_there_is_said_to_be_unknown(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(UnknownProjection, match="no projection 7"):
        read_projection(connection, 7)
    with pytest.raises(UnknownProjection, match="no projection 7"):
        make_live(connection, 7, 0)
