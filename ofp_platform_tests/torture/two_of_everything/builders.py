"""Two builders of one intent: submitted twice it is one run, built once; built in two places it is one dataset."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

from ofp_platform.offline.datasets.dataset_verification import verify_dataset
from ofp_platform.offline.runs import run_ledger
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.builder import build
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.online.plane import Plane
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.profile import load_profile
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane
from ofp_platform_tests.oracle.published import published_manifests
from ofp_platform_tests.torture.two_of_everything.contenders import Contenders, pool_of


@dataclass(frozen=True)
class Built:
    """What one builder was told: the key of the run, and what ended it other than the end of the build."""

    run_key: str
    error: str = ""


@dataclass
class Tally:
    """Rounds, those in which the check found something, and what it found first."""

    rounds: int = 0
    failed: int = 0
    first: str = ""


def submit_and_build(dsn: str, folder: str, scratch: str, dataset_name: str, guarded: bool) -> Built:
    """Submit the intent and build whatever run that is: what one contender does."""
    world = _world(dsn, folder)
    build_context = BuildContext(world.plane.pool, world.plane.log, world.objects, Path(folder) / scratch)
    lock = run_ledger._LOCK if guarded else "SELECT %s::text IS NOT NULL"
    run_key = ""
    with mock.patch.object(run_ledger, "_LOCK", lock):
        try:
            run_key = build_context.ledger.submit(world.intent(dataset_name)).run_key
            build(build_context, run_key)
        except Exception as error:
            return Built(run_key, f"{type(error).__name__}: {error}")
    return Built(run_key)


def two_builders(
    contenders: Contenders, dsns: list[str], folder: Path, rounds: int, rng: random.Random, *, guarded: bool = True
) -> Tally:
    """Build one dataset a round. Contender i asks in database `dsns[i % len(dsns)]`, all publish in one object store.

    `folder` holds the profile; what is in the databases was made by `LabelledPlane.prepare`.
    """
    tally = Tally()
    objects = ObjectStore(load_profile(folder / "profile.yaml").object_store_url)
    for _ in range(rounds):
        name = f"raced_{rng.getrandbits(64):016x}"
        given = []
        for number in range(2):
            database = number % len(dsns)
            given.append((dsns[database], str(folder), f"builds-{database}", name, guarded))
        found = contenders.race(submit_and_build, given)
        problem = _problem(objects, dsns, name, found)
        tally.rounds += 1
        tally.failed += problem != ""
        tally.first = tally.first or problem
    return tally


def _problem(objects: ObjectStore, dsns: list[str], name: str, found: list[Built]) -> str:
    """What is wrong with what the builders left; empty when it is what one builder would have left."""
    for one in found:
        if one.error:
            return one.error
    if len({one.run_key for one in found}) != 1:
        return "one intent has two runs"
    digests = set()
    for dsn in dsns:
        ledger = RunLedger(pool_of(dsn))
        run = ledger.show(found[0].run_key)
        if run.state is not RunState.DONE or run.outcome is None:
            return f"the run is {run.state.value}: {run.refusal}"
        if run.attempts != 1:
            return f"the run was built {run.attempts} times"
        stages = [receipt.stage for receipt in ledger.receipts(run.run_key)]
        if len(set(stages)) != len(stages):
            return f"stages were recorded twice: {stages}"
        digests.add(run.outcome["manifest_digest"])
    manifests = list(published_manifests(objects, name))
    if len(manifests) != 1 or digests != {manifests[0].digest}:
        return f"{len(manifests)} manifests are published, {len(digests)} are recorded"
    problems = verify_dataset(objects, manifests[0])
    return problems[0] if problems else ""


@cache
def _world(dsn: str, folder: str) -> LabelledPlane:
    """The plane as this process has it, kept from race to race."""
    return LabelledPlane(Plane.open(load_profile(Path(folder) / "profile.yaml"), dsn, max_connections=4), Path(folder))
