"""The projector of the benchmark of freshness starts, follows and ends."""

from __future__ import annotations

from pathlib import Path

from benchmarks.bench_freshness import projector
from ofp_platform.online.plane import Plane
from ofp_platform_tests.oracle.simulated_log import append, profile


def test_the_projector_starts_and_ends(dsn: str, tmp_path: Path) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane.log)
        with projector(plane, tmp_path) as process:
            assert process.poll() is None
        assert process.returncode == 0
