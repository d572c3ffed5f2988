"""Catch-up of the projector, beside COPY of the same rows into one table and Flink SQL over the same transactions.

`python -m benchmarks.bench_projection --transactions 100000`: two keys each, 12 windowed features, durable, exactly once. The
peer's windows are the pack's as far as its SQL has them: count and mean over 1, 7 and 30 days per customer and per terminal,
without the pack's delay of seven days and without its fraud reports, in one job on both cores, state in memory, checkpoints
exactly-once every ten seconds, results thrown away. Its clock starts when the job runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from benchmarks.figures import Figures, Row
from benchmarks.handbook import TRANSACTIONS, Transactions, transactions
from benchmarks.peer import PeerUnavailable, interpreter
from benchmarks.world import fresh_database, profile
from ofp_platform.online.plane import Plane
from ofp_platform.online.state.progress import read_progress
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.vocabulary.profile import Profile

AIM_PER_SECOND = 100_000
AIM_OVER_PEER = 10
_JAVA_HEAP = "-Xmx4g"
_START_SECONDS = 90.0
_SCRIPT = Path(__file__).parent / "peers" / "flink_windows.py"


@dataclass(frozen=True)
class Peer:
    """The measurement of the peer: rows that went through all windows, seconds of running, whether that was all of them."""

    rows: int
    seconds: float
    checkpoints: int
    finished: bool

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds


def project(plane: Plane, batch: int) -> tuple[int, float]:
    """Catch up from nothing; records and seconds. Stops the benchmark when anything was lost, doubled or refused."""
    row = plane.ensure_live()
    projector = plane.projector(row)
    began = time.perf_counter()
    records = 0
    while (receipt := projector.apply_available(max_records=batch)) is not None:
        records += receipt.records
    seconds = time.perf_counter() - began
    after = plane.row(row.projection_id)
    with plane.pool.connection() as connection:
        totals = read_progress(connection, row.projection_id)
    applied_records = sum(part.applied + part.late for part in totals.partitions)
    if sum(plane.log.ordinal_lag(after.basis).values()) or applied_records != records or totals.failures:
        raise SystemExit(f"{records} records, {applied_records} applied, failures {dict(totals.failures)}: not each of them once")
    return records, seconds


def copy_floor(plane: Plane) -> float:
    """Seconds to COPY every record of the log (id, type, time, payload) into one unindexed table, its text made before."""
    parts: list[bytes] = []
    for info in plane.log.partitions():
        at = None
        while len(batch := plane.log.read(info.partition_id, at, 50_000)):
            rows = zip(batch.event_ids, batch.event_types, batch.ts.tolist(), batch.payloads, strict=True)
            parts.append(
                b"".join(b"%b\t%b\t%d\t%b\n" % (event_id.encode(), kind.encode(), ts, text) for event_id, kind, ts, text in rows)
            )
            at = batch.next
    with plane.pool.connection() as connection:
        connection.execute("CREATE TABLE floor (event_id text, event_type text, ts bigint, payload text)")
    began = time.perf_counter()
    with (
        plane.pool.connection() as connection,
        connection.transaction(),
        connection.cursor() as cursor,
        cursor.copy("COPY floor FROM STDIN") as copy,
    ):
        for part in parts:
            copy.write(part)
    return time.perf_counter() - began


def flink(world: Transactions, folder: Path, limit: float) -> Peer:
    """The peer on the same transactions, for `limit` seconds at most.

    Raises:
        PeerUnavailable: it does not run here.
    """
    if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
        raise PeerUnavailable("no Java")
    python = interpreter("flink")
    folder.mkdir()
    table = world.table()
    millis = pa.array(table["ts"].to_numpy() // 1000)
    columns = {name: table[name] for name in ("customer", "terminal", "amount")}
    options = pa.csv.WriteOptions(include_header=False)
    pa.csv.write_csv(pa.table({**columns, "ms": millis}), folder / "transactions.csv", options)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [str(python), str(_SCRIPT), str(folder.resolve()), str(world.count), str(limit), str(port)]
    environment = {**os.environ, "JVM_ARGS": _JAVA_HEAP, "FLINK_LOG_DIR": str(folder)}
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=limit + _START_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise PeerUnavailable("the job did not end in time") from None
    if process.returncode:
        raise PeerUnavailable(f"the job failed: {(process.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return Peer(**json.loads(process.stdout.strip().splitlines()[-1]))


def peer_rows(world: Transactions, folder: Path, limit: float, rate: float) -> tuple[list[Row], dict[str, object]]:
    """The peer's rate, and ours over it; or why there is none."""
    aim = f">= {AIM_OVER_PEER}x"
    try:
        peer = flink(world, folder, limit)
        if not peer.rows:
            raise PeerUnavailable(f"no row went through all windows within {limit:g} s")
    except PeerUnavailable as reason:
        return [Row("Flink SQL, the same windows", f"not measured: {reason}")], {"peer": str(reason)}
    how = "all rows" if peer.finished else f"{peer.rows:,} rows, then its time was up"
    return [
        Row("Flink SQL, the same windows without the delay, state in memory, exactly-once checkpoints",
            f"{peer.rate:,.0f} rows/s ({how}, {peer.seconds:.0f} s, {peer.checkpoints} checkpoints)"),
        Row("projection over Flink SQL", f"{rate / peer.rate:.1f}x", aim, rate >= AIM_OVER_PEER * peer.rate),
    ], {"peer": asdict(peer)}  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS)
    batch = Profile.model_fields["batch_records"].default
    parser.add_argument("--batch", type=int, default=batch, help="the most records of one commit (that of a profile)")
    parser.add_argument("--peer-seconds", type=float, default=240.0, help="the peer's time limit; 0: without the peer")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        world = transactions(Path(folder), arguments.transactions)
        dsn = fresh_database(Path(folder), "projection")
        try:
            with Plane.open(profile("projection", Path(folder)), dsn) as plane:
                start_time = time.perf_counter()
                appended_records = world.append_to(plane)
                append_seconds = time.perf_counter() - start_time
                records, catch_up_seconds = project(plane, arguments.batch)
                copy_seconds = copy_floor(plane)
        finally:
            stop_embedded(Path(folder) / "postgres")
        rate = records / catch_up_seconds
        rows = [
            Row(f"catch-up of the projector on {world.source}, two keys, 12 windows, durable, exactly once",
                f"{rate:,.0f} events/s ({records:,} events, {catch_up_seconds:.1f} s)",
                f">= {AIM_PER_SECOND:,}/s", rate >= AIM_PER_SECOND),
            Row("COPY of the same rows into one table (floor)", f"{records / copy_seconds:,.0f} rows/s ({copy_seconds:.1f} s)"),
            Row("projection over COPY", f"{copy_seconds / catch_up_seconds:.2f}x"),
            Row("append: validate, hash, store", f"{appended_records / append_seconds:,.0f} events/s ({append_seconds:.1f} s)"),
        ]  # fmt: skip
        raw: dict[str, object] = {
            "records": records,
            "projected": catch_up_seconds,
            "copied": copy_seconds,
            "appended": append_seconds,
        }
        if arguments.peer_seconds:
            of_peer, raw_of_peer = peer_rows(world, Path(folder) / "flink", arguments.peer_seconds, rate)
            rows += of_peer
            raw |= raw_of_peer
    figures = Figures(
        suite="projection",
        kind="bench",
        title="Catch-up of the projector",
        rows=tuple(rows),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw=raw,
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
