"""Two projectors of one projection: every record is applied once, by one of them, and the state is that of one alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest import mock

from ofp_platform.online.projecting import projector as projector_module
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.online.state.projection import ProjectionConflict, ProjectionRow, read_projection
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.position import basis_text
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND, START
from ofp_platform_tests.torture.two_of_everything.contenders import Contenders, pool_of

KEYS = [("account", "a-1"), ("account", "a-2"), ("merchant", "m-1")]
GROUPS = [("ratios", "v2"), ("shop", "v1")]
EVENTS = 60
RETAINED = 20
"""Seconds that the small plane keeps behind its watermark."""


@dataclass(frozen=True)
class Commits:
    """What one projector committed: (version, basis before, basis after, records) each; how often it lost; what ended it."""

    made: tuple[tuple[int, str, str, int], ...]
    conflicts: int
    error: str = ""


@dataclass
class Tally:
    """Rounds, those in which the check found something, what it found first, and how often a projector lost."""

    rounds: int = 0
    failed: int = 0
    first: str = ""
    conflicts: int = 0
    contended: int = 0


def project(dsn: str, stream_name: str, partitions: int, seed: int, guarded: bool) -> Commits:
    """Apply the stream in small commits until nothing is left: what one contender does."""
    plane = SmallPlane(pool_of(dsn), stream_name, partitions=partitions, chunk_events=4, span_chunks=2)
    rng = random.Random(seed)
    projector = plane.projector()
    made: list[tuple[int, str, str, int]] = []
    conflicts = 0
    reading: Callable[..., ProjectionRow] = read_projection if guarded else _blind(projector)
    with mock.patch.object(projector_module, "read_projection", reading):
        while True:
            try:
                receipt = projector.apply_available(max_records=rng.randint(1, 9))
            except ProjectionConflict:
                conflicts += 1
                continue
            except Exception as error:
                return Commits(tuple(made), conflicts, f"{type(error).__name__}: {error}")
            if receipt is None:
                return Commits(tuple(made), conflicts)
            before, after = basis_text(receipt.basis_before), basis_text(receipt.basis_after)
            made.append((receipt.version, before, after, receipt.records))
            if rng.random() < 0.5:
                projector.forget()  # as slow as who was overtaken, so that neither is ahead for good


def two_projectors(contenders: Contenders, dsn: str, rounds: int, rng: random.Random, *, guarded: bool = True) -> Tally:
    """Let two contenders project one stream after another, and check each."""
    tally = Tally()
    pool = pool_of(dsn)
    for _ in range(rounds):
        stream = f"raced-{rng.getrandbits(64):016x}"
        partitions = rng.randint(1, 2)
        plane = SmallPlane(pool, stream, partitions=partitions, chunk_events=4, span_chunks=2)
        seconds = RETAINED * rng.randint(1, 2)
        plane.append(_events(rng, seconds), [rng.randint(0, 1) for _ in range(EVENTS)])
        seeds = [rng.getrandbits(32) for _ in range(2)]
        found = contenders.race(project, [(dsn, stream, partitions, seed, guarded) for seed in seeds])
        problem = _problem(pool, plane, found, seconds)
        tally.rounds += 1
        tally.failed += problem != ""
        tally.first = tally.first or problem
        tally.conflicts += sum(one.conflicts for one in found)
        tally.contended += all(one.made for one in found)
    return tally


def _events(rng: random.Random, seconds: int) -> list[dict[str, Any]]:
    """Payments of two accounts within some seconds, in disorder and with copies."""
    events = []
    for _ in range(EVENTS):
        number = rng.randrange(EVENTS * 3 // 4)
        of_number = random.Random(number)  # a copy is the same event
        account = f"a-{of_number.randint(1, 2)}"
        moment = of_number.randrange(seconds) * SECOND
        events.append(payment(f"e-{number}", moment, account_id=account, amount=of_number.randint(1, 99)))
    return events


def _problem(pool: Pool, plane: SmallPlane, found: list[Commits], seconds: int) -> str:
    """What is wrong with what the projectors did together; empty when one alone would have done the same."""
    for one in found:
        if one.error:
            return one.error
    chain = sorted(commit for one in found for commit in one.made)
    if [version for version, *_ in chain] != list(range(1, len(chain) + 1)):
        return f"the commits have versions {[version for version, *_ in chain]}"
    for earlier, later in pairwise(chain):
        if earlier[2] != later[1]:
            return f"commit {later[0]} does not begin where commit {earlier[0]} ended"
    row = plane.row()
    if row.basis != plane.log.ends():
        return "the basis is not the end of the log"
    with pool.connection() as connection:
        totals = connection.execute(
            "SELECT sum(records), sum(applied) FROM ofp.projection_partition WHERE projection_id = %s", (plane.projection_id,)
        ).fetchone()
    events = len(plane.known(row.basis).events)
    # of events behind the horizon identities are forgotten too: a copy of such a one may count as another that is late
    if totals is None or totals[0] != EVENTS or totals[1] < events or (seconds <= RETAINED and totals[1] > events):
        return f"{totals} records and events are counted, the log has {EVENTS} records of {events} events"
    try:
        for second in (0, seconds // 2, seconds):
            plane.check(KEYS, GROUPS, START + second * SECOND)
    except AssertionError as error:
        return f"the state is not the fold of the log: {error}"
    return ""


def _blind(projector: Projector) -> Callable[..., ProjectionRow]:
    """The guard taken away: whatever version is stored, it is the one that the batch continues."""

    def read(connection: Any, projection_id: int, *, for_update: bool = False) -> ProjectionRow:
        stored = read_projection(connection, projection_id, for_update=for_update)
        held = projector._row
        if not for_update or held is None:
            return stored
        object.__setattr__(held, "version", stored.version)  # frozen; the next version is counted from it
        return stored

    return read
