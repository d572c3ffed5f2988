"""Random worlds: logs that a seed makes go through the online plane, the offline plane and the oracle; all say the same.

Every world passes through PostgreSQL: projected in commits of random sizes, served, folded from its log again, rebuilt. One
world alone, by the seed that a failure prints: `python -m ofp_platform_tests.torture.random_worlds.suite SEED`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from ofp_platform.storage.embedded import SUPERUSER, as_role, start_embedded, stop_embedded
from ofp_platform_tests.torture.random_worlds.defects import DEFECTS, Defect
from ofp_platform_tests.torture.random_worlds.store import WorldStore
from ofp_platform_tests.torture.random_worlds.views import try_world
from ofp_platform_tests.torture.random_worlds.world import World, make_world, occurred
from ofp_platform_tests.torture.suite import Run, Suite

WORLDS = 100_000
_SEEDS = 2**20
"""How far the first worlds of two runs lie apart: more than any run has worlds."""
_PROCESSES = 2
_FEW = 2_000
"""Below this many worlds another process would take longer to start than its share takes."""
_EMPTIED_AFTER = 250
_MOST_TRIED = 400
"""Worlds among which a planted defect must be found."""
_SHOWN = 20
_MUST_OCCUR = {
    "duplicates": "copies of an event, at other positions",
    "conflicts": "event ids with another content",
    "forgotten": "of them such that the projection had forgotten the first content, behind the horizon",
    "disorder": "events older than one before them",
    "late": "events from behind the horizon",
    "future": "events further ahead of their admission than the skew",
    "deliveries that came twice": "batches delivered again after their commit",
    "runs": "runs (context pins) with records in a log",
    "registry changes": "projections rebuilt under the next revision of a pack, and switched to",
    "added groups": "of them to a pack with one more group, of a field that came in the middle of the log",
    "reshards": "shards split or merged",
    "key shards": "projections that were given key shards, or another number of them",
    "key shards of another number": "numbers of key shards changed midway",
    "epochs finished by another sequencer": "epochs that some shards had when the sequencer ended, finished by another one",
    "trimmed": "logs trimmed behind their archive",
    "trimmed midway": "projections whose log was trimmed behind their first commit",
    "vanished": "shards listed no more",
    "quiet": "shards of which the log holds nothing any more, though listed",
    "gaps": "logs trimmed past their archive: refused",
    "late replays": "replays that start late, judged for a row",
    "readers of Kinesis": "readers of Kinesis that came now and then, while shards fell silent, expired, split and merged",
    "readers refused": "of them refused, where nothing proved that nothing was lost",
    "readers that went on": "of them that were away for longer than the retention, and went on by evidence",
    "backdated": "labels stated before their admission",
    "links": "links and unlinks of keys that belong together",
    "entities of several keys": "keys asked for that belonged to an entity of several",
    "conflicts of links": "of them with a conflict: a circle, or one of several canonicals",
}


@dataclass
class Tried:
    """What came of some worlds: how many, what occurred in them, and of each that differed its seed and what did."""

    worlds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    differing: list[tuple[int, str]] = field(default_factory=list)


def try_worlds(server: str, name: str, seeds: Iterable[int], *, stop_at_first: bool = False) -> Tried:
    """Run worlds one after the other in a database of that name, made here and dropped."""
    tried = Tried()
    memory = Path("/dev/shm")
    with (
        WorldStore.on_server(server, name) as store,
        tempfile.TemporaryDirectory(prefix="ofp-worlds-", dir=memory if memory.is_dir() else None) as folder,
    ):
        for seed in seeds:
            world = make_world(seed)
            differing = _try_one(store, world, Path(folder) / "world", tried.counts)
            tried.worlds += 1
            tried.counts += occurred(world)
            tried.counts["with their log in PostgreSQL"] += world.dense
            if differing:
                tried.differing.append((seed, differing))
                if stop_at_first:
                    break
            if tried.worlds % _EMPTIED_AFTER == 0:
                store.empty()
    return tried


def _try_one(store: WorldStore, world: World, folder: Path, counts: Counter[str]) -> str:
    """What differs in a world, empty when nothing does. A plane that raises differs as well."""
    folder.mkdir()
    try:
        findings = try_world(store, world, folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder)
    counts += findings.counts
    return "; ".join(findings.differing)


def worlds_until_found(server: str, defect: Defect, first: int) -> int | None:
    """How many worlds it takes to see a planted defect; None when not even many show it."""
    with defect():
        tried = try_worlds(server, f"torture_defect_{os.getpid()}", range(first, first + _MOST_TRIED), stop_at_first=True)
    return tried.worlds if tried.differing else None


def torture(run: Run) -> None:
    """See the module."""
    first, count = run.seed * _SEEDS, run.count(WORLDS)
    # first what takes minutes: a suite that sees nothing need not run for an hour
    planted = list(DEFECTS.items())[: run.count(len(DEFECTS) * 100, least=2)]
    taken = {name: worlds_until_found(run.dsn, defect, first) for name, defect in planted}
    seeds = range(first, first + count)
    parts = [seeds] if count < _FEW else [seeds[place::_PROCESSES] for place in range(_PROCESSES)]
    if len(parts) == 1:
        found = [try_worlds(run.dsn, "torture_worlds", seeds)]
    else:
        with ProcessPoolExecutor(len(parts), mp_context=get_context("spawn")) as pool:
            names = [f"torture_worlds_{place}" for place in range(len(parts))]
            found = list(pool.map(try_worlds, [run.dsn] * len(parts), names, parts))
    counts = sum((one.counts for one in found), Counter())
    differing = sorted(pair for one in found for pair in one.differing)
    for seed, what in differing[:_SHOWN]:
        again = f"python -m ofp_platform_tests.torture.random_worlds.suite {seed}"
        print(f"world {seed}: {what[:2_000]}\n  again: {again}", flush=True)
    tried = sum(one.worlds for one in found)
    run.claim("Worlds in which online plane, offline plane and oracle agree", tried=tried, failed=len(differing), aim="0 failed")
    run.fact("  of them projected, served and read back through PostgreSQL", f"{tried:,}")
    run.fact("  of them with their log in PostgreSQL too (else in shards)", f"{counts['with their log in PostgreSQL']:,}")
    run.fact("  records, commits", f"{counts['records']:,}, {counts['commits']:,}")
    run.fact("  questions answered by all three, of them refused by all", f"{counts['questions']:,}, {counts['refusals']:,}")
    run.fact("  values, hashes and counts compared", f"{counts['comparisons']:,}")
    for name, words in _MUST_OCCUR.items():
        run.fact(f"  {words}", f"{counts[name]:,}", aim="some", reached=counts[name] > 0)
    missed = [name for name, worlds in taken.items() if worlds is None]
    run.claim("Planted defects that go unseen", tried=len(taken), failed=len(missed), aim="0 failed", of="planted")
    for name, worlds in taken.items():
        run.fact(f"  {name}", "not found" if worlds is None else f"found after {worlds} worlds")
    run.raw |= {"counts": dict(counts), "differing": differing, "worlds until a defect was found": taken}


SUITE = Suite("random_worlds", "Random worlds: online plane, offline plane and oracle on generated logs", torture)


def main() -> None:
    """Repeat worlds by their seeds; exit 1 when one differs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("seeds", nargs="+", type=int, metavar="SEED", help="as a failure printed it")
    parser.add_argument("--defect", choices=sorted(DEFECTS), help="with this defect planted")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ofp-worlds-") as folder:
        home = Path(folder) / "postgres"
        server = as_role(start_embedded(home), SUPERUSER)
        try:
            with DEFECTS[arguments.defect]() if arguments.defect else nullcontext():
                tried = try_worlds(server, "torture_worlds", arguments.seeds)
        finally:
            stop_embedded(home)
    for seed in arguments.seeds:
        world = make_world(seed)
        what = dict(tried.differing).get(seed)
        print(f"world {seed}: {len(world.records)} records, {len(world.views)} projections: {what or 'all agree'}")
    if tried.differing:
        sys.exit(1)


if __name__ == "__main__":
    main()
