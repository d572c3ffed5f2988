"""A new registry beside the live one: built to the same basis, compared by hash, switched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ofp_platform.offline.parity.projection_fold import ProjectionFold
from ofp_platform.online.plane import Plane
from ofp_platform.online.ranges.catch_up import catch_up
from ofp_platform.online.ranges.rebuild import RebuildRefused, rebuild, switch_live
from ofp_platform_tests.oracle.simulated_log import WITH_ANOTHER_GROUP, append, deliveries, pack_with, profile
from ofp_platform_tests.oracle.stored_state import STATE_TABLES, first_key


def fold(plane: Plane) -> ProjectionFold:
    return ProjectionFold(plane.log, plane.archive, plane.profile)


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    """A live projection in the middle of its log, and a profile that names a pack with one group more."""
    with Plane.open(profile(tmp_path), dsn) as opened:
        append(opened.log)
        live = opened.ensure_live()
        opened.projector(live).apply_available(max_records=300)
        path = pack_with(tmp_path, [WITH_ANOTHER_GROUP])
        opened.profile = opened.profile.model_copy(update={"pack": str(path)})
        yield opened


def test_the_same_pack_has_nothing_to_build(dsn: str, tmp_path: Path) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane.log)
        receipt = rebuild(plane)
        assert receipt.unchanged
        assert not receipt.may_go_live
        assert switch_live(plane, receipt.live.registry_digest).unchanged


def test_built_beside_compared_and_switched(plane: Plane) -> None:
    receipt = rebuild(plane, fold(plane))
    assert receipt.beside.status == "building"
    assert receipt.beside.basis == receipt.live.basis
    assert receipt.records == sum(int(part.offset) for part in receipt.live.basis.partitions) == 300
    comparison = receipt.comparison
    assert comparison is not None
    assert comparison.equal
    assert receipt.may_go_live
    assert comparison.keys > 30
    assert len(comparison.moments) == 3
    assert "account_activity v1" in comparison.common
    assert comparison.only_beside == ("account_activity v2",)
    assert comparison.only_live == ()
    assert comparison.compared_keys["account_activity v2"] > 10
    assert all(comparison.compared_keys.values())
    again = rebuild(plane, fold(plane))
    assert again.records == 0
    assert again.comparison == comparison

    with pytest.raises(RebuildRefused, match="not what would go live"):
        switch_live(plane, receipt.live.registry_digest, fold(plane))
    switched = switch_live(plane, receipt.beside.registry_digest, fold(plane))
    assert switched.beside.status == "live"
    live = plane.live()
    assert live is not None
    assert live.projection_id == receipt.beside.projection_id
    assert plane.row(receipt.live.projection_id).status == "retired"
    assert catch_up(plane, live, "0000").lag == 0


def test_the_basis_that_is_served_never_goes_back(plane: Plane) -> None:
    """The live one moves between the comparison and the switch: the new one goes live where it stands then."""
    receipt = rebuild(plane)
    driver = plane.projector(receipt.live)
    driver.forget()
    driver.apply_available(max_records=50)
    switched = switch_live(plane, receipt.beside.registry_digest, fold(plane))
    assert switched.beside.basis == plane.row(receipt.live.projection_id).basis
    assert sum(int(part.offset) for part in switched.beside.basis.partitions) == 350


def test_what_differs_stays_beside(plane: Plane) -> None:
    receipt = rebuild(plane)
    with plane.pool.connection() as connection:
        key_id = first_key(connection)
        for table in STATE_TABLES:
            damage = f"DELETE FROM ofp.{table} WHERE (projection_id, key_id) = (%s, %s)"
            connection.execute(damage, (receipt.beside.projection_id, key_id))
    again = rebuild(plane)
    assert again.comparison is not None
    assert not again.comparison.equal
    assert not again.may_go_live
    found = {(one.key_type, one.key_id) for one in again.comparison.differences}
    assert len(found) == 1
    assert {one.feature for one in again.comparison.differences} > {"count_24h", "last_update_event_time"}
    with pytest.raises(RebuildRefused, match="it stays beside"):
        switch_live(plane, receipt.beside.registry_digest)
    live = plane.live()
    assert live is not None
    assert live.projection_id == receipt.live.projection_id


def test_a_new_group_that_nobody_compared_stays_beside(plane: Plane) -> None:
    receipt = rebuild(plane)
    assert receipt.comparison is not None
    assert receipt.comparison.not_compared == ("account_activity v2",)
    assert receipt.comparison.live_hash == receipt.comparison.beside_hash
    with pytest.raises(RebuildRefused, match="compared in nothing of account_activity v2: equal because nothing was compared"):
        switch_live(plane, receipt.beside.registry_digest)


def test_a_new_group_that_serves_something_else_than_the_records_say(plane: Plane) -> None:
    receipt = rebuild(plane)
    with plane.pool.connection() as connection:  # in both, so that only another fold of the records can tell
        key_id = first_key(connection)
        for table in STATE_TABLES:
            connection.execute(f"UPDATE ofp.{table} SET key_id = key_id || 'x' WHERE key_id = %s", (key_id,))
    with pytest.raises(RebuildRefused, match="something else than the records say"):
        switch_live(plane, receipt.beside.registry_digest, fold(plane))


def test_a_live_projection_that_applied_nothing_is_nothing_to_compare_with(dsn: str, tmp_path: Path) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane.log)
        plane.ensure_live()
        path = pack_with(tmp_path, [WITH_ANOTHER_GROUP])
        plane.profile = plane.profile.model_copy(update={"pack": str(path)})
        with pytest.raises(RebuildRefused, match="has applied nothing"):
            rebuild(plane, fold(plane))


def test_a_projection_that_was_given_fewer_records_is_refused(plane: Plane) -> None:
    receipt = rebuild(plane)
    with plane.pool.connection() as connection:
        connection.execute(
            "UPDATE ofp.projection_partition SET records = records - 1 WHERE projection_id = %s", (receipt.beside.projection_id,)
        )
    with pytest.raises(RebuildRefused, match="hold no more all of them"):
        rebuild(plane, fold(plane))


def test_a_projection_that_ran_ahead_is_not_compared(plane: Plane) -> None:
    receipt = rebuild(plane)
    ahead = plane.projector(receipt.beside)
    ahead.forget()
    ahead.apply_available(max_records=len(deliveries()))
    with pytest.raises(RebuildRefused, match="cannot stand where the live one stands"):
        rebuild(plane)


def test_nothing_to_compare_before_the_first_event(dsn: str, tmp_path: Path) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        plane.ensure_live()
        path = pack_with(tmp_path, [WITH_ANOTHER_GROUP])
        plane.profile = plane.profile.model_copy(update={"pack": str(path)})
        comparison = rebuild(plane).comparison
        assert comparison is not None
        assert comparison.equal
        assert (comparison.keys, comparison.moments) == (0, ())
