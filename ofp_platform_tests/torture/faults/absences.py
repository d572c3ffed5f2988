"""What is absent without a word: a server that takes no writes, a write that another one met, a head that no page reaches, a
background task that ended, a run whose machine is gone. Each must be waited out or said, and none taken for something fine.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import dagster as dg
import psycopg

from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.kinesis_shards import HeadNotReached
from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.continuous import CATCH_UP, holding, run_continuous
from ofp_platform.online.ranges.log_progress import observe
from ofp_platform.online.service.online_service import LISTENER, MONITOR, OnlineService
from ofp_platform.online.serving.posture import judge
from ofp_platform.online.serving.served_log import TASK
from ofp_platform.orchestration.online.sensors import new_offsets
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.vocabulary.position import make_basis
from ofp_platform_tests.log.conftest import FakeKinesis
from ofp_platform_tests.oracle.failover import set_read_only
from ofp_platform_tests.oracle.simulated_log import append, deliveries, profile, write_profile
from ofp_platform_tests.storage.test_objects import s3_with_conflicts
from ofp_platform_tests.torture.own_database import own_database
from ofp_platform_tests.torture.suite import Run

ENOUGH = 60.0
NONE = "0 failed"
PARTS = {MONITOR: ("monitor", "observe"), LISTENER: ("_listener", "listen_once"), TASK: ("served_log", "_store_waiting")}


def torture_absences(run: Run) -> None:
    """One row for each kind."""
    count = run.count(20)
    for claim, once in (
        ("a store that takes no writes, then takes them: seen, and waited out", partial(failover, run.folder)),
        ("catch-ups blocked by a run whose machine is gone", partial(dead_run, run.folder)),
        ("background tasks that ended unseen", partial(ended_tasks, run.folder)),
    ):
        with own_database(run.dsn) as dsn:
            run.claim(claim, tried=1, failed=not once(dsn), aim=NONE)
    conflicts = sum(not conflict(number % 5) for number in range(count))
    run.claim("writes that S3 answered with 409, taken for objects", tried=count, failed=conflicts, aim=NONE)
    pages = sum(not empty_pages(number) for number in range(count))
    run.claim("empty pages of Kinesis, taken for the head", tried=count, failed=pages, aim=NONE)


def _holds(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + ENOUGH
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def failover(folder: Path, dsn: str) -> bool:
    """Project, become read-only, be told of it, become writable, and go on; whether all of that came true."""
    (folder / "failover").mkdir()
    writable = psycopg.conninfo.make_conninfo(dsn, options="-c default_transaction_read_only=off")
    with Plane.open(profile(folder / "failover"), dsn) as plane, Plane.open(plane.profile, writable) as producer:
        row, stop, troubles = plane.ensure_live(), threading.Event(), list[str]()
        driver = partial(run_continuous, partial(plane.projector, row), plane.log, dsn, row.projection_id, batch_records=10_000)
        thread = threading.Thread(target=partial(driver, stop=stop, on_trouble=troubles.append))
        append(producer.log, deliveries().part(0, 100))
        thread.start()
        try:
            set_read_only(dsn, "on")
            append(producer.log, deliveries().part(100, 200))
            told = _holds(lambda: any("25006" in text for text in troubles))
            _, reasons = judge(observe(plane, row, stalled_seconds=0.0), plane.profile.thresholds)
            set_read_only(dsn, "off")
            applied = _holds(lambda: not sum(plane.log.ordinal_lag(plane.row(row.projection_id).basis).values()))
            return told and applied and "STORE_READ_ONLY" in reasons and thread.is_alive()
        finally:
            stop.set()
            thread.join()


def dead_run(folder: Path, dsn: str) -> bool:
    """Whether a catch-up is asked for beside a STARTED run that nothing is held for, and not beside one that holds."""
    (folder / "dead-run").mkdir()
    resource = PlaneResource(profile_source=str(write_profile(folder / "dead-run")), database_url=dsn)
    with resource.open() as plane, dg.DagsterInstance.ephemeral() as instance:
        row = plane.ensure_live()
        append(plane.log, deliveries().part(0, 100))
        lost = dg.DagsterRun(job_name="catch_up", run_id=str(uuid.uuid4()), status=dg.DagsterRunStatus.STARTED)
        instance.add_run(lost)
        context = partial(dg.build_sensor_context, instance=instance, resources={"plane": resource})
        with holding(dsn, row.projection_id, CATCH_UP):
            beside = new_offsets(context())
        return isinstance(beside, dg.SkipReason) and isinstance(new_offsets(context()), dg.SensorResult)


def ended_tasks(folder: Path, dsn: str) -> bool:
    """Whether each background task of the service that ends makes the posture RED, by its name."""
    (folder / "tasks").mkdir()
    chosen = profile(folder / "tasks")
    with Plane.open(chosen, dsn) as plane:
        append(plane.log, deliveries().part(0, 100))
        plane.projector(plane.ensure_live()).apply_available(max_records=1_000)
    return all(asyncio.run(_seen(OnlineService(chosen, dsn, connections=2), name)) for name in PARTS)


async def _seen(service: OnlineService, name: str) -> bool:
    async def fails() -> None:
        raise ZeroDivisionError("nobody expects it")

    await service.open()
    try:
        part, method = PARTS[name]
        with mock.patch.object(getattr(service, part), method, fails):
            with psycopg.connect(service._dsn, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                )
            if service.served_log is not None:
                service.served_log._answers_waiting.set()
            async with asyncio.timeout(ENOUGH):
                while service.tasks.running()[name] or not (await service.health()).reasons:  # told one turn after its end
                    await asyncio.sleep(0.02)
        return (await service.health()).reasons[0] == f"TASK_ENDED:{name}:ZeroDivisionError"
    finally:
        await service.close()


def conflict(conflicts: int) -> bool:
    """Whether an object is created behind so many conflicts."""
    with s3_with_conflicts(conflicts) as (store, objects):
        return store.put_if_absent("a", b"ours") and objects == {"/bucket/a": b"ours"}


def empty_pages(number: int) -> bool:
    """Whether what stands behind many empty pages is found, and no call takes longer than it may, or reports the head."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    client = FakeKinesis()
    log = KinesisLog.create(client, "s", 1, "payload.a", sleep=sleep, monotonic=lambda: now[0])  # type: ignore[arg-type]
    client.put("a", b"{}")
    client.empty_pages = 40 * number
    began = now[0]
    shard = next(iter(client.shards))
    if not log.wait(make_basis("s", {}), 1.0) and now[0] - began > 1.01:
        return False
    for _ in range(number + 1):
        try:
            return len(log.read(shard, None, 10).unreadable) == 1
        except HeadNotReached:
            continue
    return False
