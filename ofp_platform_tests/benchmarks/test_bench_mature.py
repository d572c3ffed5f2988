"""A short run of the suite of the mature world: each part gives its rows, and nothing is lost or refused on the way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench_mature import PARTS, TOGETHER, measure, parser
from benchmarks.figures import Row
from ofp_platform.storage.embedded import stop_embedded

SHORT = ["--keys", "500", "--events-per-key", "12", "--seconds", "0.5", "--commits", "3", "--commit-records", "400"]
SHORT += ["--producers", "1", "--turns", "1", "--turn-seconds", "0.3", "--fast-rates", "2000", "--hot-events", "3000"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's own user may enter; those of pytest are closed to others by every run that begins."""
    with tempfile.TemporaryDirectory(prefix="ofp-tests-") as name:
        yield Path(name)


def run(folder: Path, *parts: str, delay: str = "0") -> tuple[list[Row], dict[str, Any]]:
    """Rows and raw results of some parts."""
    try:
        return measure(folder, parser().parse_args([*SHORT, "--delay-ms", delay, "--parts", *parts]))
    finally:
        stop_embedded(folder / "postgres")


def test_all_processes_at_work_together(folder: Path) -> None:
    rows, raw = run(folder, *TOGETHER)
    claims = [row.claim for row in rows]
    assert len(set(claims)) == len(claims) == 1 + 6 + 10 + 5 + 5 + 1
    _check_window(raw["sustained"]["windows"][-1])
    _check_answers(rows, raw, "serving", "hot")
    assert raw["freshness at 1000/s"]["milliseconds"]
    assert raw["freshness at 2000/s"]["milliseconds"]


def test_the_same_behind_a_network(folder: Path) -> None:
    rows, raw = run(folder, "sustained", delay="0.5")
    name = "sustained, behind 0.5 ms of network each way"
    assert sum(row.claim.startswith(name) for row in rows) == 6
    _check_window(raw[name]["windows"][-1])
    assert raw[name]["windows"][-1]["cpu"]["proxy"] > 0


def test_the_projector_alone(folder: Path) -> None:
    rows, raw = run(folder, "commits", "start", "partitions")
    # the first of three commits reads what the projector has to know, and is not counted
    assert raw["commits, later"]["records"] == 2 * 400
    assert min(raw["commits, later"]["wal"], raw["commits, later"]["chunk_rows"]) > 0
    assert raw["start"]["known"] > 100 * 12
    assert min(raw["start"]["seconds"], raw["start"]["memory"], raw["start"]["small"]["memory"]) > 0
    assert sum(row.claim.startswith("32 partitions over 4:") for row in rows) == 3


def test_every_part_is_run_by_a_test() -> None:
    assert set(PARTS) == {*TOGETHER, "commits", "start", "partitions"}


def _check_window(window: dict[str, Any]) -> None:
    assert min(window["records"], window["commits"], window["wal"]) > 0
    assert {"projector", "server", "archiver", "producers", "postgres for bench-projector"} <= set(window["cpu"])


def _check_answers(rows: list[Row], raw: dict[str, Any], *names: str) -> None:
    failures = [row.seen for row in rows if row.claim.endswith("answers other than 200")]
    assert failures
    assert all(seen.startswith("0 of ") for seen in failures)
    for name in names:
        loads = [part for parts in raw[name].values() if isinstance(parts, list) for part in parts]
        assert all(part["requests"] > 0 and part["failures"] == 0 for part in loads)
