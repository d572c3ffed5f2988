"""The kill loop: projectors, archivers, builders, publishers, streamers are killed anywhere, and nothing shows of it later."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from ofp_platform.log.archive_reader import ReplayReader
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.port import RecordBatch
from ofp_platform.online.plane import Plane
from ofp_platform.storage.crash_points import CRASH_POINTS
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform_tests.audit.test_appending import POINTS as AUDIT_POINTS
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane
from ofp_platform_tests.torture.action_kills.suite import POINTS as ACTION_POINTS
from ofp_platform_tests.torture.bundle_races.racers import POINTS as BUNDLE_POINTS
from ofp_platform_tests.torture.kills import links, publisher, streamer
from ofp_platform_tests.torture.kills.archiver import check_without_guard, kill_archivers
from ofp_platform_tests.torture.kills.builder import Builders
from ofp_platform_tests.torture.kills.check import Checked, ledger, state_digests
from ofp_platform_tests.torture.kills.links import kill_graph_projectors
from ofp_platform_tests.torture.kills.projector import APPLY, CONTINUOUS, DAGSTER, SHARDED, Projectors
from ofp_platform_tests.torture.kills.publisher import kill_publishers
from ofp_platform_tests.torture.kills.replay import check_offline, check_oracle
from ofp_platform_tests.torture.kills.streamer import kill_streamers
from ofp_platform_tests.torture.kills.victim_pool import VictimPool
from ofp_platform_tests.torture.kills.world import DAY, DAYS, World, drop_database, make_world, registry
from ofp_platform_tests.torture.loop_kills.parts import OWN_POINTS as LOOP_POINTS
from ofp_platform_tests.torture.own_database import fresh_database
from ofp_platform_tests.torture.suite import Run, Suite

OWN_LOOPS = {*ACTION_POINTS, *BUNDLE_POINTS, *AUDIT_POINTS, *LOOP_POINTS}
"""Places that are killed at by suites and tests of their own."""
PAYMENTS = 1_000_000
PROJECTOR_KILLS = 3_000
DAGSTER_KILLS = 48
BUILDER_KILLS = 300
PUBLISHER_KILLS = 600
LINKS = 20_000
STREAMED_PAYMENTS = 20_000
PUBLISHED_PAYMENTS = 10_000
KILLS_A_BUILD = 5
CHECKPOINTS = 24
"""At least. Less event time passes between two of them than a projection remembers: every event is compared."""
CONTROL_PAYMENTS, CONTROL_KILLS = 1_000, 4
_PAGE = 20_000
_RESERVE = 8  # kills that there would be records for at the end


def warm_stores() -> None:
    """Everything that archivers, builders and publishers need: what this module imports, and what they would import late."""
    for name in ("pandas", "pyarrow.dataset"):
        importlib.import_module(name)


def warm_projectors() -> None:
    """Everything that projectors need, runs of Dagster among them."""
    registry()
    importlib.import_module("ofp_platform.orchestration.code_location")
    warm_stores()


@dataclass(frozen=True)
class Stores:
    """What became of archivers, builders and publishers. `unguarded`: of publishers that put the manifest first."""

    archiver_kills: Counter[str]
    archived: Checked
    builders: Builders
    published: Checked
    unguarded: Checked
    graph_kills: Counter[str]
    graph: Checked
    ingress_kills: Counter[str]
    ingress: Checked
    publish_kills: Counter[str]
    publishing: Checked


def torture(run: Run) -> None:
    """See the rows."""
    with (
        VictimPool(f"{__name__}:warm_projectors") as lane,
        VictimPool(f"{__name__}:warm_stores") as other_lane,
        _databases(run, "log", "builds", "control") as (log_dsn, builds_dsn, control_dsn),
    ):
        world = make_world(log_dsn, run.folder / "world", run.count(PAYMENTS, 1_500), run.seed, range_size=run.count(2_500, 250))
        with ThreadPoolExecutor(2) as lanes:
            folding = lanes.submit(_projectors, run, world, lane)
            storing = lanes.submit(_stores, run, world, builds_dsn, other_lane)
            projectors, stores = folding.result(), storing.result()
        with world.open() as plane:
            replayed, oracle = _folds(run, plane, projectors)
        torn, receipts_first, basis_first, records_first, forgotten = _controls(run, control_dsn, lane)
    _rows_of_kills(run, world, projectors, stores)
    _row_of_checkpoints(run, world, projectors)
    _rows_of_checks(run, projectors.checked, replayed, oracle, stores)
    _row_of_control(run, "a projector that commits chunks before the basis", torn, "state")
    _row_of_control(run, "an archiver that puts receipts before segments", receipts_first, "archive verified")
    _row_of_control(run, "a projector of links that commits the basis before them", basis_first, "links")
    _row_of_control(run, "a door that commits records before their receipts", records_first, "events of a world")
    _row_of_control(run, "a door that forgets what it was publishing", forgotten, "events of a world")
    _row_of_control(run, "a publisher that puts the manifest before the files", stores.unguarded, "publication")


# ---- what is done --------------------------------------------------------------------------------------------------------


@contextmanager
def _databases(run: Run, *names: str) -> Iterator[list[str]]:
    """Databases of this run alone."""
    own = [f"kill_{name}_{run.seed}_{os.getpid()}" for name in names]
    try:
        yield [fresh_database(run.dsn, name) for name in own]
    finally:
        for name in own:
            drop_database(run.dsn, name)


def _projectors(run: Run, world: World, victim_pool: VictimPool) -> Projectors:
    kills, dagster = run.count(PROJECTOR_KILLS, 24), run.count(DAGSTER_KILLS, 2)
    checkpoints = min(CHECKPOINTS, kills // 12)
    with world.open() as plane:
        drills = Projectors(world, plane, victim_pool, Random(run.seed))
        for number in range(checkpoints):
            done = kills * number // checkpoints
            drills.kill_dagster(dagster * (number + 1) // checkpoints - dagster * number // checkpoints)
            drills.kill_some(kills * (number + 1) // checkpoints - done, kills - done + _RESERVE)
            drills.checkpoint()
        drills.kill_where_nothing_died()
        drills.finish()
        drills.checkpoint()
    return drills


def _stores(run: Run, world: World, builds_dsn: str, victim_pool: VictimPool) -> Stores:
    rng = Random(run.seed + 1)
    folder = run.folder / "builds"
    folder.mkdir()
    (run.folder / "archive").mkdir()
    with world.open() as plane:
        kills, archived = kill_archivers(world, plane, victim_pool, run.folder / "archive", rng)
        labelled = LabelledPlane.prepare(builds_dsn, folder)
        try:
            builders = Builders(labelled, builds_dsn, victim_pool, rng)
            builders.build_until(run.count(BUILDER_KILLS, 8), KILLS_A_BUILD)
            published = builders.publish_often(run.count(PUBLISHER_KILLS, 8), run.folder / "published")
            unguarded = builders.publish_often(CONTROL_KILLS, run.folder / "manifest-first", manifest_first=True)
        finally:
            labelled.plane.close()
    graph_kills, graph = kill_graph_projectors(world, victim_pool, run.count(LINKS, 400), rng)
    ingress_kills, ingress = kill_streamers(world, victim_pool, run.folder / "ingress", run.count(STREAMED_PAYMENTS, 600), rng)
    publish_kills, publishing = kill_publishers(
        world, victim_pool, run.folder / "publishing", run.count(PUBLISHED_PAYMENTS, 400), rng
    )
    return Stores(
        kills,
        archived,
        builders,
        published,
        unguarded,
        graph_kills,
        graph,
        ingress_kills,
        ingress,
        publish_kills,
        publishing,
    )


def _folds(run: Run, plane: Plane, projectors: Projectors) -> tuple[Checked, Checked]:
    """The offline plane's fold of what the archivers archived, and the oracle's of what the log holds for some keys."""
    basis = ReplayBasis.up_to(plane.log.ends())
    archive = Archive(ObjectStore(f"file://{run.folder / 'archive' / 'killed'}"), plane.log.stream_name)
    with plane.pool.connection() as connection:
        taken = ledger(connection, projectors.killed)
        watermark = plane.row(projectors.killed).watermark or 0
        keys = sorted(state_digests(connection, projectors.killed, watermark - registry().reach))

    def records() -> Iterator[RecordBatch]:
        for span in basis.partitions:
            yield from ReplayReader(plane.log, archive).batches(span, _PAGE)

    replayed = check_offline(plane, records(), basis, projectors.checked.answers, taken, run.folder / "fold")
    some = run.count(12, 4)
    before = Random(run.seed + 2).randrange(plane.profile.allowed_lateness_us)
    return replayed, check_oracle(plane, records(), projectors.killed, keys, before, some, Random(run.seed + 3))


def _controls(run: Run, dsn: str, victim_pool: VictimPool) -> tuple[Checked, Checked, Checked, Checked, Checked]:
    """The same checks of the same work without its guards."""
    world = make_world(dsn, run.folder / "control", CONTROL_PAYMENTS, run.seed, range_size=100)
    with world.open() as plane:
        drills = Projectors(world, plane, victim_pool, Random(run.seed), torn=True)
        drills.kill_between_commits(CONTROL_KILLS)
        drills.checkpoint()
        receipts_first = check_without_guard(world, plane, victim_pool, run.folder / "control")
        basis_first = links.check_without_guard(world, victim_pool, Random(run.seed))
        records_first = streamer.check_without_guard(world, victim_pool, run.folder / "torn-ingress")
        forgotten = publisher.check_without_guard(world, victim_pool, run.folder / "forgotten-publishing")
        return drills.checked, receipts_first, basis_first, records_first, forgotten


# ---- what is said of it --------------------------------------------------------------------------------------------------


def _rows_of_kills(run: Run, world: World, projectors: Projectors, stores: Stores) -> None:
    summary = world.summary
    copies = summary.disturbances.duplicates + summary.disturbances.retries
    run.fact(
        "events in the log; copies; out of order",
        f"{world.records:,}; {copies:,}; {summary.out_of_order:,}",
        aim=f">= {run.count(PAYMENTS, 1_500):,}",
        reached=world.records >= run.count(PAYMENTS, 1_500) and min(copies, summary.out_of_order) > 0,
    )
    publishers = stores.builders.publisher_kills
    total = projectors.total + stores.archiver_kills.total() + stores.builders.total + publishers.total()
    total += stores.graph_kills.total() + stores.ingress_kills.total() + stores.publish_kills.total()
    wanted = run.count(PROJECTOR_KILLS, 24)
    run.fact("processes killed", f"{total:,}", aim=f">= {wanted:,}", reached=total >= wanted)
    for name, count in (
        ("projectors (plain apply)", projectors.hits(APPLY).total()),
        ("projectors (continuous driver)", projectors.hits(CONTINUOUS).total()),
        ("projectors (sequencers and key shards)", projectors.hits(SHARDED).total()),
        ("projectors (runs of Dagster)", projectors.hits(DAGSTER).total()),
        ("projectors of links", stores.graph_kills.total()),
        ("streamers of a world, with the door", stores.ingress_kills.total()),
        ("streamers of a world, with the door to a Kinesis", stores.publish_kills.total()),
        ("archivers", stores.archiver_kills.total()),
        ("builders and publishers of waiting builds", stores.builders.total),
        ("publishers", publishers.total()),
    ):
        run.fact(f"killed: {name}", f"{count:,}", aim="> 0", reached=count > 0)
    hits = stores.archiver_kills + stores.builders.kills + publishers + stores.graph_kills + stores.ingress_kills
    hits += stores.publish_kills
    for driver in (APPLY, CONTINUOUS, SHARDED, DAGSTER):
        hits += projectors.hits(driver)
    anywhere = hits.pop("time", 0)
    run.fact("killed at any moment, not at a named point", f"{anywhere:,}", aim="> 0", reached=anywhere > 0)
    places = [point for point in CRASH_POINTS if point not in OWN_LOOPS]
    for area in sorted({point.partition(".")[0] for point in places}):
        points = [point for point in places if point.startswith(f"{area}.")]
        seen = ", ".join(f"{point.partition('.')[2]} {hits[point]:,}" for point in points)
        run.fact(f"killed at every named point of {area}", seen, aim="each > 0", reached=all(hits[point] for point in points))
    run.raw["kills"] = {f"{driver} {by}": count for (driver, by), count in sorted(projectors.kills.items())}
    run.raw["points"] = {point: hits[point] for point in places}
    run.raw["finished_unkilled"] = dict(projectors.finished)


def _row_of_checkpoints(run: Run, world: World, projectors: Projectors) -> None:
    moments = [world.start, *projectors.watermarks]
    stretch = max(later - earlier for earlier, later in pairwise(moments)) / DAY
    memory = (registry().reach + world.profile.allowed_lateness_us) / DAY
    aimed = len(projectors.watermarks) > CHECKPOINTS  # a short run has too few
    run.fact(
        "most event time between two comparisons of the state",
        f"{stretch:.1f} days of {DAYS}, {len(projectors.watermarks)} comparisons",
        aim=f"< {memory:.0f} days" if aimed else "",
        reached=stretch < memory if aimed else None,
    )


def _rows_of_checks(run: Run, unkilled: Checked, replayed: Checked, oracle: Checked, stores: Stores) -> None:
    built = stores.builders.checked
    for claim, checked, names in (
        ("state == fold by a projector that nobody killed", unkilled, ("state", "basis", "watermark")),
        ("answers == those of a projector that nobody killed", unkilled, ("answer",)),
        ("nothing lost, nothing doubled: ledgers of the two", unkilled, ("ledger", "identity")),
        ("answers == their rebuild from the archive (offline plane)", replayed, ("answer",)),
        ("nothing lost, nothing doubled: ledger == fold of the archive", replayed, ("ledger",)),
        ("answers == the naive fold of the log (oracle)", oracle, ("oracle", "watermark")),
        ("graph of links == fold of their stream, each once", stores.graph, ("links", "ledger of links")),
        ("receipts of ingress balance, and agree with the log record by record", stores.ingress, ("receipts",)),
        ("each event of a sealed world is in the log once", stores.ingress, ("events of a world",)),
        (
            "receipts of what was published balance, none is left ambiguous",
            stores.publishing,
            ("receipts", "left ambiguous"),
        ),
        (
            "each event of a sealed world is once in a Kinesis whose answers get lost",
            stores.publishing,
            ("events of a world",),
        ),
        (
            "archive whole, without a gap, equal to the log",
            stores.archived,
            ("archive verified", "archive against log", "archive reaches the head", "receipts without a gap", "archived records"),
        ),
        ("archived objects == those of an archiver that nobody killed", stores.archived, ("archived object",)),
        ("publications of builders whole or absent", built, ("publication",)),
        ("a build ends once: one publication, the same content", built, ("publications of a request", "content", "builds done")),
        ("publications of publishers whole or absent", stores.published, ("publication", "objects of a publication")),
    ):
        run.claim(
            claim,
            tried=sum(checked.compared[name] for name in names),
            failed=sum(checked.failed[name] for name in names),
            aim="0",
        )
    everything = Checked()
    for one in (
        unkilled,
        replayed,
        oracle,
        stores.archived,
        built,
        stores.published,
        stores.graph,
        stores.ingress,
        stores.publishing,
    ):
        everything.take(one)
    run.claim("all comparisons", tried=everything.compared.total(), failed=everything.failed.total(), aim="0")
    run.raw["compared"] = dict(sorted(everything.compared.items()))
    if everything.words:
        run.raw["differences"] = everything.words
        run.fact("the first difference", everything.words[0])


def _row_of_control(run: Run, what: str, checked: Checked, name: str) -> None:
    found, of = checked.failed[name], checked.compared[name]
    run.fact(f"control: found out is {what}", f"{found:,} of {of:,} failed", aim="> 0", reached=found > 0)


SUITE = Suite("kill_loop", "Kill loop: SIGKILL anywhere, then state == fold(log[:basis])", torture)
