"""Two archivers of one partition: one segment and one receipt for each range, whoever writes it; other records are refused."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ofp_platform.log.archive import ArchiveConflict, archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archive_verify import verify_partition
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.storage.objects import ObjectStore
from ofp_platform_tests.oracle.small_plane import ADMITTED, payment
from ofp_platform_tests.oracle.strategies import SECOND
from ofp_platform_tests.torture.two_of_everything.contenders import Contenders, pool_of, store_of

STREAM = "archived-twice"
RECORDS = 50
RANGE_SIZE = 20


@dataclass
class Tally:
    """Rounds, those in which the check found something, and what it found first."""

    rounds: int = 0
    failed: int = 0
    first: str = ""


def fill(dsn: str, amount: int) -> None:
    """A stream of one partition; another amount makes other records at the same positions."""
    log = _log(dsn)
    receipt = log.append(
        [payment(f"e-{number}", number * SECOND, amount=amount) for number in range(RECORDS)], lambda envelope: ADMITTED
    )
    if receipt.refusals:
        raise RuntimeError(f"the log refused: {receipt.refusals[0]}")


def archive(dsn: str, url: str, endpoint: str | None, guarded: bool) -> list[str] | str:
    """Archive all of the stream: the digests of the receipts, or the name of the error. What one contender does."""
    log = _log(dsn)
    target = Archive(store_of(url, endpoint, guarded), STREAM)
    try:
        receipts = archive_up_to(OffsetRanges(pool_of(dsn), log, RANGE_SIZE), target, log.ends())
    except Exception as error:
        return type(error).__name__
    return [receipt.receipt_digest for receipt in receipts]


def two_archivers(
    contenders: Contenders,
    dsns: list[str],
    url: str,
    rounds: int,
    rng: random.Random,
    *,
    endpoint: str | None = None,
    guarded: bool = True,
) -> Tally:
    """Archive into a fresh folder of the store each round; contender i reads its log in database `dsns[i % len(dsns)]`."""
    tally = Tally()
    for _ in range(rounds):
        root = f"{url}/{rng.getrandbits(64):016x}"
        given = [(dsns[number % len(dsns)], root, endpoint, guarded) for number in range(2)]
        found = contenders.race(archive, given)
        problem = _problem(ObjectStore(root, endpoint=endpoint), found, [dsns.index(dsn) for dsn, *_ in given])
        tally.rounds += 1
        tally.failed += problem != ""
        tally.first = tally.first or problem
    return tally


def _problem(objects: ObjectStore, found: list[list[str] | str], contents: list[int]) -> str:
    """What is wrong with what the archivers left; empty when those of one content agree and all others were refused."""
    winners = {content for one, content in zip(found, contents, strict=True) if isinstance(one, list)}
    if len(winners) != 1:
        return f"archivers of {len(winners)} different contents believe that theirs is archived: {found}"
    kept = [one for one in found if isinstance(one, list)]
    if any(one != kept[0] for one in kept):
        return "two archivers hold different receipts of the same records"
    for one, content in zip(found, contents, strict=True):
        if isinstance(one, str) and (content in winners or one != ArchiveConflict.__name__):
            return f"an archiver ended with {one}"
    target = Archive(objects, STREAM)
    for partition_id in target.partition_ids():
        verified = verify_partition(target, partition_id, _KIND)
        if verified.problems:
            return verified.problems[0].message
        if verified.records != RECORDS or verified.segments != len(kept[0]):
            return f"{verified.segments} segments hold {verified.records} records"
        if [receipt.receipt_digest for receipt in target.receipts(partition_id, _KIND)] != kept[0]:
            return "the stored receipts are not those that the archivers hold"
    return "" if target.partition_ids() else "nothing is archived"


def _log(dsn: str) -> PostgresLog:
    return PostgresLog.create(pool_of(dsn), STREAM, 1, "event_id")


_KIND = PostgresLog.position_kind.offset_kind
