"""How often projector, service and archiver together ask Kinesis: it answers five reads a second and shard, of everybody."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.log.archive_keeping import keep_up
from ofp_platform.log.kinesis import KinesisLog, kinesis_client
from ofp_platform.log.shard_evidence import StoredEvidence
from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.continuous import run_continuous
from ofp_platform.online.service.counters import Counters
from ofp_platform.online.service.projection_monitor import ProjectionMonitor
from ofp_platform_tests.oracle.simulated_log import append, deliveries, profile

SECONDS = 60
ALLOWED = 5.0
LIVE = 100
"""Deliveries that come while everybody runs."""


class Day:
    """A clock that moves while somebody sleeps; things happen at its seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.each_second: list[Callable[[int], None]] = []
        self._happening = False

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while not self._happening and int(self.now) < int(until):
            self.now = float(int(self.now) + 1)
            self._happening = True
            for happen in self.each_second:
                happen(int(self.now))
            self._happening = False
        self.now = max(self.now, until)


@contextmanager
def plane_of(
    name: str, day: Day, calls: Counter[tuple[str, str]], who: str, folder: Path, dsn: str, endpoint: str
) -> Iterator[Plane]:
    client = kinesis_client(endpoint)
    reads = ("GetRecords", "GetShardIterator", "ListShards", "DescribeStream", "DescribeStreamSummary")

    def count(model: Any, **_: Any) -> None:
        if model.name in reads:
            calls[who, model.name] += 1

    client.meta.events.register("before-call.kinesis", count)
    with Plane.open(profile(folder), dsn) as plane:
        evidence = StoredEvidence(plane.pool, name)
        plane.opened_log = KinesisLog(
            client, name, "payload.account_id", evidence=evidence, sleep=day.sleep, monotonic=lambda: day.now
        )
        yield plane


@pytest.mark.parametrize("shards", [1, 4])
def test_all_readers_together_stay_within_what_a_shard_answers(dsn: str, tmp_path: Path, moto_server: str, shards: int) -> None:
    name = f"calls-{dsn.partition('/t_')[2][:12]}"
    day, calls, stop = Day(), Counter[tuple[str, str]](), threading.Event()
    KinesisLog.create(kinesis_client(moto_server), name, shards, "payload.account_id", sleep=lambda _: None).close()
    lags: list[int] = []
    with ExitStack() as stack:
        projecting, serving, archiving = (
            stack.enter_context(plane_of(name, day, calls, who, tmp_path, dsn, moto_server))
            for who in ("projector", "service", "archiver")
        )
        row = projecting.ensure_live()
        monitor = ProjectionMonitor(serving, row, serving.profile.thresholds, Counters(), monotonic=lambda: day.now)

        def append_some(second: int) -> None:
            if second <= LIVE // 2:
                append(projecting.log, deliveries().part(2 * (second - 1), 2 * second))

        def serve(_: int) -> None:
            lags.append(monitor.read_observation().lag_records)

        def archive(second: int) -> None:
            if second % 30 == 0:
                keep_up(archiving.ranges, archiving.archived_log, archiving.archive)

        def end(second: int) -> None:
            if second == SECONDS:
                stop.set()

        day.each_second += [append_some, serve, archive, end]
        receipts: list[int] = []
        run_continuous(
            partial(projecting.projector, row),
            projecting.log,
            projecting.dsn,
            row.projection_id,
            batch_records=10_000,
            stop=stop,
            on_commit=lambda receipt: receipts.append(receipt.records),
        )
        assert sum(receipts) == LIVE
        assert sum(projecting.log.ordinal_lag(projecting.row(row.projection_id).basis).values()) == 0
    per_shard = {operation: calls[operation] / SECONDS / shards for operation in calls}
    assert sum(per_shard.values()) <= ALLOWED, per_shard
    # what all consumers of a shard share; the rest has bounds of its own
    assert sum(rate for (_, operation), rate in per_shard.items() if operation == "GetRecords") <= ALLOWED / 2, per_shard
    assert per_shard.get(("service", "GetRecords"), 0) <= 0.1, per_shard
    assert len(lags) == SECONDS
    assert lags[-1] == 0
