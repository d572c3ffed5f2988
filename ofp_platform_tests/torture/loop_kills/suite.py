"""The kill loop of the loop: door, projector, decider, executor, cases, bundles and audit on one run, any of them killed."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random

from ofp_platform_tests.torture.kills.check import Checked
from ofp_platform_tests.torture.kills.victim_pool import Kill, VictimPool, seldom_hit
from ofp_platform_tests.torture.loop_kills.check import bring_to_rest, check_loop, plant_loss_and_double
from ofp_platform_tests.torture.loop_kills.parts import PARTS, decide, registry, send, take_in
from ofp_platform_tests.torture.loop_kills.site import Site, opened_site
from ofp_platform_tests.torture.own_database import own_database
from ofp_platform_tests.torture.suite import Run, Suite

KILLS = 20_000
_OF_A_RUN = 500
"""Kills between two checks, each of another run."""
_LEAST_KILLS = 25
_PAYMENTS_A_KILL = 12
_LEAST_PAYMENTS = 500
_MORE_RUNS = 4
"""Runs that may be needed beyond that, so that each point kills."""
POINTS = tuple(point for points in PARTS.values() for point in points)
_FRUITLESS = 40
"""Turns after each other in which nobody dies, before a run is taken for done."""
CLAIMS = (
    ("each event of a sealed world is in the log once, and its receipt", ("events of a world", "receipts")),
    ("the projection has applied each record of the log, once", ("places",)),
    ("each event has exactly one decision", ("decisions",)),
    ("each intent that a decision wants is there, and no other", ("intents",)),
    ("each intent was done exactly once, by the books of who did it", ("actions",)),
    ("each decision, intent and outcome is on its stream once", ("streams",)),
    ("each decision that is not an approval opened a case, once", ("cases",)),
    ("each label that was accepted is in the label store, once", ("labels",)),
    ("the steps of bundles are one line, and on control once each", ("bundles",)),
    ("the audit log verifies, and nothing is set aside", ("audit",)),
    ("the sums of the loop balance to the unit", ("sums",)),
)


def warm() -> None:
    """Everything that the killed need."""
    registry()
    importlib.import_module("httpx")
    importlib.import_module("ofp_platform_tests.torture.loop_kills.site")


def torture(run: Run) -> None:
    """See the rows."""
    rng = Random(run.seed)
    wanted = run.count(KILLS, _LEAST_KILLS)
    kills: Counter[str] = Counter()
    of_parts: Counter[str] = Counter()
    checked = Checked()
    control, number, most = Checked(), 0, wanted // _OF_A_RUN + _MORE_RUNS
    with VictimPool(f"{__name__}:warm") as victims, VictimPool(f"{__name__}:warm") as bystanders:
        while not control.compared and number < most:
            count = max(min(_OF_A_RUN, wanted - kills.total()), _LEAST_KILLS)
            name = f"loop-{number}"
            payments, seed = max(count * _PAYMENTS_A_KILL, _LEAST_PAYMENTS), rng.randrange(2**32)
            with own_database(run.dsn) as dsn, opened_site(dsn, run.folder / name, name, payments, seed) as (site, provider):
                _kill_some(site, victims, bystanders, count, rng, kills, of_parts)
                bring_to_rest(site)
                checked.take(check_loop(site, provider))
                if kills.total() >= wanted and all(kills[point] for point in POINTS):
                    plant_loss_and_double(site, provider)
                    control = check_loop(site, provider)
            number += 1
    _rows(run, kills, of_parts, checked, number)
    for what, name in (("a decision that is lost", "decisions"), ("an action that is done twice", "actions")):
        failed, compared = control.failed[name], control.compared[name]
        run.fact(f"control: found out is {what}", f"{failed:,} of {compared:,} failed", aim="> 0", reached=failed > 0)


def _kill_some(
    site: Site,
    victims: VictimPool,
    bystanders: VictimPool,
    wanted: int,
    rng: Random,
    kills: Counter[str],
    of_parts: Counter[str],
) -> None:
    """Kill so many children, and at each point, one part after the other, while a child of another part lives beside each."""
    parts = list(PARTS)
    usual = dict.fromkeys(parts, 0.5)
    died = fruitless = turn = 0
    with ThreadPoolExecutor(1) as lane:
        while fruitless < _FRUITLESS and (died < wanted or not all(kills[point] for point in POINTS)):
            part = parts[turn % len(parts)]
            beside = rng.choice([one for one in parts if one is not part])
            kill = _kill(part, usual[part], kills, rng)
            if decide in (part, beside):
                victims.run(take_in, site, 0)  # else it would wait for features of most events, in vain
            living = lane.submit(bystanders.run, beside, site, _amount(beside, rng))
            death = victims.run(part, site, _amount(part, rng), kill=kill)
            living.result()
            if death.by:
                kills[death.by] += 1
                of_parts[part.__name__] += 1
            else:
                usual[part] += 0.2 * (death.seconds - usual[part])
            died += bool(death.by)
            fruitless = 0 if death.by else fruitless + 1
            turn += 1


def _kill(part: Callable[..., None], usual: float, kills: Counter[str], rng: Random) -> Kill:
    """Each point comes first; then half by the clock, anywhere in what the child usually takes, and half at the point of the part
    that killed least."""
    unseen_point = next((point for point in PARTS[part] if not kills[point]), None)
    if unseen_point is not None:
        return Kill(unseen_point)
    if rng.random() < 0.5:
        return Kill(seconds=rng.uniform(0.0, 1.2 * usual))
    return Kill(seldom_hit(PARTS[part], kills), rng.randint(1, 2))


def _amount(part: Callable[..., None], rng: Random) -> int:
    """How much a child does: one batch of the door; rounds, cases or bundles of the others."""
    return 1 if part is send else rng.randint(1, 8)


def _rows(run: Run, kills: Counter[str], of_parts: Counter[str], checked: Checked, runs: int) -> None:
    wanted, total = run.count(KILLS, _LEAST_KILLS), kills.total()
    run.fact("children killed", f"{total:,}, in {runs:,} runs", aim=f">= {wanted:,}", reached=total >= wanted)
    by_part = ", ".join(f"{name} {count:,}" for name, count in sorted(of_parts.items()))
    run.fact("of these, by part", by_part, aim="some of each", reached=len(of_parts) == len(PARTS))
    hits = ", ".join(f"{point} {kills[point]:,}" for point in POINTS)
    run.fact("killed at points; the others by the clock", hits, aim="each", reached=all(kills[point] for point in POINTS))
    for claim, names in CLAIMS:
        tried, failed = sum(checked.compared[one] for one in names), sum(checked.failed[one] for one in names)
        run.claim(claim, tried=tried, failed=failed, aim="0")
    run.raw["differences"] = checked.words


SUITE = Suite(
    "loop_kills",
    "Kill loop of the loop: SIGKILL in any part of it, then nothing lost, nothing twice, whole chains",
    torture,
)
