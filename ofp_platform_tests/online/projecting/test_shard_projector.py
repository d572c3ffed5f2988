"""Key shards: any number of them, and another number midway, serve the same bytes as one."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from ofp_platform.online.projecting import epoch_barrier
from ofp_platform.online.projecting import shard_projector as shard_module
from ofp_platform.online.projecting.epoch_barrier import EpochHeld
from ofp_platform.online.projecting.epoch_records import EpochDiffers
from ofp_platform.online.projecting.epoch_sequencer import EpochSequencer
from ofp_platform.online.state.epochs import Epoch, read_epoch
from ofp_platform.online.state.key_shards import ShardRefused, read_shards, shard_of
from ofp_platform.online.state.projection import ProjectionConflict
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.small_shards import sequencer, set_shards, shard_projector, shards_of
from ofp_platform_tests.oracle.stored_state import stored_events
from ofp_platform_tests.oracle.strategies import SECOND, START

GROUPS = [("ratios", "v2"), ("shop", "v1")]
ACCOUNTS = [("account", f"a-{number}") for number in range(12)]
KEYS = [*ACCOUNTS, ("merchant", "m-1"), ("merchant", "m-2")]
EVENTS = 120
SECONDS = 45
RETAINED = 20
"""Seconds that the small plane keeps behind its watermark."""
SIZES = (5, 1, 22, 17, 3)
"""Records of the commits, the same ones however many shards there are."""


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=12) as pool:
        yield pool


def events(seed: int = 7) -> list[dict[str, Any]]:
    """Payments of twelve accounts at two merchants, in disorder, with copies; the clock passes the horizon."""
    rng = random.Random(seed)
    listed = []
    for place in range(EVENTS):
        number = max(0, place - rng.randrange(12)) if rng.random() < 0.3 else place
        of_number = random.Random(number)  # a copy is the same event
        moment = (number * SECONDS // EVENTS + of_number.randrange(4)) * SECOND
        account, merchant = f"a-{of_number.randrange(12)}", f"m-{of_number.randint(1, 2)}"
        amount = of_number.randint(1, 99)
        listed.append(payment(f"e-{number}", moment, account_id=account, merchant_id=merchant, amount=amount))
    return listed


def filled(pool: Pool, stream: str) -> SmallPlane:
    plane = SmallPlane(pool, stream, chunk_events=4, span_chunks=2, tail_bytes=120)
    plane.append(events(), [0, 1, 1])
    return plane


def hashes(plane: SmallPlane) -> list[str]:
    """Of every key alone and of all keys together, at several times; each held against the oracle."""
    found = []
    for second in (SECONDS, SECONDS - 4, SECONDS - 9):
        found += [plane.check([key], [group_of(key)], START + second * SECOND) for key in KEYS]
        found.append(plane.check(KEYS, GROUPS, START + second * SECOND))
    return found


def group_of(key: tuple[str, str]) -> tuple[str, str]:
    return GROUPS[0] if key[0] == "account" else GROUPS[1]


def commit(plane: SmallPlane, dsn: str, count: int, sizes: Sequence[int]) -> None:
    """Some commits with that many shards."""
    set_shards(plane, count)
    with shards_of(plane, dsn, count) as first:
        for size in sizes:
            first.apply_available(max_records=size)


def test_the_keys_of_these_tests_are_in_all_shards() -> None:
    for count in (2, 4):
        assert {shard_of(*key, count) for key in KEYS} == set(range(count))


def test_any_number_of_shards_and_another_midway_give_the_same_bytes(dsn: str, pool: Pool) -> None:
    found: dict[tuple[int, int], tuple[Any, ...]] = {}
    for before, after in ((1, 1), (2, 2), (4, 4), (2, 4), (4, 1), (1, 3)):
        plane = filled(pool, "stream")
        commit(plane, dsn, before, SIZES)
        midway = hashes(plane)
        commit(plane, dsn, after, (*SIZES, EVENTS))
        assert plane.row().basis == plane.log.ends()
        with pool.connection() as connection:
            counts = connection.execute(
                "SELECT partition_id, records, applied, duplicates, late, failed, ignored, partial, anomalies"
                " FROM ofp.projection_partition WHERE projection_id = %s ORDER BY partition_id",
                (plane.projection_id,),
            ).fetchall()
            state = stored_events(connection, plane.projection_id, plane.registry)
            assert read_epoch(connection, plane.projection_id) is None
            found[before, after] = midway, hashes(plane), counts, servable(state)
            connection.execute("TRUNCATE ofp.log_stream, ofp.projection CASCADE")
            connection.execute("TRUNCATE ofp.chunk, ofp.tail, ofp.span")
    for counts_of_shards, outcome in found.items():
        assert outcome == found[1, 1], counts_of_shards


def servable(state: Mapping[tuple[str, str], Any]) -> dict[tuple[str, str], list[tuple[int, ...]]]:
    """The stored events of each key that are in front of the horizon; what is behind is pruned sooner or later."""
    horizon = max(int(matrix[0].max()) for matrix in state.values() if matrix.shape[1]) - RETAINED * SECOND
    kept = {key: sorted(map(tuple, matrix[:, matrix[0] > horizon].T.tolist())) for key, matrix in state.items()}
    return {key: rows for key, rows in kept.items() if rows}


# ---- an epoch that some have and others have not ---------------------------------------------------------------------------


def versions(plane: SmallPlane) -> list[int]:
    """Of all shards, that of shard 0 first."""
    with plane.pool.connection() as connection:
        rest = read_shards(connection, plane.projection_id)
    return [plane.row().version, *(row.version for row in rest.values())]


def split(plane: SmallPlane, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Epoch:
    """Bring a projection to where one of its two shards has an epoch that the other has not: shard 0 fails at its end."""
    set_shards(plane, 2)
    with shards_of(plane, dsn, 2) as first:
        assert isinstance(first, EpochSequencer)
        assert first.apply_available(max_records=30) is not None
        with monkeypatch.context() as patch:
            patch.setattr(first._barrier, "await_others", _fail_after(plane))
            with pytest.raises(RuntimeError, match="killed here"):
                first.apply_available(max_records=30)
    with plane.pool.connection() as connection:
        epoch = read_epoch(connection, plane.projection_id)
    assert epoch is not None
    assert versions(plane) == [epoch.version - 1, epoch.version]
    return epoch


def _fail_after(plane: SmallPlane) -> Callable[[int], None]:
    def fail(version: int) -> None:
        while versions(plane)[1] < version:
            time.sleep(0.001)
        raise RuntimeError("killed here")

    return fail


def test_a_request_waits_for_one_epoch_and_tells_which_shard_is_behind(
    dsn: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = filled(pool, "split")
    epoch = split(plane, dsn, monkeypatch)
    of_shard = [[key for key in ACCOUNTS if shard_of(*key, 2) == number] for number in range(2)]
    as_of = START + 10 * SECOND
    # the keys of one shard are answered, each on the basis of the epoch that the shard has
    for keys, basis in zip(of_shard, (plane.row().basis, epoch.basis), strict=True):
        assert plane.check_at(basis, keys, [GROUPS[0]], as_of)
    plane.reader._split_seconds = 0.02
    for keys in (ACCOUNTS, [of_shard[0][0], of_shard[1][0]]):
        with pytest.raises(ContractError, match=f"key shard 0 did not apply epoch {epoch.version} within 0.02 s") as caught:
            plane.reader.answer(plane.request(keys, [GROUPS[0]], as_of))
        assert caught.value.reason is Reason.PROJECTION_BEHIND
        assert caught.value.retryable
    with shards_of(plane, dsn, 2) as first:  # another process of shard 0: it finishes that epoch first
        receipt = first.apply_available(max_records=1)
        assert receipt is not None
        assert (receipt.version, receipt.basis_after) == (epoch.version, epoch.basis)
    assert versions(plane) == [epoch.version, epoch.version]
    assert plane.check(KEYS, GROUPS, as_of)


@pytest.mark.parametrize("together", [True, False])
def test_an_epoch_that_is_open_is_finished_as_it_was_laid_down(
    dsn: str, pool: Pool, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """By shards of their own, or by a projector that applies to all of them."""
    plane = filled(pool, "open")
    epoch = split(plane, dsn, monkeypatch)
    with pytest.raises(ProjectionConflict, match=f"epoch {epoch.version} is not applied yet by shard 0"):
        set_shards(plane, 4)
    if together:
        assert plane.drain()[0].basis_after == epoch.basis
    else:
        commit(plane, dsn, 2, (1, *SIZES, EVENTS))
    assert plane.row().basis == plane.log.ends()
    hashes(plane)
    set_shards(plane, 4)
    assert len(set(versions(plane))) == 1


def test_other_records_than_those_of_the_epoch_are_refused(dsn: str, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = filled(pool, "other")
    split(plane, dsn, monkeypatch)
    before = versions(plane)
    for change, undo, words in (
        ("records[1] = records[1] + 1", "records[1] = records[1] - 1", "when the epoch was laid down"),
        ("watermark = watermark - 1", "watermark = watermark + 1", "other fates"),
    ):
        with pool.connection() as connection:
            connection.execute(f"UPDATE ofp.epoch SET {change}")
        with pytest.raises(EpochDiffers, match=words):
            plane.drain()
        with pool.connection() as connection:
            connection.execute(f"UPDATE ofp.epoch SET {undo}")
        assert versions(plane) == before
    plane.drain()
    hashes(plane)


def test_no_epoch_begins_while_a_shard_has_no_process(dsn: str, pool: Pool) -> None:
    plane = filled(pool, "missing")
    set_shards(plane, 3)
    with sequencer(plane, dsn, 3) as first, shard_projector(plane, dsn, 2, 3):
        for _ in range(2):
            with pytest.raises(EpochHeld, match="waits for shard 1: no process attends") as caught:
                first.apply_available(max_records=10)
            assert caught.value.shards == (1,)
    with pool.connection() as connection:
        assert read_epoch(connection, plane.projection_id) is None


def test_a_shard_that_does_nothing_holds_the_epoch_and_readers_see_the_one_before(dsn: str, pool: Pool) -> None:
    plane = filled(pool, "idle")
    set_shards(plane, 3)
    with (
        sequencer(plane, dsn, 3, 0.05) as first,
        shard_projector(plane, dsn, 1, 3, 0.05) as second,
        shard_projector(plane, dsn, 2, 3),
    ):
        for _ in range(2):
            with pytest.raises(EpochHeld, match=r"shards 1, 2 not ready within 0"):
                first.apply_available(max_records=10)
        with pytest.raises(EpochHeld, match=r"shards 0, 2 not ready within 0"):
            second.apply_next()
    assert versions(plane) == [1, 1, 1]
    assert plane.check(KEYS, GROUPS, START)


def test_a_shard_whose_process_is_gone_is_not_waited_for(dsn: str, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait for one that is at work, as long as that takes, but not for the dead."""
    monkeypatch.setattr(epoch_barrier, "ABSENT_SECONDS", 0.05)
    plane = filled(pool, "gone")
    set_shards(plane, 2)
    with sequencer(plane, dsn, 2) as first:
        other = shard_projector(plane, dsn, 1, 2)
        monkeypatch.setattr(first._barrier, "wait", lambda seconds: other.close())
        with pytest.raises(EpochHeld, match="shard 1 not ready"):  # it would wait for a minute
            first.apply_available(max_records=10)
    assert versions(plane) == [1, 1]


def test_a_number_of_shards_that_the_projection_does_not_have_is_refused(dsn: str, pool: Pool) -> None:
    plane = filled(pool, "refused")
    set_shards(plane, 2)
    with sequencer(plane, dsn, 3) as first, shard_projector(plane, dsn, 1, 3) as second:
        with pytest.raises(ShardRefused, match="has 2 key shards since version 1, not 3"):
            first.apply_available(max_records=1)
        with pytest.raises(ShardRefused, match="has 2 key shards since version 1, not 3"):
            second.apply_next()


def test_a_process_that_read_an_epoch_which_its_shard_has_by_now_applies_nothing(
    dsn: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = filled(pool, "twice")
    set_shards(plane, 2)
    with shards_of(plane, dsn, 2) as first, shard_projector(plane, dsn, 1, 2) as other:
        assert isinstance(first, EpochSequencer)
        read: list[Any] = []
        tell = first._barrier.tell

        def read_then_tell() -> None:
            if not read:
                read.append(other._load())
            tell()

        monkeypatch.setattr(first._barrier, "tell", read_then_tell)
        assert first.apply_available(max_records=60) is not None
        monkeypatch.setattr(other, "_load", lambda: (read[0][0], 1, read[0][2]))
        with pytest.raises(ProjectionConflict, match="is at version 2, this epoch is 2"):
            other.apply_next()
    assert plane.check(KEYS, GROUPS, START + 10 * SECOND)


def test_a_shard_that_leaves_out_a_key_or_applies_an_epoch_twice_is_seen(
    dsn: str, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks of this module see what a shard does wrong."""
    own = shard_module.of_shards

    lost = next(name for kind, name in ACCOUNTS if shard_of(kind, name, 2) == 1)

    def without(ids: list[str], matrix: Any) -> Any:
        kept = [place for place, name in enumerate(ids) if name != lost]
        return [ids[place] for place in kept], matrix[:, kept]

    def leaves_out(*arguments: Any) -> Any:
        return {kind: [without(*run) for run in runs] for kind, runs in own(*arguments).items()}

    def takes_twice(*arguments: Any) -> Any:
        return {kind: [*runs, *runs] for kind, runs in own(*arguments).items()}

    for number, defect in enumerate((leaves_out, takes_twice)):
        plane = filled(pool, f"defect-{number}")
        with monkeypatch.context() as patch:
            patch.setattr(shard_module, "of_shards", defect)
            commit(plane, dsn, 2, (*SIZES, EVENTS))
        with pytest.raises(AssertionError):
            hashes(plane)
