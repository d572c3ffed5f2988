"""The continuous driver: who holds a projection, what it waits out, and what ends it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.continuous import (
    LEADER,
    _tell_lag,
    driver_died,
    holding,
    holds_projection,
    lag_of_driver,
    run_continuous,
)
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.online.service.counters import Counters
from ofp_platform.online.service.projection_monitor import ProjectionMonitor
from ofp_platform.online.state.projection import make_live
from ofp_platform_tests.oracle.failover import set_read_only
from ofp_platform_tests.oracle.simulated_log import append, deliveries, profile

SPACE = 0x6F6670
ENOUGH = 30.0
"""Seconds after which a test gives up; nothing waits that long when all is well."""


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds: a server ends a session some time after its client has gone."""
    deadline = time.monotonic() + ENOUGH
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_driver_in_another_database_holds_nothing_here(dsn: str, module_dsn: str, tmp_path: Path) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        number = plane.ensure_live().projection_id
        with psycopg.connect(module_dsn, autocommit=True) as elsewhere:
            elsewhere.execute("SELECT pg_advisory_lock_shared(%s, %s)", (SPACE, number))
            assert not holds_projection(plane.pool, number)
        with psycopg.connect(dsn, autocommit=True) as here:
            here.execute("SELECT pg_advisory_lock_shared(%s, %s)", (SPACE, number))
            assert holds_projection(plane.pool, number)
            assert not holds_projection(plane.pool, number + 1)
        eventually(lambda: not holds_projection(plane.pool, number))


@contextmanager
def driven(plane: Plane, troubles: list[str]) -> Iterator[threading.Thread]:
    """A continuous driver in a thread, stopped at the end."""
    stop = threading.Event()
    row = plane.ensure_live()

    def run() -> None:
        open_projector = partial(plane.projector, row)
        number = row.projection_id
        run_continuous(open_projector, plane.log, plane.dsn, number, batch_records=10_000, stop=stop, on_trouble=troubles.append)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join()


def records(plane: Plane) -> int:
    return sum(int(part.offset) for part in plane.row(plane.ensure_live().projection_id).basis.partitions)


async def test_a_store_that_takes_no_writes_is_waited_out_and_seen(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ofp_platform.online.projecting.continuous._RETRY_SECONDS", 0.02)
    troubles: list[str] = []
    writable = psycopg.conninfo.make_conninfo(dsn, options="-c default_transaction_read_only=off")
    first, second = deliveries().part(0, 100), deliveries().part(100, 200)
    with Plane.open(profile(tmp_path), dsn) as plane, Plane.open(plane.profile, writable) as producer:
        monitor = ProjectionMonitor(plane, plane.ensure_live(), plane.profile.thresholds, Counters())
        append(producer.log, first)
        with driven(plane, troubles) as thread:
            await asyncio.to_thread(eventually, lambda: records(plane) == 100)
            await asyncio.to_thread(set_read_only, dsn, "on")
            append(producer.log, second)
            await asyncio.to_thread(eventually, lambda: any("25006" in text for text in troubles))
            await monitor.observe()
            assert monitor.posture["state"] == "RED"
            assert "STORE_READ_ONLY" in monitor.posture["reasons"]
            assert thread.is_alive()
            await asyncio.to_thread(set_read_only, dsn, "off")
            await asyncio.to_thread(eventually, lambda: records(plane) == 200)
            assert thread.is_alive()
        await monitor.observe()
        assert monitor.posture["state"] == "GREEN"


async def test_a_driver_that_died_is_told_from_one_that_was_stopped(dsn: str, tmp_path: Path) -> None:
    moment = 0.0
    with Plane.open(profile(tmp_path), dsn) as plane:
        row = plane.ensure_live()
        append(plane.log, deliveries().part(0, 100))
        monitor = ProjectionMonitor(plane, row, plane.profile.thresholds, Counters(), monotonic=lambda: moment)

        async def reasons_after(seconds: float) -> list[str]:
            nonlocal moment
            moment += seconds
            await monitor.observe()
            reasons: list[str] = monitor.posture["reasons"]
            return reasons

        with driven(plane, []):
            await asyncio.to_thread(eventually, lambda: records(plane) == 100)
            assert not driver_died(plane.pool, row.projection_id)
            assert await reasons_after(100) == []
        await asyncio.to_thread(eventually, lambda: not holds_projection(plane.pool, row.projection_id))
        assert not driver_died(plane.pool, row.projection_id)
        assert await reasons_after(100) == []  # stopped in order, or driven by others: nothing to tell

        with holding(dsn, row.projection_id), driven(plane, []):
            await asyncio.to_thread(eventually, lambda: has_driver_row(plane))
        # two drivers: the one that was stopped was not the last one
        await asyncio.to_thread(eventually, lambda: driver_died(plane.pool, row.projection_id))
        assert await reasons_after(5) == []
        assert await reasons_after(10) == ["NO_PROJECTOR_SECONDS>10"]
        assert monitor.posture["state"] == "AMBER"
        with driven(plane, []):
            await asyncio.to_thread(eventually, lambda: not driver_died(plane.pool, row.projection_id))
            assert await reasons_after(100) == []
        assert await reasons_after(100) == []


def test_a_second_driver_stands_by_and_takes_over(dsn: str, tmp_path: Path) -> None:
    """Whether the first is stopped, or loses its session and with it the lock while it is still alive."""
    stands_by, opened = [threading.Event(), threading.Event()], [0, 0]
    stops = [threading.Event(), threading.Event()]
    with Plane.open(profile(tmp_path), dsn) as plane:
        row = plane.ensure_live()

        def run(number: int) -> None:
            def open_projector() -> Projector:
                opened[number] += 1
                return plane.projector(row)

            run_continuous(
                open_projector,
                plane.log,
                dsn,
                row.projection_id,
                batch_records=20,
                stop=stops[number],
                on_trouble=lambda words: None,
                on_standby=stands_by[number].set,
            )

        def leader() -> int | None:
            with psycopg.connect(dsn, autocommit=True) as connection:
                held = connection.execute(
                    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND granted"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                    (LEADER,),
                ).fetchone()
            return None if held is None else int(held[0])

        drivers = [threading.Thread(target=run, args=(number,)) for number in range(2)]
        try:
            drivers[0].start()
            eventually(lambda: leader() is not None)
            drivers[1].start()
            assert stands_by[1].wait(ENOUGH)
            append(plane.log, deliveries().part(0, 100))
            eventually(lambda: records(plane) == 100)
            assert opened[1] == 0  # it has read nothing
            stops[0].set()
            append(plane.log, deliveries().part(100, 200))
            eventually(lambda: records(plane) == 200)
            assert opened == [1, 1]
            drivers[0].join()
            assert not driver_died(plane.pool, row.projection_id)
            stops[0].clear()
            drivers[0] = threading.Thread(target=run, args=(0,))
            drivers[0].start()
            assert stands_by[0].wait(ENOUGH)
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s)", (leader(),))
            append(plane.log, deliveries().part(200, 300))
            eventually(lambda: records(plane) == 300)
            eventually(lambda: opened[0] == 2)
            append(plane.log, deliveries().part(300, 400))
            eventually(lambda: records(plane) == 400)
        finally:
            for stop in stops:
                stop.set()
            for driver in drivers:
                if driver.ident is not None:
                    driver.join()
        assert not driver_died(plane.pool, row.projection_id)


def has_driver_row(plane: Plane) -> bool:
    with plane.pool.connection() as connection:
        return connection.execute("SELECT FROM ofp.projection_driver").fetchone() is not None


@pytest.mark.parametrize("error", [ValueError("a defect"), errors.UndefinedColumn("a defect")])
def test_what_does_not_pass_by_itself_ends_the_driver(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_arguments: object, **_options: object) -> None:
        raise error

    troubles: list[str] = []
    monkeypatch.setattr(Projector, "apply_available", fails)
    with Plane.open(profile(tmp_path), dsn) as plane:
        row = plane.ensure_live()
        with pytest.raises(type(error), match="a defect"):
            run_continuous(
                partial(plane.projector, row),
                plane.log,
                dsn,
                row.projection_id,
                batch_records=1,
                stop=threading.Event(),
                on_trouble=troubles.append,
            )
        eventually(lambda: driver_died(plane.pool, row.projection_id))
    assert troubles == []


async def test_a_service_believes_the_lag_of_a_driver_that_lives_and_asks_otherwise(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        row = plane.ensure_live()
        append(plane.log, deliveries().part(0, 100))
        monkeypatch.setattr(plane.log, "poll_seconds", 0.5, raising=False)
        monitor = ProjectionMonitor(plane, row, plane.profile.thresholds, Counters())

        def tell(lag: str | None, age_seconds: float) -> None:
            with plane.pool.connection() as connection:
                connection.execute(
                    "INSERT INTO ofp.projection_driver (projection_id, lag, lag_seen_at)"
                    " VALUES (%(id)s, %(lag)s::jsonb, clock_timestamp() - %(age)s * interval '1 s')"
                    " ON CONFLICT (projection_id) DO UPDATE SET lag = excluded.lag, lag_seen_at = excluded.lag_seen_at",
                    {"id": row.projection_id, "lag": lag, "age": age_seconds},
                )

        async def lag_seen() -> int:
            await monitor.observe()
            assert monitor.observation is not None
            return monitor.observation.lag_records

        assert lag_of_driver(plane.pool, row.projection_id) is None
        tell('{"0000": 7}', 0.0)
        assert lag_of_driver(plane.pool, row.projection_id) is None  # nobody holds the projection
        assert await lag_seen() == 100
        with holding(dsn, row.projection_id):
            assert lag_of_driver(plane.pool, row.projection_id) == {"0000": 7}
            assert await lag_seen() == 7
            tell('{"0000": 7}', 60.0)
            assert await lag_seen() == 100
            tell(None, 0.0)
            assert await lag_seen() == 100


def test_a_driver_does_not_tell_a_lag_that_it_does_not_know(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        plane.ensure_live()
        lags = iter([{"0000": 3}])
        monkeypatch.setattr(plane.log, "seen_lag", lambda: next(lags, None))
        told: list[object] = []
        monkeypatch.setattr(
            "ofp_platform.online.projecting.continuous._tell_lag",
            lambda connection, arguments, lag: (told.append(lag), _tell_lag(connection, arguments, lag)),
        )
        with driven(plane, []):
            eventually(lambda: len(told) >= 3)
            with plane.pool.connection() as connection:
                assert connection.execute("SELECT lag FROM ofp.projection_driver").fetchone() == ({"0000": 3},)
        assert told[:3] == [{"0000": 3}, None, None]


def test_a_driver_whose_session_alone_was_lost_takes_the_lead_again(dsn: str, tmp_path: Path) -> None:
    """What it applies by are connections of a pool, which may outlast an outage that the session of its locks did not."""
    troubles: list[str] = []
    with Plane.open(profile(tmp_path), dsn) as plane:
        number = plane.ensure_live().projection_id

        def leaders() -> list[int]:
            with plane.pool.connection() as connection:
                rows = connection.execute(
                    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND granted"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                    (LEADER, number),
                )
                return [row[0] for row in rows]

        append(plane.log, deliveries().part(0, 100))
        with driven(plane, troubles) as thread:
            eventually(lambda: records(plane) == 100 and bool(leaders()))
            before = leaders()
            with psycopg.connect(dsn, dbname="postgres", user="postgres", autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(%s)", (before[0],))
            eventually(lambda: leaders() not in (before, []))  # one look: between two of them the old one ends
            assert thread.is_alive()
            assert any("57P01" in text or "does not do its work" in text for text in troubles)
            append(plane.log, deliveries().part(100, 200))
            eventually(lambda: records(plane) == 200)
            assert not driver_died(plane.pool, number)


def test_the_first_commit_after_a_switch_tells_that_the_projection_is_retired(dsn: str, tmp_path: Path) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane.log, deliveries().part(0, 100))
        row = plane.ensure_live()
        stop, retired = threading.Event(), threading.Event()
        told_at: list[int] = []

        def on_retired() -> None:
            told_at.append(plane.row(row.projection_id).version)
            retired.set()
            stop.set()

        driver = threading.Thread(
            target=run_continuous,
            args=(partial(plane.projector, row), plane.log, plane.dsn, row.projection_id),
            kwargs={"batch_records": 10_000, "stop": stop, "on_retired": on_retired},
        )
        driver.start()
        try:
            eventually(lambda: not sum(plane.log.ordinal_lag(plane.row(row.projection_id).basis).values()))
            assert not retired.is_set()
            beside = Plane(profile(tmp_path, pack="mule_rings"), dsn, plane.pool, plane.log).open_beside()
            with plane.pool.connection() as connection:
                make_live(connection, beside.projection_id, beside.version)
            version = plane.row(row.projection_id).version
            append(plane.log, deliveries().part(100, 110))
            assert retired.wait(ENOUGH)
        finally:
            stop.set()
            driver.join()
        assert told_at == [version + 1]
