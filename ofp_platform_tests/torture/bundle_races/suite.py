"""Racing promotions of bundles: processes that publish, approve, activate, roll back and retire at once, some of them killed."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from random import Random

from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.loop.bundle import BundleStep
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.torture.bundle_races.line import check_line
from ofp_platform_tests.torture.bundle_races.racers import POINTS, bundle, profile_of, race
from ofp_platform_tests.torture.kills.check import Checked
from ofp_platform_tests.torture.kills.victim_pool import Kill, VictimPool, seldom_hit
from ofp_platform_tests.torture.own_database import own_database
from ofp_platform_tests.torture.suite import Run, Suite

PROMOTIONS, KILLS = 10_000, 200
_ASKS, _LANES = 25, 3
_CONTROL_ROUNDS = 40


def warm() -> None:
    """Everything that racers need."""
    bundle(0)


def torture(run: Run) -> None:
    """See the rows."""
    rng = Random(run.seed)
    name = f"races-{run.seed}-{os.getpid()}"
    (run.folder / "objects").mkdir()
    with own_database(run.dsn) as dsn:
        profile = profile_of(name, str(run.folder / "objects"))
        outcomes, kills = _race(run, profile, dsn, rng)
        with Plane.open_without_log(profile, dsn) as plane:
            checked = check_line(plane)
        loose = profile_of(f"{name}-loose", str(run.folder / "objects"))
        collided, torn = _without_lock(loose, dsn, rng)
    _rows(run, outcomes, kills, checked)
    seen = f"{collided:,} steps refused by the key of the table, {torn:,} faults of the line"
    run.fact("control: found out is a registry whose line nobody holds", seen, aim="> 0", reached=collided + torn > 0)
    run.raw["outcomes"], run.raw["differences"] = dict(outcomes), checked.words


def _race(run: Run, profile: Profile, dsn: str, rng: Random) -> tuple[Counter[str], Counter[str]]:
    """Race until enough steps were asked for and enough racers killed; what came of the steps of those that lived, and kills."""
    wanted, wanted_kills = run.count(PROMOTIONS, 200), run.count(KILLS, 6)
    outcomes: Counter[str] = Counter()
    kills: Counter[str] = Counter()
    turns = count()
    seeds = [rng.randrange(2**32) for _ in range(_LANES)]
    with Plane.open_without_log(profile, dsn) as plane:
        plane.control_log(create=True)

    def lane(seed: int) -> None:
        own_rng = Random(seed)
        usual = 0.5
        with VictimPool(f"{__name__}:warm") as victims:
            while outcomes.total() < wanted or kills.total() < wanted_kills:
                turn = next(turns)
                kill = Kill()
                if turn % 3 and kills.total() < wanted_kills:
                    point = seldom_hit(POINTS, kills)
                    late = Kill(seconds=own_rng.uniform(0.0, 1.5 * usual))
                    kill = Kill(point, own_rng.randint(1, 4)) if not kills[point] or turn % 2 else late
                death = victims.run(race, profile, dsn, own_rng.randrange(2**32), turn // 4, _ASKS, kill=kill)
                if death.by:
                    kills[death.by] += 1
                else:
                    usual += 0.2 * (death.seconds - usual)
                    outcomes.update(death.result)

    with ThreadPoolExecutor(_LANES) as lanes:
        for future in [lanes.submit(lane, seed) for seed in seeds]:
            future.result()
    return outcomes, kills


def _without_lock(profile: Profile, dsn: str, rng: Random) -> tuple[int, int]:
    """Race without the lock, until it is found out; steps that collided, and faults of the line."""
    with Plane.open_without_log(profile, dsn) as plane:
        plane.control_log(create=True)
        for _ in range(_CONTROL_ROUNDS):
            with ThreadPoolExecutor(_LANES) as lanes:
                futures = [lanes.submit(race, profile, dsn, rng.randrange(2**32), 0, _ASKS, guarded=False) for _ in range(_LANES)]
                collided = sum(future.result()["collided"] for future in futures)
            torn = check_line(plane).failed.total()
            if collided or torn:
                break
    return collided, torn


def _rows(run: Run, outcomes: Counter[str], kills: Counter[str], checked: Checked) -> None:
    wanted, wanted_kills = run.count(PROMOTIONS, 200), run.count(KILLS, 6)
    asked = outcomes.total()
    run.fact("steps asked for by racers that lived", f"{asked:,}", aim=f">= {wanted:,}", reached=asked >= wanted)
    taken = {step: outcomes[step] for step in BundleStep}
    words = ", ".join(f"{step.value} {number:,}" for step, number in taken.items())
    run.fact("of these taken", words, aim="some of each", reached=all(number > 0 for number in taken.values()))
    hits = ", ".join(f"{point} {number:,}" for point, number in sorted(kills.items()))
    reached = kills.total() >= wanted_kills and all(kills[point] for point in POINTS)
    run.fact("racers killed", f"{kills.total():,}: {hits}", aim=f">= {wanted_kills:,}, at each point", reached=reached)
    for claim, name in (
        ("the history is one line: no gap, each step replaces what was in force", "line"),
        ("control says each step of the table, in its order, at its position, and no other", "control"),
        ("each step is a governance fact", "facts"),
        ("what is in force at every sequence is what a replay of the steps says", "resolution"),
        ("each bundle that was published has its object", "objects"),
    ):
        run.claim(claim, tried=checked.compared[name], failed=checked.failed[name], aim="0")


SUITE = Suite("bundle_races", "Racing promotions of bundles, some of them killed: one line of history", torture)
