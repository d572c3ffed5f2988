"""Builders and publishers that are killed: a dataset is published whole or not at all, once, and with the same content."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pyarrow.parquet as pq

from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.offline.datasets.dataset_verification import verify_dataset
from ofp_platform.offline.datasets.publication import LocalFile, load_manifest, name_files, publish_files, publish_manifest
from ofp_platform.offline.runs.builder import build
from ofp_platform.storage.crash_points import CRASH_POINTS
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest, manifest_path
from ofp_platform_tests.oracle.builder_process import build_run
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane
from ofp_platform_tests.oracle.published import published_manifests
from ofp_platform_tests.torture.kills.check import Checked
from ofp_platform_tests.torture.kills.victim_pool import Kill, VictimPool, seldom_hit

PUBLICATION = tuple(name for name in CRASH_POINTS if name.startswith("publication."))
BUILD = tuple(name for name in CRASH_POINTS if name.startswith("build."))
POINTS = (*BUILD, *PUBLICATION)
PUBLISHING = ("build.files_published", *PUBLICATION, "build.manifest_published")
FILES = 5
_PENDING_EVERY = 2


def publish(url: str, folder: str, manifest: DatasetManifest, manifest_first: bool = False) -> str:
    """Publish built files, and then the manifest; the other way round for the negative control. The manifest's digest."""
    objects = ObjectStore(url)
    if manifest_first:
        objects.put_if_absent(manifest_path(manifest.dataset_name, manifest.dataset_identity), manifest.encoded())
    publish_files(objects, manifest.files, Path(folder))
    return publish_manifest(objects, manifest).digest


@dataclass
class Builders:
    """Builds of one world, each under a name of its own, by builders that are killed. `digest`: of an undisturbed build."""

    world: LabelledPlane
    dsn: str
    victim_pool: VictimPool
    rng: Random
    kills: Counter[str] = field(default_factory=Counter)
    publisher_kills: Counter[str] = field(default_factory=Counter)
    checked: Checked = field(default_factory=Checked)
    digest: str = ""
    built: int = 0

    def __post_init__(self) -> None:
        run = build(self.world.build_context, self.world.build_context.ledger.submit(self.world.intent("undisturbed")).run_key)
        assert run.state is RunState.DONE, run.refusal
        self.undisturbed = next(published_manifests(self.world.objects, "undisturbed"))
        self.digest = self.undisturbed.content_digest
        self._usual = 0.5

    @property
    def total(self) -> int:
        """Kills of builders so far."""
        return sum(self.kills.values())

    def build_until(self, kills: int, kills_a_build: int) -> None:
        """Build one after the other until so many builders were killed, and at every point; no more than three times as many."""
        while self.total < kills or (self.total < 3 * kills and not all(self.kills[point] for point in BUILD)):
            self.build_one(kills_a_build)

    def build_one(self, kills: int) -> None:
        """One request, whose builder is killed at most so often before it may finish.

        Every few, the place of its publication is taken at first, so that what is killed is a publisher of a waiting build.
        """
        name = f"killed_{self.built}"
        self.built += 1
        build_context = self.world.build_context
        run = build_context.ledger.submit(self.world.intent(name))
        pending = self.built % _PENDING_EVERY == 0
        if pending:
            run = self._built_but_unpublished(name, run.run_key)
            self.checked.compare("publication pending", run.state, RunState.PUBLISH_PENDING, name)
        for number in range(kills):
            if number % 3 == 2:
                kill = Kill(seconds=self.rng.uniform(0.0, 1.2 * self._usual))
            else:
                kill = Kill(seldom_hit(PUBLISHING if pending else POINTS, self.kills))
            death = self.victim_pool.run(build_run, self.dsn, self.world.folder, run.run_key, kill=kill)
            self._await_the_lock(run.run_key)
            if death.by:
                self.kills[death.by] += 1
            else:
                self._usual += 0.3 * (death.seconds - self._usual)
            self._check_visible(name)
            run = build_context.ledger.show(run.run_key)
            if run.state is RunState.DONE:
                break
            if run.state is RunState.FAILED:  # its attempts are used up: somebody looks at it and lets it go on
                run = build_context.ledger.reopen(run.run_key)
        self._finish(name, run)

    def _built_but_unpublished(self, name: str, run_key: str) -> BuildRun:
        folder = self.world.objects.folder
        assert folder is not None
        obstacle = folder / "ofs" / "datasets" / name
        obstacle.touch()  # a file where a folder must be made
        run = build(self.world.build_context, run_key)
        obstacle.unlink()
        return run

    def _finish(self, name: str, run: BuildRun) -> None:
        if run.state is not RunState.DONE:
            run = build(self.world.build_context, run.run_key)
            if run.state is RunState.FAILED:
                run = build(self.world.build_context, self.world.build_context.ledger.reopen(run.run_key).run_key)
        self.checked.compare("builds done", run.state, RunState.DONE, f"{name}: {run.refusal}")
        manifests = list(published_manifests(self.world.objects, name))
        self.checked.compare("publications of a request", len(manifests), 1, name)
        for manifest in manifests:
            self.checked.compare("content", manifest.content_digest, self.digest, name)
            self.checked.compare("publication", [], verify_dataset(self.world.objects, manifest), name)
            self.checked.compare("outcome", (run.outcome or {}).get("manifest_digest"), manifest.digest, name)
        self.checked.compare("index", len(self.world.build_context.index.list(name)), 1, name)
        self.checked.compare("files left behind", self.world.build_context.run_folder(run.run_key).exists(), False, name)

    def _await_the_lock(self, run_key: str) -> None:
        """PostgreSQL learns of a death a moment after it; until then the run is held."""
        with self.world.plane.pool.connection() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('ofp.build_run/' || %s, 0))", (run_key,))

    def _check_visible(self, name: str) -> None:
        """Whole or absent: whatever has a manifest has all its bytes."""
        for manifest in published_manifests(self.world.objects, name):
            self.checked.compare("publication", [], verify_dataset(self.world.objects, manifest), name)

    def publish_often(self, count: int, folder: Path, *, manifest_first: bool = False) -> Checked:
        """Kill publishers of one dataset of several files, `count` times, each dataset until it is published."""
        checked = Checked()
        manifest = self._in_files(folder / "files")
        hits: Counter[str] = Counter()
        done = 0
        while hits.total() < count:
            objects = ObjectStore(f"file://{folder / f'store-{done}'}")
            published = False
            while not published:
                if hits.total() >= count:
                    kill = Kill()
                elif hits.total() % 2:
                    kill = Kill(seconds=self.rng.uniform(0.0, 0.03))
                else:
                    kill = Kill(seldom_hit(PUBLICATION, hits), 1 if manifest_first else self.rng.randint(1, FILES))
                death = self.victim_pool.run(publish, objects.url, str(folder / "files"), manifest, manifest_first, kill=kill)
                published = not death.by
                if death.by:
                    hits[death.by] += 1
                for one in published_manifests(objects):
                    checked.compare("publication", [], verify_dataset(objects, one), f"store {done}")
            found = load_manifest(objects, manifest.dataset_name, manifest.dataset_identity)
            checked.compare("publication", found.digest, manifest.digest, f"store {done}")
            expected = {file.path for file in manifest.files} | {manifest_path(found.dataset_name, found.dataset_identity)}
            checked.compare("objects of a publication", set(objects.list()), expected, f"store {done}")
            done += 1
        if not manifest_first:
            self.publisher_kills += hits
        return checked

    def _in_files(self, folder: Path) -> DatasetManifest:
        """The undisturbed dataset, cut into several files, and the manifest that names them."""
        folder.mkdir(parents=True)
        table = read_dataset(self.world.objects, self.undisturbed)
        size = -(-table.num_rows // FILES)
        files: list[LocalFile] = []
        for part in range(FILES):
            path = folder / f"part-{part:05d}.parquet"
            rows = table.slice(part * size, size)
            pq.write_table(rows, path)
            files.append(LocalFile(path, rows.num_rows))
        named = name_files(self.undisturbed.dataset_name, self.undisturbed.dataset_identity, files)
        return self.undisturbed.model_copy(update={"files": named})
