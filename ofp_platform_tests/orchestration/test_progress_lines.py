"""A long run tells how far it is, not more often than every ten seconds."""

from __future__ import annotations

from ofp_platform.orchestration.progress_lines import ProgressLines


def test_a_line_every_ten_seconds() -> None:
    lines: list[str] = []
    now = [100.0]
    progress = ProgressLines(lines.append, "rebuild", "records", 4_000, clock=lambda: now[0])
    for _ in range(31):
        now[0] += 1
        progress.add(100)
    assert lines == [
        "rebuild: 1,000 of 4,000 records (25%), 10 s since it began",
        "rebuild: 2,000 of 4,000 records (50%), 20 s since it began",
        "rebuild: 3,000 of 4,000 records (75%), 30 s since it began",
    ]


def test_no_total_and_another_activity() -> None:
    lines: list[str] = []
    now = [0.0]
    progress = ProgressLines(lines.append, "plan", "bytes held", clock=lambda: now[0])
    progress.doing, now[0] = "after plan", 12.0
    progress.reach(5_000)
    assert lines == ["after plan: 5,000 bytes held, 12 s since it began"]
