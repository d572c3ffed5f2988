"""Known events in any number: what a commit, a start and memory cost when a projection knows many.

`python -m benchmarks.bench_identities --known 1000000 10000000`: identities are taken in by the projector's own part of a commit
(`KnownIdentities`: look up, admit, record, step), first in large commits, then, at each mark, in commits of 2,000 as a stream has
them, a tenth of them copies of any age. Memory is that of a process that starts there, the WAL that of the small commits.
Ids are made from numbers; each fate is compared with the right one.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from benchmarks.figures import Figures, Row
from benchmarks.world import PINS, fresh_database
from ofp_platform.online.state.identity_index import DUPLICATE, NEW
from ofp_platform.online.state.known_identities import KnownIdentities
from ofp_platform.online.state.projection import open_projection
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.embedded import stop_embedded

WORDS = 6
BULK = 250_000
COPIES = 0.1
Words = npt.NDArray[np.uint64]


def identities(first: int, count: int) -> Words:
    """Identities of the events `first` and on: digests by a mixing of their numbers, positions in one partition."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    words = np.zeros((count, WORDS), np.uint64)
    for column in range(4):
        mixed = (numbers * np.uint64(4) + np.uint64(column)) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        words[:, column] = mixed ^ (mixed >> np.uint64(31))
    words[:, 5] = numbers
    return words


def commit(connection: psycopg.Connection[Any], known: KnownIdentities, version: int, queries: Words) -> npt.NDArray[np.int8]:
    """The identities' part of one commit."""
    older = known.older(connection, 1, queries) if known.has_segments else None
    with connection.transaction():
        status, _ = known.admit(queries, older)
        known.record(connection, 1, version, version)
        known.step(connection, 1)
    return status


def process(dsn: str, known_count: int, to_count: int, small: int) -> dict[str, float]:
    """Figures of one process: it starts with `known_count` events known, takes in more up to `to_count`, then small commits."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        known = KnownIdentities(WORDS)
        version = _newest_version(connection)
        began = time.perf_counter()
        known.load(connection, 1)
        wrong = 0
        first_commit = 0.0
        if known_count:
            version += 1
            wrong += int(np.count_nonzero(commit(connection, known, version, identities(0, 2_000)) != DUPLICATE))
            first_commit = time.perf_counter() - began
        began = time.perf_counter()
        for first in range(known_count, to_count, BULK):
            version += 1
            status = commit(connection, known, version, identities(first, min(BULK, to_count - first)))
            wrong += int(np.count_nonzero(status != NEW))
        bulk = time.perf_counter() - began
        rng = np.random.default_rng(7)
        seconds, lookups = [], []
        lsn = _lsn(connection)
        at = to_count
        copies = int(small * COPIES)
        for _ in range(200):
            queries = np.concatenate(
                [identities(at, small - copies), *(identities(int(one), 1) for one in rng.integers(0, max(1, at), copies))]
            )
            version += 1
            began = time.perf_counter()
            status = commit(connection, known, version, queries)
            seconds.append(time.perf_counter() - began)
            wrong += int(np.count_nonzero(status[: small - copies] != NEW)) + int(
                np.count_nonzero(status[small - copies :] != DUPLICATE)
            )
            began = time.perf_counter()
            known.older(connection, 1, queries)
            lookups.append(time.perf_counter() - began)
            at += small - copies
        return {
            "wrong": wrong,
            "first_commit": first_commit,
            "bulk_rate": (to_count - known_count) / bulk if to_count > known_count else 0.0,
            "commit_p50": median(seconds),
            "commit_p99": float(np.quantile(seconds, 0.99)),
            "lookup_p50": median(lookups),
            "wal": (_lsn(connection) - lsn) / (200 * (small - copies)),
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "at": at,
        }


def _newest_version(connection: psycopg.Connection[Any]) -> int:
    versions = "SELECT version FROM ofp.identity_run UNION ALL SELECT last_version FROM ofp.identity_segment"
    row = connection.execute(f"SELECT coalesce(max(version), 0) FROM ({versions}) AS v").fetchone()
    assert row is not None
    return int(row[0])


def _lsn(connection: psycopg.Connection[Any]) -> float:
    row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return float(row[0])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--known", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--small", type=int, default=2_000, help="events of a small commit")
    parser.add_argument("--process", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        dsn, known_count, to_count = arguments.process
        print(json.dumps(process(dsn, int(known_count), int(to_count), arguments.small)))
        return
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dsn = fresh_database(folder, "identities")
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                open_projection(connection, "identities", PINS, compile_pack(shipped_pack("card_payments")), "", status="live")
            results = _measure(dsn, arguments.known, arguments.small)
        finally:
            stop_embedded(folder / "postgres")
    rows = []
    for count, result in zip(arguments.known, results, strict=True):
        millions = f"{count / 1e6:g} M known events"
        rows += [
            Row(f"wrong fates, {millions}", f"{result['wrong']:.0f}", "0", result["wrong"] == 0),
            Row(f"memory of the process, {millions}", f"{result['memory'] / 2**30:.2f} GB", "<= 2 GB", result["memory"] <= 2**31),
            Row(
                f"start to the first commit, {millions}",
                f"{result['first_commit']:.2f} s",
                "<= 10 s",
                result["first_commit"] <= 10,
            ),
            Row(
                f"a commit of {arguments.small:,}, {millions}",
                f"p50 {result['commit_p50'] * 1000:.1f} ms, p99 {result['commit_p99'] * 1000:.1f} ms;"
                f" of that looking up {result['lookup_p50'] * 1000:.1f} ms",
            ),
            Row(f"WAL for each new event, {millions}", f"{result['wal']:.0f} B"),
            Row(f"in commits of {BULK:,}, up to {millions}", f"{result['bulk_rate']:,.0f} events/s"),
        ]
    figures = Figures(
        suite="identities",
        kind="bench",
        title="Known events: memory, start and commits",
        rows=tuple(rows),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw={"results": results},
    )
    print(figures.table())
    figures.write()


def _measure(dsn: str, known: Sequence[int], small: int) -> list[dict[str, float]]:
    """One process that takes in what is missing, then another that starts from there, for each count."""
    results = []
    at = 0
    for count in known:
        filled = _process(dsn, at, max(count, at), small)
        started = _process(dsn, int(filled["at"]), int(filled["at"]), small)
        results.append({**started, "wrong": filled["wrong"] + started["wrong"], "bulk_rate": filled["bulk_rate"]})
        at = int(started["at"])
    return results


def _process(dsn: str, known_count: int, to_count: int, small: int) -> dict[str, float]:
    arguments = ["--small", str(small), "--process", dsn, str(known_count), str(to_count)]
    command = [sys.executable, "-m", "benchmarks.bench_identities", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main()
