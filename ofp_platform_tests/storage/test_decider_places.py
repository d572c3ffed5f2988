"""How far a decider has come: begun once, moved from where it stands, by one of two."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from ofp_platform.storage.decider_places import PlaceMoved, begin_places, decided_span, move_place, read_places
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import OffsetKind, PartitionBasis, make_basis


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=2) as opened:
        yield opened


def part(name: str, offset: int) -> PartitionBasis:
    return PartitionBasis(partition_id=name, offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=offset)


def test_a_run_is_begun_once_and_moved_from_where_it_stands(pool: Pool) -> None:
    pins = ContextPins(scenario_id="s", run_id=uuid.uuid4().hex, manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
    begin = make_basis("payments", {"0000": part("0000", 5), "0001": part("0001", 7)})
    with pool.connection() as connection:
        assert read_places(connection, pins, "payments") is None
        assert decided_span(connection, pins, "payments") is None
        begin_places(connection, pins, begin)
        begin_places(connection, pins, make_basis("payments", {"0000": part("0000", 99)}))
        assert read_places(connection, pins, "payments") == begin
        move_place(connection, pins, "payments", part("0000", 5), part("0000", 9))
        for before in (None, part("0000", 5), part("0000", 10)):
            with pytest.raises(PlaceMoved, match="partition 0000 of payments is decided on by somebody else"):
                move_place(connection, pins, "payments", before, part("0000", 12))
        # a partition that nobody began begins at its start
        move_place(connection, pins, "payments", None, part("0002", 3))
        span = decided_span(connection, pins, "payments")
        assert span is not None
        begun, place = (basis.by_partition() for basis in span)
        assert {name: at.offset for name, at in begun.items()} == {"0000": 5, "0001": 7, "0002": 0}
        assert {name: at.offset for name, at in place.items()} == {"0000": 9, "0001": 7, "0002": 3}
        assert read_places(connection, pins, "another") is None
