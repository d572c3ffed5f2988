"""The kill loop of actions: executors side by side, killed anywhere, in front of a provider with bad habits."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.torture.action_kills.executors import Drill, check, record_and_act, settle_by_the_books
from ofp_platform_tests.torture.action_kills.provider import HABITS, Provider, serving
from ofp_platform_tests.torture.kills.check import Checked
from ofp_platform_tests.torture.kills.victim_pool import Kill, VictimPool, killed_until_done
from ofp_platform_tests.torture.kills.world import drop_database
from ofp_platform_tests.torture.own_database import fresh_database
from ofp_platform_tests.torture.suite import Run, Suite

INTENTS, KILLS = 1_000_000, 5_000
_OF_A_DRILL = 20_000
_LEAST_INTENTS, _LEAST_KILLS = 300, 10
_MOST_PASSAGES = 12
POINTS = ("action.claimed", "action.done", "action.recording", "action.recorded")
CLAIMS = (
    ("an intent that was recorded is there", ("intents lost",)),
    ("nothing is done twice", ("done twice",)),
    ("an outcome says what the provider's books say", ("outcome and books",)),
    ("what nobody knows is listed, and nothing else", ("unknown and not listed", "ended and listed as unknown")),
    ("ledger and stream say the same, each once", ("stream",)),
    ("settled by the books, everything ends", ("left at the end",)),
)


def warm() -> None:
    """Everything that the killed need."""
    importlib.import_module("ofp_platform_tests.torture.action_kills.executors")
    importlib.import_module("httpx")


def torture(run: Run) -> None:
    """See the rows."""
    name = f"action_kills_{run.seed}_{os.getpid()}"
    dsn = fresh_database(run.dsn, name)
    rng = Random(run.seed)
    intents, kills = run.count(INTENTS, _LEAST_INTENTS), run.count(KILLS, _LEAST_KILLS)
    deaths: Counter[str] = Counter()
    met: Counter[str] = Counter()
    checked = Checked()
    recorded = unknown = number = 0
    try:
        with VictimPool(f"{__name__}:warm") as lane, VictimPool(f"{__name__}:warm") as other_lane:
            while recorded < intents or deaths.total() < kills:
                count = min(_OF_A_DRILL, max(intents - recorded, _LEAST_INTENTS))
                wanted = max(_LEAST_KILLS // 2, round(KILLS / INTENTS * count / 2))
                provider = Provider(Random(rng.randrange(2**32)))
                with _drill(dsn, run.folder, f"killed-{number}", count, provider) as drill:
                    with ThreadPoolExecutor(2) as lanes:
                        work = [
                            lanes.submit(_kill, pool, drill, wanted, Random(rng.randrange(2**32))) for pool in (lane, other_lane)
                        ]
                        for part in work:
                            deaths += part.result()
                    found, of_drill = check(drill, provider)
                    checked.take(found)
                    checked.take(settle_by_the_books(drill, provider))
                recorded, unknown, number = recorded + count, unknown + of_drill, number + 1
                met += provider.met
            control = _without_asking(dsn, run, lane)
    finally:
        drop_database(run.dsn, name)
    hits = ", ".join(f"{point} {count:,}" for point, count in sorted(deaths.items()))
    run.fact("intents", f"{recorded:,}", aim=f">= {intents:,}", reached=recorded >= intents)
    run.fact("executors killed", f"{deaths.total():,}: {hits}", aim=f">= {kills:,}", reached=deaths.total() >= kills)
    run.fact(
        "habits of the provider",
        f"{sum(met[habit] for habit in HABITS):,}",
        aim="each",
        reached=all(met[habit] for habit in HABITS),
    )
    run.fact("unknown in the end, and settled by the books", f"{unknown:,}", aim="> 0", reached=unknown > 0)
    for claim, names in CLAIMS:
        tried, failed = sum(checked.compared[one] for one in names), sum(checked.failed[one] for one in names)
        run.claim(claim, tried=tried, failed=failed, aim="0")
    twice = control.failed["done twice"]
    seen = f"{twice:,} of {control.compared['done twice']:,} done twice"
    run.fact("control: found out is an executor that does not ask", seen, aim="> 0", reached=twice > 0)
    run.raw["differences"] = checked.words


def _kill(victim_pool: VictimPool, drill: Drill, wanted: int, rng: Random) -> Counter[str]:
    """Kill so many executors, or until nothing is left to do; then one lives until that is so."""
    passages = min(_MOST_PASSAGES, drill.count // 100)
    kills: Counter[str] = Counter()
    victims = killed_until_done(victim_pool, record_and_act, drill, points=POINTS, most_passages=passages, rng=rng)
    while kills.total() < wanted and (latest := next(victims, None)) is not None:
        kills = latest
    victim_pool.run(record_and_act, drill)
    return kills


def _without_asking(dsn: str, run: Run, victim_pool: VictimPool) -> Checked:
    """The same check of executors that try again without asking."""
    provider = Provider(Random(run.seed))
    with _drill(dsn, run.folder, "forgetful", _LEAST_INTENTS, provider, forgets=True) as drill:
        victim_pool.run(record_and_act, drill, kill=Kill("action.done", 5))
        victim_pool.run(record_and_act, drill)
        return check(drill, provider)[0]


@contextmanager
def _drill(dsn: str, folder: Path, name: str, count: int, provider: Provider, *, forgets: bool = False) -> Iterator[Drill]:
    """A run of its own, with a stream of decisions of its own, in front of the provider."""
    (folder / "objects").mkdir(exist_ok=True)
    profile = Profile(
        profile_name="actions",
        stream_name=f"{name}-payments",
        control_stream=f"{name}-control",
        decisions_stream=f"{name}-decisions",
        partition_key="payload.account_id",
        context_pins=ContextPins(scenario_id="actions", run_id=name, manifest_fingerprint="0" * 64, parameter_hash="1" * 64),
        pack="card_payments",
        object_store_url=f"file://{folder}/objects",
    )
    with Plane.open_without_log(profile, dsn) as plane:
        plane.decisions_log(create=True)
    with serving(provider) as address:
        yield Drill(profile, dsn, address, count, forgets)


SUITE = Suite(
    "action_kills", "Kill loop of actions: SIGKILL anywhere, a provider with bad habits, then each intent done once", torture
)
