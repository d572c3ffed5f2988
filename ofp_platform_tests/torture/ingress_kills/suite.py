"""The kill loop of ingress: runners, streamers and doors, to the log in PostgreSQL and to a Kinesis that loses answers."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from ofp_platform_tests.torture.ingress_kills.runners import kill_runners
from ofp_platform_tests.torture.kills import publisher, streamer
from ofp_platform_tests.torture.kills.check import Checked
from ofp_platform_tests.torture.kills.publisher import kill_publishers
from ofp_platform_tests.torture.kills.streamer import kill_streamers
from ofp_platform_tests.torture.kills.victim_pool import VictimPool
from ofp_platform_tests.torture.kills.world import World, drop_database, make_world, registry
from ofp_platform_tests.torture.own_database import fresh_database
from ofp_platform_tests.torture.suite import Run, Suite

KILLS = 5_000
RUNNER_KILLS, PUBLISHER_KILLS = 500, 2_000
"""Of those; the others kill streamers with the door to the log in PostgreSQL."""
_PAYMENTS = 10_000
_KillSome = Callable[[World, VictimPool, Path, int, Random, str], tuple[Counter[str], Checked]]


def warm() -> None:
    """Everything that the killed need."""
    registry()
    importlib.import_module("pyarrow.dataset")
    importlib.import_module("boto3")


def torture(run: Run) -> None:
    """See the rows."""
    name = f"ingress_kills_{run.seed}_{os.getpid()}"
    dsn = fresh_database(run.dsn, name)
    rng = Random(run.seed)
    seeds = [Random(rng.randrange(2**32)) for _ in range(3)]
    payments = run.count(_PAYMENTS, 300)
    runners, publishers = run.count(RUNNER_KILLS, 3), run.count(PUBLISHER_KILLS, 4)
    streamers = run.count(KILLS, 10) - runners - publishers
    try:
        with VictimPool(f"{__name__}:warm") as lane, VictimPool(f"{__name__}:warm") as other_lane:
            world = make_world(dsn, run.folder / "world", 200, run.seed, range_size=100)
            with ThreadPoolExecutor(2) as lanes:
                publishing = lanes.submit(
                    _until, kill_publishers, world, lane, run.folder / "published", payments, seeds[0], publishers
                )
                (run.folder / "runs").mkdir()
                of_runners = kill_runners(world, other_lane, run.folder / "runs", runners, seeds[1])
                of_streamers = _until(kill_streamers, world, other_lane, run.folder / "streamed", payments, seeds[2], streamers)
                of_publishers = publishing.result()
            torn = streamer.check_without_guard(world, lane, run.folder / "torn")
            forgotten = publisher.check_without_guard(world, lane, run.folder / "forgotten")
    finally:
        drop_database(run.dsn, name)
    _rows(run, of_runners, of_streamers, of_publishers)
    for what, checked in (
        ("a door that commits records before their receipts", torn),
        ("a door that forgets what it was publishing", forgotten),
    ):
        failed, compared = checked.failed["events of a world"], checked.compared["events of a world"]
        run.fact(f"control: found out is {what}", f"{failed:,} of {compared:,} failed", aim="> 0", reached=failed > 0)


def _until(
    kill_some: _KillSome, world: World, victim_pool: VictimPool, folder: Path, payments: int, rng: Random, wanted: int
) -> tuple[Counter[str], Checked]:
    """World after world, until so many were killed."""
    folder.mkdir()
    kills: Counter[str] = Counter()
    checked = Checked()
    number = 0
    while kills.total() < wanted:
        name = f"{folder.name}-{number}"
        more, found = kill_some(world, victim_pool, folder / name, payments, rng, name)
        kills += more
        checked.take(found)
        number += 1
    return kills, checked


def _rows(run: Run, *parts: tuple[Counter[str], Checked]) -> None:
    total = sum(kills.total() for kills, _ in parts)
    run.fact("processes killed", f"{total:,}", aim=f">= {run.count(KILLS, 10):,}", reached=total >= run.count(KILLS, 10))
    whats = (
        "runners",
        "streamers, with the door to the log in PostgreSQL",
        "streamers, with the door to a Kinesis that loses answers",
    )
    for what, (kills, _) in zip(whats, parts, strict=True):
        hits = ", ".join(f"{point} {count:,}" for point, count in sorted(kills.items()))
        run.fact(f"killed: {what}", f"{kills.total():,}: {hits}", aim="> 0", reached=kills.total() > 0)
    for claim, part, names in (
        (
            "a run that was asked for by killed runners: READY and RUN_END once, with facts",
            0,
            ("control", "facts", "state at the end"),
        ),
        ("receipts balance, and agree with the log record by record", 1, ("receipts",)),
        ("each event of a sealed world is in the log once", 1, ("events of a world",)),
        ("receipts of what was published balance, none is left ambiguous", 2, ("receipts", "left ambiguous")),
        ("each event of a sealed world is once in the Kinesis", 2, ("events of a world",)),
    ):
        checked = parts[part][1]
        tried, failed = sum(checked.compared[name] for name in names), sum(checked.failed[name] for name in names)
        run.claim(claim, tried=tried, failed=failed, aim="0")
    run.raw["differences"] = [words for _, checked in parts for words in checked.words]


SUITE = Suite(
    "ingress_kills", "Kill loop of ingress: SIGKILL anywhere, then each event in the log once, and its receipt", torture
)
