"""Parity: snapshots rebuilt from the log and compared, beside the serving kernel answering the same questions from state.

`python -m benchmarks.bench_parity --events 30000 --snapshots 2000`: 2 keys, 12 windowed features, keys at random, served at
many bases. CPU seconds are those of all processes together: on a busy machine they say more than the clock.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.figures import Figures, Row
from benchmarks.world import ACCOUNTS, MERCHANTS, PINS, fill, fresh_database, profile, request
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.span_records import log_batches
from ofp_platform.offline.parity.parity import ParityRuns, compare_all
from ofp_platform.offline.parity.parity_anchor import ParityAnchor
from ofp_platform.offline.parity.rebuilding import ReplayedRun
from ofp_platform.offline.replay.knowledge import Knowledge
from ofp_platform.offline.replay.known_events import fold_replay
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.served_batches import record_of
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis

AIM_PER_SECOND = 20_000


@contextmanager
def measuring(rows: list[tuple[str, int, float, float]], name: str, count: int) -> Iterator[None]:
    """Add what the block took: wall and CPU seconds, children included."""
    began, start_cpu = time.perf_counter(), _cpu()
    yield
    rows.append((name, count, time.perf_counter() - began, _cpu() - start_cpu))


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def serve(plane: Plane, snapshots: int, commits: int, events: int, rows: list[tuple[str, int, float, float]]) -> list[Answer]:
    """Project in that many commits and ask after each; the second half of them, where windows are full."""
    row = plane.ensure_live()
    projector, reader = plane.projector(row), plane.reader(row)
    rng = np.random.default_rng(7)
    answers: list[Answer] = []
    asking = max(commits // 2, 1)
    for commit in range(commits):
        while projector.apply_available(max_records=events // commits // 4) and commit == commits - 1:
            pass
        if commit < commits - asking:
            continue
        watermark = plane.row(row.projection_id).watermark or 0
        names = [
            (f"customer-{rng.integers(ACCOUNTS):07d}", f"terminal-{rng.integers(MERCHANTS):07d}")
            for _ in range(snapshots // asking)
        ]
        with measuring(rows, "served from state", len(names)):
            answers += [reader.answer(request(watermark, *name)) for name in names]
    return answers


def main() -> None:
    """Print the table."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--snapshots", type=int, default=20_000)
    parser.add_argument("--commits", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is compared: processes take seconds to start")
    arguments = parser.parse_args()
    rows: list[tuple[str, int, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        dsn = fresh_database(Path(folder), "parity")
        settings = profile("parity", Path(folder))
        try:
            with Plane.open(settings, dsn) as plane:
                fill(plane, arguments.events)
                served_rows: list[tuple[str, int, float, float]] = []
                answers = serve(plane, arguments.snapshots, arguments.commits, arguments.events, served_rows)
                rows.append(
                    (
                        "served from state, database included",
                        *(sum(column) for column in list(zip(*served_rows, strict=True))[1:]),
                    )
                )
                registry = plane.registry_of(plane.ensure_live())
                basis = ReplayBasis.up_to(plane.log.ends())
                with measuring(rows, "fold of the log (records)", arguments.events):
                    batches = (batch for span in basis.partitions for batch in log_batches(plane.log, span, 20_000))
                    replay = fold_replay(batches, registry, PINS, settings.clock_skew_us, Path(folder) / "fold")
        finally:
            stop_embedded(Path(folder) / "postgres")
        run = ReplayedRun(Knowledge(replay, basis), registry.pack, PINS, settings.run_config_digest, settings.allowed_lateness_us)
        runs = ParityRuns(settings.stream_name, PINS, {(registry.digest, settings.run_config_digest): run})
        anchors = [ParityAnchor(answer.hash, record_of(answer)) for answer in answers] * arguments.rounds
        outcomes: Counter[str] = Counter()
        for workers in (1, arguments.workers):
            with measuring(rows, f"rebuilt and compared, {workers} process{'es' if workers > 1 else ''}", len(anchors)):
                for record in compare_all(anchors, runs, "0" * 64, _nothing_stored, workers=workers):
                    outcomes[record.outcome.value] += 1
    fold, *rebuilt = rows[1:]
    best = max(rebuilt, key=lambda row: row[1] / row[2])
    rate = best[1] / best[2]
    outcome_text = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
    all_match = outcomes["MATCH"] == outcomes.total()
    table = [
        Row("vectors rebuilt and compared", f"{rate:,.0f}/s", f">= {AIM_PER_SECOND:,}/s", rate >= AIM_PER_SECOND),
        Row("outcomes", outcome_text, "all MATCH", all_match),
        *(Row(name, f"{count / seconds:,.0f}/s ({count:,} in {seconds:.1f} s, CPU {cpu:.1f} s)")
          for name, count, seconds, cpu in (rows[0], *rebuilt, fold)),
        Row("rebuilt over served, per second of CPU", f"{best[1] / best[3] / (rows[0][1] / rows[0][3]):.2f}x"),
    ]  # fmt: skip
    figures = Figures(
        suite="parity",
        kind="bench",
        title="Parity: served vectors rebuilt from the log",
        rows=tuple(table),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw={"rows": rows, "outcomes": dict(outcomes)},
    )
    print(figures.table())
    figures.write()


def _nothing_stored(snapshot_hash: str) -> dict[str, object]:
    raise SystemExit(f"snapshot {snapshot_hash} is a MISMATCH")


if __name__ == "__main__":
    main()
