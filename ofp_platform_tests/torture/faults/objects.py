"""Faults between the archiver and builders and their stores, S3 or PostgreSQL.

Each period archives a whole log into a folder of its own, and builds datasets there from their plan to their manifest. At every
moment what is published is whole; at the end it is what an undisturbed builder publishes, digest by digest.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import boto3
import psycopg
from psycopg_pool import PoolTimeout

from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.port import LogUnavailable
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.offline.datasets.dataset_verification import verify_dataset
from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.builder import build
from ofp_platform.offline.runs.run_lease import LeaseLost
from ofp_platform.storage import objects
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.build_run import BuildRun, RunState
from ofp_platform.vocabulary.position import OffsetKind
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane
from ofp_platform_tests.oracle.published import published_manifests
from ofp_platform_tests.torture.faults.periods import (
    PATIENCE_SECONDS,
    RECOVERY_SECONDS,
    Findings,
    Worker,
    disturbed,
    impatient,
    persist,
    schedule,
    through,
    title,
    upstream_of,
)
from ofp_platform_tests.torture.faults.proxy import Fault, FaultProxy
from ofp_platform_tests.torture.own_database import fresh_database

BUCKET = "faults"
ANSWER_SECONDS = 2.0
PASSING = (ObjectStoreUnavailable, LogUnavailable, PoolTimeout, psycopg.OperationalError, psycopg.InterfaceError, LeaseLost)
Digests = dict[str, str]


@contextmanager
def aws() -> Iterator[tuple[str, int]]:
    """Where a moto server listens, S3 and Kinesis, with credentials that only it accepts."""
    from moto.server import ThreadedMotoServer

    credentials = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with mock.patch.dict("os.environ", credentials):
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # cut requests make it log stack traces
        try:
            yield server.get_host_and_port()
        finally:
            server.stop()
            server._server.server_close()


class Publishing:
    """A log with labels, and whoever archives and builds from it by way of two proxies."""

    def __init__(self, server: str, aws_at: tuple[str, int], folder: Path, seed: int) -> None:
        self.stack = ExitStack()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.endpoint = f"http://{aws_at[0]}:{aws_at[1]}"
        dsn = fresh_database(server, f"faults_publishing_{seed:x}")
        self.world = LabelledPlane.prepare(dsn, folder)
        self.stack.callback(self.world.plane.close)
        self.objects = self.stack.enter_context(FaultProxy(aws_at, seed + 1))
        self.store = self.stack.enter_context(FaultProxy(upstream_of(server), seed + 2))
        self.pool = self.stack.enter_context(open_pool(through(self.store, dsn), max_size=4))
        self.log = PostgresLog.open(self.pool, self.world.plane.profile.stream_name)
        with closing(boto3.client("s3", endpoint_url=self.endpoint)) as client:
            client.create_bucket(Bucket=BUCKET)
        run = build(self.world.build_context, self.world.build_context.ledger.submit(self.world.intent("undisturbed")).run_key)
        assert run.outcome is not None, run.refusal
        self.content_digest = str(run.outcome["content_digest"])
        self.archived = _archived(self.world.build_context.archive)
        self.periods = 0

    def close(self) -> None:
        """Stop the proxies and disconnect."""
        self.stack.close()

    def period(self, disturbs: FaultProxy, planned: list[list[Fault]], seconds: float, findings: Findings) -> None:
        """One disturbed period on one of the ways, and its end."""
        findings.periods += 1
        self.periods += 1
        name = title(findings.periods, planned)
        url = f"s3://{BUCKET}/period-{self.periods}"
        seen = ObjectStore(url, endpoint=self.endpoint)
        far = ObjectStore(url, endpoint=f"http://127.0.0.1:{self.objects.port}")
        build_context = BuildContext(self.pool, self.log, far, self.folder / "scratch")
        deadline = time.monotonic() + seconds + PATIENCE_SECONDS * len(planned[0]) + RECOVERY_SECONDS
        runs: list[BuildRun] = []
        during = threading.Event()
        during.set()
        working = Worker(lambda: self._publish(build_context, runs, during, deadline), "publisher")
        for _ in disturbed((disturbs,), planned, seconds):
            findings.wrong += [f"{name}: meanwhile, {text}" for text in self._halves(seen)]
            time.sleep(0.1)
        during.clear()
        well = time.monotonic()
        if not working.join(RECOVERY_SECONDS) or working.error is not None:
            findings.hung.append(f"{name}: {working.error or 'the builder hangs'!r}")
            return
        findings.recovery_seconds.append(time.monotonic() - well)
        findings.wrong += [f"{name}: {text}" for text in [*self._halves(seen), *self._differences(seen, runs)]]

    def _publish(self, build_context: BuildContext, runs: list[BuildRun], during: threading.Event, deadline: float) -> None:
        """Archive everything and build a dataset, and then others as long as `during` is set."""
        ranges = OffsetRanges(self.pool, self.log, self.world.plane.profile.range_size)
        persist(lambda: archive_up_to(ranges, build_context.archive, self.log.ends()), PASSING, deadline)
        while not runs or during.is_set():
            runs.append(self._built(build_context, f"set_{self.periods}_{len(runs)}", deadline))

    def _built(self, build_context: BuildContext, dataset_name: str, deadline: float) -> BuildRun:
        intent = self.world.intent(dataset_name)
        run = persist(lambda: build_context.ledger.submit(intent), PASSING, deadline)
        while run.state is not RunState.DONE:
            if run.state is RunState.FAILED:
                assert run.refusal is not None
                if run.refusal.reason not in (BuildReason.STORE_UNAVAILABLE, BuildReason.ATTEMPTS_EXHAUSTED):
                    raise BuildRefused(run.refusal.reason, run.refusal.message)
                persist(partial(build_context.ledger.reopen, run.run_key), PASSING, deadline)
            run = persist(partial(build, build_context, run.run_key), PASSING, deadline)
            if time.monotonic() > deadline:
                raise TimeoutError(f"run {run.run_key[:12]} is {run.state.value}: {run.refusal}")
        return run

    def _halves(self, store: ObjectStore) -> list[str]:
        """Publications that are there, and not whole."""
        found = [text for manifest in published_manifests(store) for text in verify_dataset(store, manifest)]
        digests = _archived(Archive(store, self.log.stream_name))
        return found + [f"archived {span} with other records" for span in digests if digests[span] != self.archived[span]]

    def _differences(self, store: ObjectStore, runs: list[BuildRun]) -> list[str]:
        """What an undisturbed builder would have published otherwise."""
        found = []
        for run in runs:
            assert run.outcome is not None
            manifest = load_manifest(store, run.outcome["dataset_name"], run.outcome["dataset_identity"])
            if manifest.content_digest != self.content_digest:
                found.append(f"dataset {manifest.dataset_name} has other content")
        if _archived(Archive(store, self.log.stream_name)) != self.archived:
            found.append("the archive is not whole")
        return found


def _archived(archive: Archive) -> Digests:
    """The content digest of each archived span; its segment is read, and its bytes are checked, on the way."""
    found = {}
    for partition in archive.partition_ids():
        for receipt in archive.receipts(partition, OffsetKind.EXCLUSIVE_NEXT):
            archive.segment(receipt)
            found[receipt.segment_path] = receipt.content_digest
    return found


def torture_publishing(server: str, aws_at: tuple[str, int], folder: Path, seed: int, periods: int) -> dict[str, Findings]:
    """So many periods with the one store disturbed, and with the other, in one world."""
    found = {"S3": Findings(), "PostgreSQL": Findings()}
    chance = random.Random(seed)
    with impatient(), mock.patch.object(objects, "ANSWER_SECONDS", ANSWER_SECONDS):
        world = Publishing(server, aws_at, folder / "publishing", seed)
        try:
            for (store, findings), proxy in zip(found.items(), (world.objects, world.store), strict=True):
                for planned in schedule(seed, periods, 1):
                    world.period(proxy, planned, chance.uniform(0.5, 2.0), findings)
                findings.injected(store, proxy)
        finally:
            world.close()
    return found
