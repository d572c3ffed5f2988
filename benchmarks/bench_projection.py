"""Catch-up of the projector, beside COPY of the same rows into one table.

`python -m benchmarks.bench_projection --events 500000`
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.world import fill, fresh_database, profile
from ofp_platform.online.plane import Plane
from ofp_platform.storage.embedded import stop_embedded


def copy_floor(plane: Plane) -> float:
    """Seconds to COPY every record of the log (id, type, time, payload) into one unindexed table."""
    rows: list[tuple[str, str, int, bytes]] = []
    for info in plane.log.partitions():
        part = None
        while len(batch := plane.log.read(info.partition_id, part, 50_000)):
            rows += zip(batch.event_ids, batch.event_types, batch.ts.tolist(), batch.payloads, strict=True)
            part = batch.next
    began = time.perf_counter()
    with plane.pool.connection() as connection, connection.transaction():
        connection.execute("CREATE TABLE floor (event_id text, event_type text, ts bigint, payload bytea)")
        with connection.cursor() as cursor, cursor.copy("COPY floor FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["text", "text", "int8", "bytea"])
            for row in rows:
                copy.write_row(row)
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--batch", type=int, default=200_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dsn = fresh_database(Path(folder), "projection")
        try:
            with Plane.open(profile("projection"), dsn) as plane:
                began = time.perf_counter()
                fill(plane, arguments.events)
                appended = time.perf_counter() - began
                projector = plane.projector(plane.ensure_live())
                began = time.perf_counter()
                records = 0
                while (receipt := projector.apply_available(max_records=arguments.batch)) is not None:
                    if receipt.failures:
                        raise SystemExit(f"the world of the benchmark is wrong: {dict(receipt.failures)}")
                    records += receipt.records
                projected = time.perf_counter() - began
                copied = copy_floor(plane)
        finally:
            stop_embedded(Path(folder) / "postgres")
    print(f"{'':32}{'seconds':>10}{'records/s':>12}")
    print(f"{'append (validate, hash, store)':32}{appended:10.2f}{records / appended:12,.0f}")
    print(f"{'project (2 keys, 12 windows)':32}{projected:10.2f}{records / projected:12,.0f}")
    print(f"{'COPY of the same rows (floor)':32}{copied:10.2f}{records / copied:12,.0f}")
    print(f"projection / COPY: {copied / projected:.2f} of its rate")


if __name__ == "__main__":
    main()
