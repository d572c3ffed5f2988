"""Reports of what any driver committed: nothing twice, nothing left out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ofp_platform.log.ranges import shared_ranges
from ofp_platform.online.plane import Plane
from ofp_platform.online.ranges import commit_report
from ofp_platform.online.ranges.catch_up import catch_up
from ofp_platform.online.ranges.commit_report import ReportCursor, report_commits
from ofp_platform.online.ranges.range_apply import apply_ranges
from ofp_platform_tests.oracle.simulated_log import append, deliveries, heads, profile


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    with Plane.open(profile(tmp_path), dsn) as opened:
        yield opened


def test_nothing_before_the_first_commit(plane: Plane) -> None:
    report = report_commits(plane, plane.ensure_live(), None)
    assert (report.moved, report.ranges, report.shared) == ((), (), 0)


def test_each_range_once_and_each_move_once(plane: Plane) -> None:
    append(plane.log)
    row = plane.ensure_live()
    (receipt,) = apply_ranges(plane, row, "0000", [0])
    first = report_commits(plane, row, None)
    assert [one.basis.partition_id for one in first.moved] == ["0000"]
    assert [(one.bounds.partition_id, one.bounds.number) for one in first.ranges] == [("0000", 0)]
    assert first.ranges[0].contents.events == receipt.counts["events"]
    assert dict(first.ranges[0].contents.failures) == dict(receipt.failures)
    assert first.moved[0].totals.applied == receipt.counts["events"]
    assert first.moved[0].lag == heads(plane)["0000"] - 40

    again = report_commits(plane, row, first.cursor)
    assert (again.moved, again.ranges, again.cursor) == ((), (), first.cursor)

    for partition_id in heads(plane):
        catch_up(plane, row, partition_id)
    cursor = ReportCursor.model_validate_json(first.cursor.model_dump_json())
    second = report_commits(plane, row, cursor)
    shared = shared_ranges(plane.ranges.closed())
    assert second.shared == shared
    found = {(one.bounds.partition_id, one.bounds.number) for one in second.ranges}
    assert found == {(name, number) for name in ("0000", "0001") for number in range(shared)} - {("0000", 0)}


def test_a_report_is_bounded_and_the_next_goes_on(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    append(plane.log)
    row = plane.ensure_live()
    for partition_id in heads(plane):
        catch_up(plane, row, partition_id)
    monkeypatch.setattr(commit_report, "RANGES_A_REPORT", 2)
    cursor, seen = None, []
    while (report := report_commits(plane, row, cursor)).ranges:
        assert len(report.ranges) <= 2
        seen += [(one.bounds.partition_id, one.bounds.number) for one in report.ranges]
        cursor = report.cursor
    assert len(seen) == len(set(seen)) == 2 * shared_ranges(plane.ranges.closed())


def test_another_projection_is_reported_from_its_beginning(plane: Plane) -> None:
    append(plane.log, deliveries().part(0, 100))
    row = plane.ensure_live()
    catch_up(plane, row, "0000")
    stale = ReportCursor(projection_id=row.projection_id + 1, offsets={"0000": 10**6}, next_range={"0000": 10**6})
    report = report_commits(plane, row, stale)
    assert report.ranges
    assert report.cursor.projection_id == row.projection_id
