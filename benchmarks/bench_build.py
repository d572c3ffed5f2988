"""A whole build, archive to manifest, beside Feast's join of features that were computed before.

`python -m benchmarks.bench_build --transactions 100000` (ten handbooks in 3 GB: `--copies 10 --memory 3GB`): one training row per
transaction, twelve windowed features, labels and all gates, through the builder in a process of its own with all cores. Its clock
runs from the start of the process to its end; memory is that of its process and its children together, looked at every 20 ms
(pages they share count once for each, so it is a bound), without the database server.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures, Row
from benchmarks.handbook import TRANSACTIONS, Transactions, copies_of, transactions
from benchmarks.peer import PeerUnavailable
from benchmarks.world import fresh_database, profile
from ofp_platform.cli.offline.facts_commands import examine, reference_of
from ofp_platform.cli.offline.training_set import HANDBOOK, training_intent
from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.offline.labels.label_store import LabelStore, as_observed
from ofp_platform.offline.replay.memory_budget import memory_bytes
from ofp_platform.offline.requests.replay_resolution import data_end
from ofp_platform.offline.requests.run_facts_view import publish_run_facts
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.online.plane import Plane
from ofp_platform.simulation.handbook_labels import handbook_labels
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, PolicyRef, Purpose
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.profile import Profile

AIM_SECONDS, AIM_SECONDS_OF_COPIES, AIM_BYTES = 8.0, 120.0, 3 * 10**9
_LOOK_SECONDS = 0.02
_DONE = "DONE"


@dataclass(frozen=True)
class Prepared:
    """A world of which everything is archived, and a run that waits. Seconds are those of archiving."""

    profile: Profile
    run_key: str
    records: int
    archive_seconds: float


@dataclass(frozen=True)
class Built:
    """Seconds of the builder's process, stage by stage, and its peak in bytes of memory."""

    rows: int
    seconds: float
    stages: dict[str, float]
    peak: int


def prepare(world: Transactions, folder: Path, dsn: str, as_of_basis: AsOfBasis) -> Prepared:
    """Append, archive, publish facts and labels, submit the intent."""
    build_profile = profile("build", folder).model_copy(update={"range_size": 100_000})  # the handbook profile's range
    with Plane.open(build_profile, dsn) as plane:
        records = world.append_to(plane)
        ends = plane.log.ends()
        archive = Archive(ObjectStore(build_profile.object_store_url), plane.log.stream_name)
        start_time = time.perf_counter()
        archive_up_to(plane.ranges, archive, ends, 2)
        archive_seconds = time.perf_counter() - start_time
        reference = reference_of(build_profile)
        registry = plane.registry_of(plane.ensure_live())  # which publishes the pack: the facts look at it
        publish_run_facts(plane.pool, examine(plane, reference))
        labels = LabelStore(plane.pool, build_profile.context_pins)
        labels.append(handbook_labels(world.path), as_observed)
        known_until = labels.known_until("fraud", data_end(ReplayBasis.up_to(ends), StreamRecords(plane.log, archive)))
        if known_until is None:
            raise SystemExit("no fraud is reported yet in so few transactions: a training set has no label then")
        intent = training_intent(HANDBOOK, registry, build_profile.context_pins, ends, reference, known_until)
        # nothing is decided here, and a set that is held to parity needs decisions
        policy = PolicyRef(policy_id="analysis", revision=1)
        lenient = {"purpose": Purpose.ANALYSIS, "policy": policy}
        submission = intent.model_copy(update={"as_of_basis": as_of_basis, **lenient})
        return Prepared(build_profile, RunLedger(plane.pool).submit(submission).run_key, records, archive_seconds)


def build(waiting: Prepared, folder: Path, dsn: str, memory: int | None = None) -> Built:
    """Build the run that waits, within `memory` bytes where given."""
    settings = folder / "profile.yaml"  # JSON is YAML
    settings.write_text(waiting.profile.model_dump_json(exclude_none=True))
    command = [sys.executable, "-m", "benchmarks.build_process", str(settings), dsn, str(folder / "builds"), waiting.run_key]
    command += [] if memory is None else [str(memory)]
    start_time = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(_LOOK_SECONDS)
    seconds = time.perf_counter() - start_time
    outcome: dict[str, Any] = json.loads(process.communicate()[0]) if process.returncode == 0 else {}
    if outcome.get("state") != _DONE:
        raise SystemExit(f"the build failed: {outcome or process.returncode}")
    return Built(outcome["outcome"]["rows"], seconds, outcome["stages"], peak)


def resident(pid: int) -> int:
    """Bytes of memory that a process and its descendants hold now; 0 of one that has ended."""
    try:
        bytes_held = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        children = [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return bytes_held + sum(resident(int(child)) for child in children)


def peer_rows(measurement: Built, rows: int) -> list[Row]:
    """Feast on that many rows, extrapolated to ours; or why there is none."""
    from benchmarks.bench_feast_history import feast_history

    claim = f"Feast get_historical_features of the same {measurement.rows:,} rows, features computed before"
    try:
        seconds, peak = feast_history(rows)
    except PeerUnavailable as reason:
        return [Row(claim, f"not measured: {reason}")]
    factor = measurement.rows / rows
    return [
        Row(claim, f"{seconds * factor:,.0f} s (extrapolated from {seconds:.1f} s for {rows:,})"),
        Row(f"Feast's peak memory for {rows:,} rows", f"{peak / 1e9:.2f} GB"),
        Row("Feast's seconds (extrapolated) over ours", f"{seconds * factor / measurement.seconds:,.0f}x"),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS)
    parser.add_argument("--as-of-basis", choices=["event_time", "ingest_time"], default="event_time")
    parser.add_argument("--feast-rows", type=int, default=100_000, help="0: without Feast")
    parser.add_argument("--copies", type=int, default=1, help="how many times all transactions, each time with keys of its own")
    parser.add_argument("--memory", help="memory of the build, such as 3GB; without it as much as the build takes")
    arguments = parser.parse_args()
    memory = None if arguments.memory is None else memory_bytes(arguments.memory)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = copies_of(folder, transactions(folder, arguments.transactions), arguments.copies)
        dsn = fresh_database(folder, "build")
        try:
            waiting = prepare(world, folder, dsn, AsOfBasis(arguments.as_of_basis))
            measurement = build(waiting, folder, dsn, memory)
        finally:
            stop_embedded(folder / "postgres")
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in measurement.stages.items())
    aim_seconds = AIM_SECONDS if arguments.copies == 1 else AIM_SECONDS_OF_COPIES
    aim_bytes = AIM_BYTES if memory is None else memory
    rows = [
        Row(f"whole build, archive to manifest: {measurement.rows:,} rows, {world.source}, {arguments.as_of_basis}",
            f"{measurement.seconds:.1f} s", f"<= {aim_seconds:g} s", measurement.seconds <= aim_seconds),
        Row("seconds of its stages", stages),
        Row("peak memory of the builder and its children", f"{measurement.peak / 1e9:.2f} GB",
            f"<= {aim_bytes / 1e9:g} GB", measurement.peak <= aim_bytes),
        Row("archiving, before it",
            f"{waiting.records / waiting.archive_seconds:,.0f} records/s ({waiting.archive_seconds:.1f} s)"),
    ]  # fmt: skip
    if arguments.feast_rows:
        rows += peer_rows(measurement, arguments.feast_rows)
    figures = Figures(
        suite="build",
        kind="bench",
        title="Build of a training set",
        rows=tuple(rows),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw={
            "stages": measurement.stages,
            "seconds": measurement.seconds,
            "peak_bytes": measurement.peak,
            "archived": waiting.archive_seconds,
        },
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
