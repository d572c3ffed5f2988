"""What a service served is found again by its hash, whole, whoever stored it and how."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pytest

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.serving.served_batches import make_batch
from ofp_platform.online.serving.served_log import FULL, WAITS, ServedLog
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.storage import snapshot_records
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.storage.snapshot_records import decompress, place_in_pack, snapshot_path
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND, START


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn) as opened:
        yield opened


@pytest.fixture
def plane(pool: Pool) -> SmallPlane:
    found = SmallPlane(pool, "packs", partitions=1)
    found.append([payment(f"e-{number}", number * SECOND) for number in range(3)])
    found.drain()
    return found


@pytest.fixture
def answers(plane: SmallPlane) -> list[Answer]:
    keys, groups = [("account", "a-1"), ("merchant", "m-1")], [("ratios", "v2"), ("shop", "v1")]
    return [plane.reader.answer(plane.request(keys, groups, START + second * SECOND)) for second in range(2, 9)]


@pytest.fixture
def store(pool: Pool, tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(pool, ObjectStore(f"file://{tmp_path}"))


def told(store: SnapshotStore, snapshot_hash: str) -> Reason | None:
    """Why a snapshot cannot be read, or None."""
    try:
        store.load(snapshot_hash)
    except ContractError as refusal:
        return refusal.reason
    return None


def test_a_pack_holds_the_records_where_its_rows_say(answers: list[Answer], plane: SmallPlane) -> None:
    path, frame, placed = make_batch([*answers, *answers[:2]])
    content = decompress(frame)
    assert [answer.hash for answer, _ in placed] == sorted(answer.hash for answer in answers)
    for answer, reference in placed:
        place = place_in_pack(reference)
        assert place is not None
        assert place.path == path
        begin, length = place.begin, place.length
        record = orjson.loads(content[begin : begin + length])
        assert record["feature_snapshot_hash"] == answer.hash
        assert canonical_bytes(record) == content[begin : begin + length]
        assert canonical_bytes(record["hashed"]) == answer.hashed
        assert answer.made_under.pins_digest == pins_digest(plane.pins)
        assert answer.basis.encode() in answer.hashed
    assert place_in_pack(snapshot_path("0" * 64)) is None


def test_one_record_is_read_by_its_frame_alone(answers: list[Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofp_platform.online.serving.served_batches.FRAME_BYTES", 1)  # a frame for each
    path, pack, placed = make_batch(answers)
    objects = ObjectStore(str(tmp_path))
    objects.put_if_absent(path, pack)
    monkeypatch.setattr(objects, "get", None)  # the whole is not read
    frames = set()
    for answer, reference in placed:
        place = place_in_pack(reference)
        assert place is not None
        assert place.frame is not None
        assert orjson.loads(place.read(objects))["feature_snapshot_hash"] == answer.hash
        frames.add(place.frame)
    assert len(frames) == len({answer.hash for answer in answers}) > 1
    assert sum(length for _, length in frames) == len(pack)
    (tmp_path / path).chmod(0o600)
    (tmp_path / path).write_bytes(pack + b"x")  # no byte may change unnoticed, also none outside of the frame
    with pytest.raises(ValueError, match="were written"):
        place.read(objects)
    (tmp_path / path).write_bytes(pack[:-1])
    with pytest.raises(ValueError, match="were written"):
        place.read(objects)


def indexed(pool: Pool, plane: SmallPlane) -> list[str]:
    """The hashes in the index of the plane's run."""
    with pool.connection() as connection:
        statement = "SELECT snapshot_hash FROM ofp.snapshot_index WHERE pins_digest = %s"
        return [row[0] for row in connection.execute(statement, (pins_digest(plane.pins),)).fetchall()]


def test_a_logged_snapshot_reads_as_a_materialised_one(
    pool: Pool, store: SnapshotStore, answers: list[Answer], plane: SmallPlane
) -> None:
    store.log(answers)
    store.log(answers[::-1])  # again: nothing changes
    logged = [store.load(answer.hash) for answer in answers]
    assert len(indexed(pool, plane)) == len(answers)
    assert store.materialise(answers) == len(answers)
    assert [store.load(answer.hash) for answer in answers] == logged
    assert len(indexed(pool, plane)) == len(answers)


def test_a_snapshot_that_is_stored_while_it_is_looked_for_is_whole_or_missing(
    store: SnapshotStore, answers: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    look = snapshot_records._index_rows

    def stored_meanwhile(pool: Pool, snapshot_hashes: Sequence[str]) -> dict[str, tuple[str, str]]:
        if len(looks) == 1:
            store.log(answers)  # behind the looks into the index and for the object
        looks.append(True)
        return look(pool, snapshot_hashes)

    monkeypatch.setattr(snapshot_records, "_index_rows", stored_meanwhile)
    assert told(store, answers[0].hash) is None
    assert len(looks) == 2


def test_a_damaged_snapshot_is_told_to_those_alone_who_may_read_its_run(
    store: SnapshotStore, answers: list[Answer], tmp_path: Path, plane: SmallPlane
) -> None:
    store.log(answers)
    for path in (tmp_path / "snapshots" / "packs").rglob("*.zst"):
        path.write_bytes(path.read_bytes()[:-9])
    for may_read, reason in ((True, Reason.SNAPSHOT_CORRUPT), (False, Reason.UNKNOWN_SNAPSHOT)):
        with pytest.raises(ContractError) as caught:
            store.load(answers[0].hash, lambda pins, may_read=may_read: may_read and pins == plane.pins)  # type: ignore[misc]
        assert caught.value.reason is reason


def test_damage_of_a_pack_is_found(store: SnapshotStore, answers: list[Answer], tmp_path: Path) -> None:
    store.log(answers)
    path = next((tmp_path / "snapshots" / "packs").rglob("*.zst"))
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]):
        path.write_bytes(damaged)
        assert Reason.SNAPSHOT_CORRUPT in {told(store, answer.hash) for answer in answers}


async def test_what_is_offered_is_written_once_flushed_or_after_a_while(store: SnapshotStore, answers: list[Answer]) -> None:
    log = ServedLog(store, batch=3, linger_seconds=0.01)
    log.start()
    for answer in answers:
        log.offer(answer)
    await asyncio.wait_for(log.flushed(), 30)
    for answer in answers:
        store.load(answer.hash)
    await asyncio.wait_for(log.close(), 30)
    assert log.dropped == 0


async def test_what_waits_is_bounded_in_bytes_and_nothing_is_dropped(store: SnapshotStore, answers: list[Answer]) -> None:
    size = len(answers[0].body) + len(answers[0].hashed)
    log = ServedLog(store, capacity_bytes=4 * size)
    assert (log.is_full, log.trouble) == (False, None)
    for answer in answers[:2]:
        log.offer(answer)
    assert (log.is_full, log.trouble) == (False, WAITS)
    for answer in answers[2:]:
        log.offer(answer)
    assert (log.is_full, log.trouble) == (True, FULL)
    assert log.waiting_bytes > sum(len(answer.body) + len(answer.hashed) for answer in answers)
    log.start()
    await asyncio.wait_for(log.flushed(), 30)
    assert (log.is_full, log.trouble, log.waiting_bytes) == (False, None, 0)
    await asyncio.wait_for(log.close(), 30)
    assert log.dropped == 0
    assert [told(store, answer.hash) for answer in answers] == [None] * len(answers)


async def test_batches_are_bounded_in_bytes(store: SnapshotStore, answers: list[Answer], tmp_path: Path) -> None:
    size = len(answers[0].body) + len(answers[0].hashed) + 1_000
    log = ServedLog(store, batch_bytes=2 * size, linger_seconds=0.001)
    for answer in answers:
        log.offer(answer)
    log.start()
    await asyncio.wait_for(log.close(), 30)
    assert len(list((tmp_path / "snapshots" / "packs").rglob("*.zst"))) >= len(answers) // 2
    tiny = ServedLog(store, batch_bytes=1, linger_seconds=0.001)
    tiny.start()
    tiny.offer(answers[0])  # one that is larger than a batch is a batch
    await asyncio.wait_for(tiny.close(), 30)
    assert tiny.dropped == 0


async def test_it_closes_whatever_came_meanwhile(store: SnapshotStore, answers: list[Answer]) -> None:
    for pauses in range(8):
        log = ServedLog(store, batch=2, linger_seconds=5)
        log.start()
        for answer in answers:
            log.offer(answer)
            await asyncio.sleep(0.001 * pauses)
        await asyncio.wait_for(log.close(), 4)  # no wait for the batch that might have come


class Outage(SnapshotStore):
    """A store that does not answer while `down`."""

    down = True
    attempts = 0

    def log(self, answers: Sequence[Answer]) -> None:
        self.attempts += 1
        if self.down:
            raise ObjectStoreUnavailable("no")
        super().log(answers)


@pytest.fixture
def unreliable(pool: Pool, tmp_path: Path) -> Outage:
    return Outage(pool, ObjectStore(f"file://{tmp_path}"))


async def test_what_was_served_during_an_outage_is_stored_after_it(unreliable: Outage, answers: list[Answer]) -> None:
    log = ServedLog(unreliable, batch=2, linger_seconds=0.001, retry_seconds=0.001)
    log.start()
    for answer in answers[:5]:
        log.offer(answer)
    await asyncio.wait_for(log.flushed(), 30)  # nobody waits for a store that does not answer
    assert log.holds(answers[0].hash)
    for answer in answers[5:]:
        log.offer(answer)
    while unreliable.attempts < 3:
        await asyncio.sleep(0.001)
    unreliable.down = False
    await asyncio.wait_for(log.flushed(), 30)
    await asyncio.wait_for(log.flushed(), 30)  # the first may have met the last failing attempt
    assert [told(unreliable, answer.hash) for answer in answers] == [None] * len(answers)
    assert not log.holds(answers[0].hash)
    await asyncio.wait_for(log.close(), 30)
    assert log.dropped == 0


async def test_what_cannot_be_stored_at_the_end_is_counted(unreliable: Outage, answers: list[Answer]) -> None:
    log = ServedLog(unreliable, linger_seconds=0.001, retry_seconds=60)
    log.start()
    for answer in answers:
        log.offer(answer)
    await asyncio.wait_for(log.close(), 30)
    assert log.dropped == len(answers)


async def test_an_error_that_nobody_expects_does_not_end_the_log(unreliable: Outage, answers: list[Answer]) -> None:
    log = ServedLog(unreliable, linger_seconds=0.001, retry_seconds=0.001)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ofp_platform.online.serving.snapshot_store.make_batch", None)  # not callable: a TypeError
        unreliable.down = False
        log.start()
        for answer in answers:
            log.offer(answer)
        await asyncio.wait_for(log.flushed(), 30)
        assert log.holds(answers[0].hash)
    while log.holds(answers[0].hash):
        await asyncio.sleep(0.001)
    await asyncio.wait_for(log.close(), 30)
    assert log.dropped == 0
    assert [told(unreliable, answer.hash) for answer in answers] == [None] * len(answers)


async def test_a_store_that_is_silent_at_the_end_is_not_waited_for(pool: Pool, tmp_path: Path, answers: list[Answer]) -> None:
    release = threading.Event()

    class Silent(Outage):
        def log(self, answers: Sequence[Answer]) -> None:
            release.wait()

    log = ServedLog(Silent(pool, ObjectStore(str(tmp_path))), linger_seconds=0.001, close_seconds=0.05)
    log.start()
    for answer in answers:
        log.offer(answer)
    await asyncio.wait_for(log.close(), 30)
    release.set()
    assert log.dropped == len(answers)
