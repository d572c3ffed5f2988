"""The benchmark of appends appends, with each of its logs."""

from __future__ import annotations

from benchmarks.bench_appends import KEY, ByStatements, NoticeInside, append_rate, own_keys
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.postgres import open_pool


def test_each_log_stores_what_its_producers_append(dsn: str) -> None:
    with open_pool(dsn, max_size=2) as pool:
        log = PostgresLog.create(pool, "appends", 16, KEY)
        keys = own_keys(log, 2)
        total = 0
        for make in (PostgresLog, ByStatements, NoticeInside):
            total += append_rate(make(pool, "appends", 16, KEY), keys, 0.3, total)[0]
            assert sum(log.ordinal_lag(log.retention_floor()).values()) == total
