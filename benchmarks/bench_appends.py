"""Appends of many producers beside a commit that takes its time: in groups, one by one, with the notice inside.

`python -m benchmarks.bench_appends --seconds 2`: producers append one event at a time, each to a partition of its own, on a
server whose every flush takes 2 ms (`commit_delay`), as behind a disk or a standby. In turns they use the log as it is,
one that takes a transaction for each append and a statement for each step, and the same with its notice inside the transaction.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import psycopg

from benchmarks.figures import Figures, Row
from benchmarks.world import PINS, START, fresh_database
from ofp_platform.log.block import Block
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.embedded import SUPERUSER, as_role, stop_embedded
from ofp_platform.storage.notices import LOG_CHANNEL, send_notice
from ofp_platform.storage.postgres import Pool, open_pool

AIM_RATIO = 10.0
KEY = "payload.customer_id"


_HEADS = """
    SELECT partition_id, next_offset FROM ofp.log_head
    WHERE stream_name = %s AND partition_id = ANY(%s) ORDER BY partition_id FOR UPDATE"""
_INSERT = """
    INSERT INTO ofp.log_block
        (stream_name, partition_id, first_offset, record_count, first_admitted, last_admitted, codec, raw_bytes, block)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %b)"""
_ADVANCE = "UPDATE ofp.log_head SET next_offset = %s WHERE stream_name = %s AND partition_id = %s"


class ByStatements(PostgresLog):
    """The log with a transaction for each append, a statement for each of its steps, and the notice after the commit."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._commits = mock.Mock(write=lambda blocks, _: self._write(blocks))

    def _write(self, blocks: Sequence[tuple[str, Block]]) -> list[tuple[int, str | None]]:
        with self._pool.connection() as connection:
            with connection.transaction():
                firsts = self._steps(connection, blocks)
            self._tell(connection)
        return firsts

    def _steps(self, connection: psycopg.Connection, blocks: Sequence[tuple[str, Block]]) -> list[tuple[int, str | None]]:
        names = sorted({name for name, _ in blocks})
        following: dict[str, int] = dict(connection.execute(_HEADS, (self.stream_name, names)).fetchall())
        rows = []
        for name, b in blocks:
            row = (b.record_count, b.first_admitted, b.last_admitted, b.codec, b.raw_bytes, b.data)
            rows.append((self.stream_name, name, following[name], *row))
            following[name] += b.record_count
        with connection.cursor() as cursor:
            cursor.executemany(_INSERT, rows)
            cursor.executemany(_ADVANCE, [(after, self.stream_name, name) for name, after in following.items()])
        return [(row[2], self.history.current) for row in rows]

    def _tell(self, connection: psycopg.Connection) -> None:
        send_notice(connection, LOG_CHANNEL, self.stream_name)


class NoticeInside(ByStatements):
    """The same with the notice in the append's transaction."""

    def _steps(self, connection: psycopg.Connection, blocks: Sequence[tuple[str, Block]]) -> list[tuple[int, str | None]]:
        firsts = super()._steps(connection, blocks)
        connection.execute("SELECT pg_notify(%s, %s)", (LOG_CHANNEL, self.stream_name))
        return firsts

    def _tell(self, connection: psycopg.Connection) -> None:
        pass


def own_keys(log: PostgresLog, producers: int) -> list[str]:
    """A key of each producer, each of another partition."""
    keys: dict[str, str] = {}
    number = 0
    while len(keys) < producers:
        keys.setdefault(log.partition_of(f"customer-{number:07d}"), f"customer-{number:07d}")
        number += 1
    return list(keys.values())


def append_rate(log: PostgresLog, keys: list[str], seconds: float, first: int) -> tuple[int, float]:
    """Appends of all producers, and the seconds that they took."""
    counts = [0] * len(keys)
    start = threading.Barrier(len(keys) + 1)
    until = [0.0]

    def produce(producer: int) -> None:
        wire = {"event_type": "transaction", "schema_version": "v1", "ts_utc": "2018-04-01T00:00:00Z", **PINS.wire()}
        payload = {"amount_minor": 1, "customer_id": keys[producer], "terminal_id": "terminal-0000001"}
        start.wait()
        while time.perf_counter() < until[0]:
            event_id = f"tx-{producer}-{first + counts[producer]}"
            log.append([{**wire, "event_id": event_id, "payload": payload}], lambda _: START)
            counts[producer] += 1

    threads = [threading.Thread(target=produce, args=(producer,)) for producer in range(len(keys))]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    until[0] = began + seconds
    start.wait()
    for thread in threads:
        thread.join()
    if not all(counts):
        raise SystemExit("a producer appended nothing: its error stands above")
    return sum(counts), time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--producers", type=int, default=16)
    parser.add_argument("--commit-us", type=int, default=2_000, help="what every flush takes")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a turn")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dsn = fresh_database(folder, "appends")
        try:
            with psycopg.connect(as_role(dsn, SUPERUSER), autocommit=True) as connection:
                for setting in (f"commit_delay = {arguments.commit_us}", "commit_siblings = 0"):
                    connection.execute(f"ALTER SYSTEM SET {setting}")
                connection.execute("SELECT pg_reload_conf()")
            with open_pool(dsn, max_size=arguments.producers) as pool:
                rates = _measure(pool, arguments.producers, arguments.seconds, arguments.turns)
        finally:
            stop_embedded(folder / "postgres")
    ratio = median(once / inside for once, inside in zip(rates["groups"], rates["inside"], strict=True))
    steps = median(once / steps for once, steps in zip(rates["groups"], rates["steps"], strict=True))
    rows = [
        Row("appends, in groups", f"{median(rates['groups']):,.0f}/s"),
        Row("appends, one by one, notice after the commit", f"{median(rates['steps']):,.0f}/s"),
        Row("appends, one by one, notice inside the transaction", f"{median(rates['inside']):,.0f}/s"),
        Row("in groups, over one by one", f"{steps:.1f}x"),
        Row("in groups, over notice inside", f"{ratio:.1f}x", f">= {AIM_RATIO:g}x", ratio >= AIM_RATIO),
    ]
    figures = Figures(
        suite="appends",
        kind="bench",
        title="Appends of many producers, and a commit that takes its time",
        rows=tuple(rows),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw={kind: [round(rate, 1) for rate in values] for kind, values in rates.items()},
    )
    print(figures.table())
    figures.write()


def _measure(pool: Pool, producers: int, seconds: float, turns: int) -> dict[str, list[float]]:
    """Appends a second by kind of log, one figure a turn."""
    kinds: dict[str, Callable[..., PostgresLog]] = {"groups": PostgresLog, "steps": ByStatements, "inside": NoticeInside}
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    partitions = producers * 8
    PostgresLog.create(pool, "appends", partitions, KEY)
    keys = own_keys(PostgresLog.open(pool, "appends"), producers)
    first = 0
    for turn in range(turns + 1):
        for kind, make in kinds.items():
            count, duration = append_rate(make(pool, "appends", partitions, KEY), keys, seconds, first)
            first += count
            if turn:  # the first one connects and warms up
                rates[kind].append(count / duration)
    return rates


if __name__ == "__main__":
    main()
