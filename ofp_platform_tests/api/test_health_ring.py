"""Health over time: bounded, shared by workers, kept over a restart; what was not observed is a hole and never a zero."""

from __future__ import annotations

from multiprocessing import get_context
from pathlib import Path

import pytest

from ofp_platform.api.examples import health_example
from ofp_platform.api.health_ring import STEP_SECONDS, HealthRing
from ofp_platform.vocabulary.health_history import HealthHistory
from ofp_platform.vocabulary.serving import Health, PostureState

NOW = 1_775_000_005.0
DAY = 86_400


def health(lag: int | None, state: str = "GREEN", age: int | None = 2) -> Health:
    partitions = [] if lag is None else [{"partition_id": "0000", "lag_records": lag}]
    return Health.model_validate({**health_example(), "partitions": partitions, "state": state, "watermark_age_seconds": age})


def known(history: HealthHistory) -> list[tuple[str, PostureState | None, int | None]]:
    return [(one.at_utc, one.state, one.lag_records) for one in history.samples if one.state is not None]


@pytest.mark.parametrize("in_file", [True, False])
def test_an_hour_has_a_sample_for_each_step_and_holes_where_nothing_was_observed(tmp_path: Path, in_file: bool) -> None:
    ring = HealthRing(tmp_path / "home" / "ring" if in_file else None)
    assert known(ring.history(NOW, 1)) == []
    ring.record(health(7), NOW - 100)
    ring.record(health(None, "AMBER", None), NOW - 50)
    ring.record(None, NOW)
    history = ring.history(NOW, 1)
    assert (history.seconds, len(history.samples)) == (STEP_SECONDS, 360)
    assert [state for _, state, _ in known(history)] == ["GREEN", "AMBER", "RED"]
    assert [lag for _, _, lag in known(history)] == [7, None, None]
    assert history.samples[-1].at_utc == "2026-03-31T23:33:20Z"
    assert history.samples[-2].state is None


def test_a_day_is_told_by_the_worst_of_each_span_and_no_more_is_kept(tmp_path: Path) -> None:
    ring = HealthRing(tmp_path / "ring")
    start = int(NOW) // 180 * 180
    for seconds in range(0, 180, 10):
        ring.record(health(seconds, "RED" if seconds == 60 else "GREEN"), start + seconds)
    history = ring.history(start + 179, 24)
    assert (history.seconds, len(history.samples)) == (180, 480)
    assert (history.samples[-1].state, history.samples[-1].lag_records) == (PostureState.RED, 170)
    size = (tmp_path / "ring").stat().st_size
    for tick in range(0, 3 * DAY, 600):
        ring.record(health(1), start + tick)
    assert (tmp_path / "ring").stat().st_size <= 8_640 * 32
    assert size <= 8_640 * 32
    later = ring.history(start + 3 * DAY, 24)
    assert len(later.samples) == 480
    assert {one.lag_records for one in later.samples} == {1, None}


def test_a_moment_that_is_to_come_is_not_shown_and_the_clock_may_step_back(tmp_path: Path) -> None:
    ring = HealthRing(tmp_path / "ring")
    ring.record(health(5), NOW + 3_600)
    assert known(ring.history(NOW, 24)) == []
    ring.record(health(6), NOW)
    assert [lag for _, _, lag in known(ring.history(NOW, 24))] == [6]


def _write(path: Path, lag: int) -> None:
    ring = HealthRing(path)
    for tick in range(100):
        ring.record(health(lag, "AMBER" if lag == 2 else "GREEN"), NOW + 10 * tick)


def test_workers_share_it_and_it_outlives_them(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    workers = [get_context("spawn").Process(target=_write, args=(path, lag)) for lag in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    _write(path, 1)
    samples = known(HealthRing(path).history(NOW + 990, 1))
    assert len(samples) == 100
    assert {lag for _, _, lag in samples} <= {1, 2}
    _write(path, 2)
    assert {lag for _, _, lag in known(HealthRing(path).history(NOW + 990, 1))} == {2}


def test_what_is_damaged_is_a_hole(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    ring = HealthRing(path)
    for tick in range(3):
        ring.record(health(tick + 1), NOW + 10 * tick)
    content = bytearray(path.read_bytes())
    place = next(place for place in range(0, len(content), 32) if any(content[place : place + 32]))
    content[place + 9] ^= 1
    path.write_bytes(content)
    assert [lag for _, _, lag in known(ring.history(NOW + 20, 1))] == [2, 3]
    path.write_bytes(b"short")
    assert known(ring.history(NOW + 20, 1)) == []
    ring.record(health(9), NOW)
    assert [lag for _, _, lag in known(ring.history(NOW, 1))] == [9]


def test_a_file_that_cannot_be_written_is_told_once_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    ring = HealthRing(tmp_path / "file" / "ring")
    ring.record(health(1), NOW)
    ring.record(health(1), NOW + 10)
    assert len([one for one in caplog.records if "not kept over time" in one.message]) == 1


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "ring").symlink_to(tmp_path / "elsewhere")
    HealthRing(tmp_path / "ring").record(health(1), NOW)
    assert (tmp_path / "elsewhere").read_text() == "kept"
