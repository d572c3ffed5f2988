"""The listener: commits reach the receiver, a lost connection makes it deaf, and a switch is followed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import psycopg

from ofp_platform.online.plane import Plane
from ofp_platform.online.service.commit_listener import CommitListener
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform_tests.online.service.served_plane import commit, until


class Receiver:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def moved(self) -> None:
        self.told.append("moved")

    def listening(self) -> None:
        self.told.append("listening")

    def deaf(self) -> None:
        self.told.append("deaf")


async def never(_row: ProjectionRow) -> None:
    raise AssertionError("nothing was switched")


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def test_commits_are_told_and_a_lost_connection_is_made_again(dsn: str, plane: Plane) -> None:
    receiver = Receiver()
    listener = CommitListener(dsn, plane.live, never)
    listener.attach(plane.ensure_live(), receiver)
    task = asyncio.create_task(listener.run())
    await until(lambda: receiver.told == ["listening"])
    await asyncio.to_thread(commit, plane, "e-1")
    await until(lambda: receiver.told[:2] == ["listening", "moved"])
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
    await until(lambda: "deaf" in receiver.told and receiver.told[-1] == "listening")
    await stop(task)
    assert receiver.told[-1] == "deaf"


async def test_a_switch_is_followed_and_the_receiver_before_is_deaf(dsn: str, plane: Plane) -> None:
    row = plane.ensure_live()
    old, new = Receiver(), Receiver()
    live = row
    followed = asyncio.Event()

    async def follow(other: ProjectionRow) -> None:
        listener.attach(other, new)
        followed.set()

    listener = CommitListener(dsn, lambda: live, follow)
    listener.attach(row, old)
    task = asyncio.create_task(listener.run())
    await until(lambda: old.told == ["listening"])
    live = replace(row, projection_id=row.projection_id + 1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_notify('ofp_projection', 'switch')")
    await until(followed.is_set)
    assert old.told == ["listening", "deaf"]
    assert new.told == ["listening"]
    await stop(task)
    assert new.told[0] == "listening"
    assert set(new.told[1:]) == {"deaf"}  # once from the end of the listener, once from that of its connection


async def test_a_switch_that_nobody_tells_of_is_found(dsn: str, plane: Plane) -> None:
    row = plane.ensure_live()
    live = row
    followed = asyncio.Event()

    async def follow(_row: ProjectionRow) -> None:
        followed.set()

    receiver = Receiver()
    listener = CommitListener(dsn, lambda: live, follow, heartbeat_seconds=0.01)
    listener.attach(row, receiver)
    task = asyncio.create_task(listener.run())
    await until(lambda: receiver.told == ["listening"])
    live = replace(row, projection_id=row.projection_id + 1)
    await asyncio.wait_for(followed.wait(), 30)
    await stop(task)
