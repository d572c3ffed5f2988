"""Archivers that are killed while they archive a log, until one of them finds nothing left to do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

from ofp_platform.log.archive import archive_closed_ranges, archive_up_to
from ofp_platform.log.archive_check import cross_check
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archive_verify import verify_partition
from ofp_platform.online.plane import Plane
from ofp_platform.storage.crash_points import CRASH_POINTS, crash_point
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.torture.kills.check import Checked
from ofp_platform_tests.torture.kills.victim_pool import Kill, VictimPool, killed_until_done
from ofp_platform_tests.torture.kills.world import World

SEGMENT_SUFFIX = ".parquet"
POINTS = tuple(name for name in CRASH_POINTS if name.startswith("archive."))


def archive_everything(profile: Profile, dsn: str, url: str) -> int:
    """Archive the closed ranges and what is left behind them; how many segments there are."""
    with Plane.open(profile, dsn, max_connections=2) as plane:
        archive = Archive(ObjectStore(url), plane.log.stream_name)
        archive_closed_ranges(plane.ranges, archive)
        return len(archive_up_to(plane.ranges, archive, plane.log.ends()))


class ReceiptFirst(ObjectStore):
    """A store that puts a segment behind its receipt instead of before it: the negative control."""

    _held: tuple[str, bytes] | None = None

    def put_if_absent(self, path: str, data: bytes) -> bool:
        if path.endswith(SEGMENT_SUFFIX):
            self._held = path, data
            return True
        created = super().put_if_absent(path, data)
        crash_point("archive.receipt_put")
        assert self._held is not None
        super().put_if_absent(*self._held)
        return created


def archive_receipts_first(profile: Profile, dsn: str, url: str) -> int:
    """The same without the guard."""
    with Plane.open(profile, dsn, max_connections=2) as plane:
        return len(archive_closed_ranges(plane.ranges, Archive(ReceiptFirst(url), plane.log.stream_name)))


def check_without_guard(world: World, plane: Plane, victim_pool: VictimPool, folder: Path) -> Checked:
    """What the check of a killed archiver says of one that puts receipts first."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = Archive(ObjectStore(f"file://{folder / 'receipts-first'}"), plane.log.stream_name)
    victim_pool.run(archive_receipts_first, world.profile, world.dsn, archive.store.url, kill=Kill("archive.receipt_put"))
    checked = Checked()
    _check_whole(archive, plane, checked)
    return checked


def kill_archivers(
    world: World, plane: Plane, victim_pool: VictimPool, folder: Path, rng: Random
) -> tuple[Counter[str], Checked]:
    """Archive the log into `folder` by archivers that are killed; what killed them how often, and what was checked.

    The kills go on until an archiver finishes before its own; then the archive must be, to the byte, what one archiver makes.
    """
    kills: Counter[str] = Counter()
    checked = Checked()
    folder.mkdir(parents=True, exist_ok=True)
    archive = Archive(ObjectStore(f"file://{folder / 'killed'}"), plane.log.stream_name)
    arguments = world.profile, world.dsn, archive.store.url
    for kills in killed_until_done(victim_pool, archive_everything, *arguments, points=POINTS, most_passages=2, rng=rng):
        if sum(kills.values()) % 50 == 0:
            _check_whole(archive, plane, checked)
    _check_whole(archive, plane, checked)
    _check_all(archive, plane, world, checked)
    victim_pool.run(archive_everything, world.profile, world.dsn, f"file://{folder / 'whole'}")
    contents = [_contents(ObjectStore(f"file://{folder / name}")) for name in ("killed", "whole")]
    for path in sorted(contents[0].keys() | contents[1].keys()):
        checked.compare("archived object", contents[0].get(path), contents[1].get(path), path)
    return kills, checked


def _contents(store: ObjectStore) -> dict[str, str]:
    return {path: sha256_hex(store.get(path)) for path in store.list()}


def _check_whole(archive: Archive, plane: Plane, checked: Checked) -> None:
    """What is visible is whole, and joins from the first record on, whoever was killed last."""
    for info in plane.log.partitions():
        found = verify_partition(archive, info.partition_id, plane.log.position_kind.offset_kind)
        checked.compare("archive verified", [], list(found.problems), info.partition_id)


def _check_all(archive: Archive, plane: Plane, world: World, checked: Checked) -> None:
    """Every record is archived, once, and is the log's; every closed range has its receipt."""
    records = 0
    for span in ReplayBasis.up_to(plane.log.ends()).partitions:
        found = verify_partition(archive, span.partition_id, span.offset_kind)
        records += found.records
        checked.compare("archive reaches the head", found.contiguous, span, span.partition_id)
        checking = cross_check(plane.log, archive, plane.pool, span)
        checked.compare("archive against log", (checking.compared, checking.conflicts), (int(span.next), ()), span.partition_id)
        receipts = [archive.receipt(one) for one in archive.spans(span.partition_id, span.offset_kind)]
        numbers = sorted(one.range_number for one in receipts if one is not None)
        checked.compare("receipts without a gap", numbers, list(range(len(receipts))), span.partition_id)
    checked.compare("archived records", records, world.records)
