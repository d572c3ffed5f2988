"""A short run of the suite of the mature world: each part gives its rows, with and without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench_mature import PARTS, measure, parser
from ofp_platform.storage.embedded import stop_embedded

SHORT = ["--keys", "500", "--events-per-key", "12", "--seconds", "0.5", "--commits", "3", "--commit-records", "400"]


@pytest.mark.parametrize("delay", ["0", "0.5"])
def test_all_processes_run_together(tmp_path: Path, delay: str) -> None:
    arguments = parser().parse_args([*SHORT, "--delay-ms", delay, "--parts", "sustained"])
    try:
        rows, raw = measure(tmp_path, arguments)
    finally:
        stop_embedded(tmp_path / "postgres")
    claims = [row.claim for row in rows]
    assert sum("behind 0.5 ms" in claim for claim in claims) == (6 if delay == "0.5" else 0)
    window = raw["sustained"]["windows"][-1]
    assert min(window["records"], window["commits"], window["wal"]) > 0
    assert {"projector", "server", "archiver", "producers", "postgres for bench-projector"} <= set(window["cpu"])


def test_commits_alone_are_all_applied(tmp_path: Path) -> None:
    arguments = parser().parse_args([*SHORT, "--delay-ms", "0", "--parts", "commits"])
    try:
        rows, raw = measure(tmp_path, arguments)
    finally:
        stop_embedded(tmp_path / "postgres")
    assert len(rows) == 5
    # the first of three commits reads what the projector has to know, and is not counted
    assert raw["commits, later"]["records"] == 2 * 400
    assert min(raw["commits, later"]["wal"], raw["commits, later"]["chunk_rows"]) > 0


def test_every_part_is_run_by_a_test() -> None:
    assert set(PARTS) == {"sustained", "commits"}
