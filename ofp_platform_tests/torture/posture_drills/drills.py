"""Kills, one after the other, while the network between a decider and its database is parted, breaks connections, or is well."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Timer

import psycopg

from ofp_platform.online.plane import Plane
from ofp_platform.posture.challenge import challenge_deciders
from ofp_platform.posture.keeper import PostureKeeper
from ofp_platform.storage.postgres import connect
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform_tests.oracle.simulated_log import profile
from ofp_platform_tests.torture.faults.periods import through, upstream_of
from ofp_platform_tests.torture.faults.proxy import Fault, FaultProxy
from ofp_platform_tests.torture.posture_drills.toy_decider import toy_decider

PARTED, BREAKING, WELL = "parted", "breaking connections", "well"
_FAULTS = {PARTED: Fault.HALF_OPEN, BREAKING: Fault.RESET}
_LONGEST_FAULT, _LONGEST_PAUSE = 0.8, 0.05
_ANSWER_SECONDS = 30.0
# rows under a former mode are counted at the commit of each change: whatever is there later was committed behind it
_SCHEMA = (
    "CREATE TABLE public.drill_row (number bigint GENERATED ALWAYS AS IDENTITY, sequence bigint NOT NULL)",
    "CREATE INDEX ON public.drill_row (sequence)",
    "CREATE TABLE public.drill_count (sequence bigint PRIMARY KEY, former_rows bigint NOT NULL)",
    """
    CREATE FUNCTION public.count_former() RETURNS trigger LANGUAGE plpgsql VOLATILE AS $$ BEGIN
        INSERT INTO public.drill_count
            SELECT NEW.sequence, count(*) FROM public.drill_row WHERE drill_row.sequence = NEW.sequence - 1;
        RETURN NULL;
    END $$""",
    """
    CREATE CONSTRAINT TRIGGER count_former AFTER INSERT ON ofp.posture_change DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION public.count_former()""",
)
_SLIPPED = """
    SELECT coalesce(sum(now.former_rows - at_commit.former_rows), 0)::bigint, coalesce(sum(now.former_rows), 0)::bigint
    FROM public.drill_count AS at_commit CROSS JOIN LATERAL (
        SELECT count(*) AS former_rows FROM public.drill_row WHERE drill_row.sequence = at_commit.sequence - 1
    ) AS now"""


@dataclass
class Findings:
    """Of some drills. Seconds: `committed`, from a kill to its commit; `answered`, from the kill, or the end of the fault if
    that is later, to the first answer under the new mode. `slipped`: rows under a former mode behind the commit of a change, of
    `rows`.
    """

    drills: Counter[str] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    committed: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    unproved: int = 0
    rows: int = 0
    slipped: int = 0


def prepare(dsn: str) -> None:
    """The table of the toy's rows, and the trigger that counts them."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in _SCHEMA:
            connection.execute(statement)


def drill(dsn: str, folder: Path, drills: int, seed: int, *, holds: bool) -> Findings:
    """So many drills with one decider, in a migrated database of their own."""
    prepare(dsn)
    chance, findings = Random(seed), Findings()
    chosen = profile(folder, control_stream="control")
    with (
        Plane.open_without_log(chosen, dsn) as plane,
        FaultProxy(upstream_of(dsn), seed, dead_share=0.0) as proxy,
        connect(dsn, autocommit=True) as watcher,
    ):
        pins, control = chosen.context_pins, plane.control_log(create=True)
        keeper = PostureKeeper(plane.pool, control, pins, chosen.policy_rev, lambda: time.time_ns() // 1_000, "drill")
        keeper.hold(Mode.NORMAL, "before the first drill")
        with toy_decider(through(proxy, dsn), pins, holds=holds):
            for number in range(drills):
                _one(keeper, proxy, watcher, chance, findings, number)
        findings.faults = proxy.counts
        row = watcher.execute(_SLIPPED).fetchone()
        assert row is not None
        findings.slipped, findings.rows = row
    return findings


def _one(
    keeper: PostureKeeper,
    proxy: FaultProxy,
    watcher: psycopg.Connection[tuple[object, ...]],
    chance: Random,
    findings: Findings,
    number: int,
) -> None:
    kind = (PARTED, BREAKING, WELL)[number % 3]
    well_at = time.monotonic()
    timer: Timer | None = None
    if kind in _FAULTS:
        seconds = chance.uniform(0.0, _LONGEST_FAULT)
        proxy.disturb(_FAULTS[kind])
        timer = Timer(seconds, proxy.calm)
        timer.start()
        well_at += seconds
    time.sleep(chance.uniform(0.0, _LONGEST_PAUSE))
    killed_at = time.monotonic()
    keeper.hold(Mode.FAIL_CLOSED, f"drill {number}")
    findings.committed.append(time.monotonic() - killed_at)
    nonce = f"{chance.getrandbits(128):032x}"
    outcome = challenge_deciders(watcher, keeper.pins, nonce=nonce, actor="drill", wait_seconds=_ANSWER_SECONDS)
    findings.answered.append(max(0.0, time.monotonic() - max(killed_at, well_at)))
    findings.unproved += not outcome.is_proved
    if timer is not None:
        timer.join()
    findings.drills[kind] += 1
    keeper.hold(Mode.NORMAL, f"behind drill {number}")
