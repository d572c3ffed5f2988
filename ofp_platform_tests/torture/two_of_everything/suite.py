"""Two of everything: projectors, archivers, builders and publishers in one another's way. One wins, the rest converge."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from ofp_platform_tests.oracle.labelled_plane import LabelledPlane
from ofp_platform_tests.torture.own_database import own_database
from ofp_platform_tests.torture.suite import Run, Suite
from ofp_platform_tests.torture.two_of_everything.archivers import fill, two_archivers
from ofp_platform_tests.torture.two_of_everything.builders import two_builders
from ofp_platform_tests.torture.two_of_everything.contenders import Contenders, pool_of
from ofp_platform_tests.torture.two_of_everything.projectors import two_projectors
from ofp_platform_tests.torture.two_of_everything.publications import publish_races
from ofp_platform_tests.torture.two_of_everything.stores import ServerUnavailable, moto, seaweedfs

NONE = "0 failed"
FOUND = "> 0"
CONTROL_ROUNDS = 10
INSTALL_FROM = 0.05  # of the full length on, what is missing is installed


class _Tally(Protocol):
    failed: int
    first: str


def torture(run: Run) -> None:
    """See the module."""
    rng = random.Random(run.seed)
    for name in ("archives", "overwritten", "published", "plain", "first"):
        (run.folder / name).mkdir()  # no object store makes what its own folder lies in
    with Contenders(3) as contenders:
        _projectors(run, contenders, rng)
        _archivers(run, contenders, rng)
        _builders(run, contenders, rng)
        _publications(run, contenders, rng)


def _projectors(run: Run, contenders: Contenders, rng: random.Random) -> None:
    with _database(run) as dsn:
        rounds = run.count(800, 4)
        tally = two_projectors(contenders, dsn, rounds, rng)
        run.claim("two projectors of one projection", tried=tally.rounds, failed=tally.failed, aim=NONE, of="rounds")
        run.fact(
            "... commits of one that the other had overtaken",
            f"{tally.conflicts:,} refused",
            aim=FOUND,
            reached=tally.conflicts > 0,
        )
        _first(run, tally)
        control = two_projectors(contenders, dsn, CONTROL_ROUNDS if rounds > CONTROL_ROUNDS else 3, rng, guarded=False)
        _control(run, "... without the compare-and-set of the version", control, control.rounds)
        run.raw["projectors"] = {"contended_rounds": tally.contended, "conflicts": tally.conflicts, "control": control.first}


def _archivers(run: Run, contenders: Contenders, rng: random.Random) -> None:
    rounds = run.count(500, 3)
    with _database(run) as one, _database(run) as other, ExitStack() as stack:
        fill(one, 7)
        fill(other, 8)
        places: list[tuple[str, str, str | None, int]] = [("a local folder", f"file://{run.folder}/archives", None, rounds)]
        places.append(("S3 (moto)", *stack.enter_context(moto()), max(1, rounds // 20)))
        for store, url, endpoint, count in places:
            same = two_archivers(contenders, [one], url, count, rng, endpoint=endpoint)
            run.claim(f"two archivers of one partition, {store}", tried=same.rounds, failed=same.failed, aim=NONE, of="rounds")
            _first(run, same)
            differ = two_archivers(contenders, [one, other], url, count, rng, endpoint=endpoint)
            claim = f"... of two logs that differ, {store}: ArchiveConflict for one"
            run.claim(claim, tried=differ.rounds, failed=differ.failed, aim=NONE, of="rounds")
            _first(run, differ)
        few = min(CONTROL_ROUNDS, rounds)
        control = two_archivers(contenders, [one, other], f"file://{run.folder}/overwritten", few, rng, guarded=False)
        _control(run, "... with a plain put instead of put-if-absent", control, control.rounds)


def _builders(run: Run, contenders: Contenders, rng: random.Random) -> None:
    folder = run.folder / "builders"
    folder.mkdir()
    with _database(run) as dsn:
        world = LabelledPlane.prepare(dsn, folder)
        world.plane.close()
        with own_database(run.dsn, copy_of=dsn) as other:
            rounds = run.count(150, 2)
            same = two_builders(contenders, [dsn], folder, rounds, rng)
            run.claim(
                "two builders of one intent that was submitted twice",
                tried=same.rounds,
                failed=same.failed,
                aim=NONE,
                of="rounds",
            )
            _first(run, same)
            apart = two_builders(contenders, [dsn, other], folder, rounds, rng)
            run.claim("two ledgers, one intent, one object store", tried=apart.rounds, failed=apart.failed, aim=NONE, of="rounds")
            _first(run, apart)
            control = two_builders(contenders, [dsn], folder, min(CONTROL_ROUNDS, rounds), rng, guarded=False)
            _control(run, "... without the lock of the run", control, control.rounds)
            pool_of(dsn).close()
            pool_of(other).close()


def _publications(run: Run, contenders: Contenders, rng: random.Random) -> None:
    count = run.count(10_000, 40)
    files = run.folder / "files"
    local = publish_races(contenders, f"file://{run.folder}/published", files, count, rng)
    run.claim("publish races at a local folder", tried=local.tried, failed=local.failed, aim=NONE)
    _first(run, local)
    run.claim(
        "... looked at meanwhile: a manifest without its files",
        tried=local.watched,
        failed=0 if not local.failed else local.failed,
        aim=NONE,
        of="datasets",
    )
    run.raw["races"] = local.races
    servers: list[tuple[str, AbstractContextManager[tuple[str, str]], int]] = [
        ("S3 (moto)", moto(), max(5, count // 40)),
        ("S3 (SeaweedFS)", seaweedfs(run.size >= INSTALL_FROM), max(5, count // 10)),
    ]
    for name, server, races in servers:
        try:
            with server as (url, endpoint):
                tally = publish_races(contenders, url, files, races, rng, endpoint=endpoint)
            run.claim(f"publish races at {name}", tried=tally.tried, failed=tally.failed, aim=NONE)
            _first(run, tally)
        except ServerUnavailable as error:
            run.fact(f"publish races at {name}", f"not measured: {error}")
    few = max(15, min(200, count // 10))
    kinds = ("object, other bytes", "dataset, other data")
    plain = publish_races(contenders, f"file://{run.folder}/plain", files, few, rng, guard="overwriting", kinds=kinds)
    _control(run, "... with a plain put instead of put-if-absent", plain, plain.tried)
    first = publish_races(
        contenders, f"file://{run.folder}/first", files, few, rng, guard="manifest first", kinds=("dataset, same data",)
    )
    _control(run, "... with the manifest put before its files", first, first.tried)


def _control(run: Run, claim: str, tally: _Tally, tried: int) -> None:
    """The check must fail here, or it could not be believed elsewhere."""
    run.fact(claim, f"{tally.failed:,} of {tried:,} found wrong", aim=FOUND, reached=tally.failed > 0)


def _first(run: Run, tally: _Tally) -> None:
    if tally.failed:
        run.fact("... the first of them", f"seed {run.seed}: {tally.first[:200]}")


@contextmanager
def _database(run: Run) -> Iterator[str]:
    """A database, and the pool that this process keeps of it closed before it goes."""
    with own_database(run.dsn) as dsn:
        try:
            yield dsn
        finally:
            pool_of(dsn).close()


SUITE = Suite("two_of_everything", "Two of everything: one wins, the rest converge", torture)
