"""The summary at the end of the demo."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from ofp_platform.cli.demo.decisions import Latency
from ofp_platform.online.state.progress import Totals


def heading(console: Console, text: str) -> None:
    """A heading with a blank line before it."""
    console.print()
    console.print(text, style="bold", highlight=False)


def facts(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Names and what is said of them, a line each: nothing is cut, so that hashes and commands can be copied."""
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        console.print(f"  {name:<{width}}  {text}", highlight=False, markup=False, soft_wrap=True)


def accounting(totals: Totals) -> list[tuple[str, str]]:
    """Where every record of the log went."""
    counts = totals.counters()
    failures, group_failures = (
        ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"
        for reasons in (totals.failures, totals.group_failures)
    )
    return [
        ("records read", f"{counts['records_read']:,}"),
        ("applied", f"{counts['events_applied']:,}"),
        ("known already", f"{counts['duplicates']:,} copies, which changed nothing"),
        ("not applied", f"{counts['apply_failures']:,}: {failures}"),
        ("not by every group", f"{counts['group_failures']:,} of those applied: {group_failures}"),
        ("ignored", f"{counts['events_ignored']:,} of an unknown type or of another active run"),
        ("anomalies", f"{counts['anomalies']:,} ids seen again with another payload: applied, and reported to operators"),
        ("behind the horizon", f"{counts['late_events']:,} of those applied"),
    ]


def unaccounted(totals: Totals) -> int:
    """Records that were read and are in none of the counts: 0 unless something is wrong."""
    counts = totals.counters()
    accounted_count = counts["events_applied"] + counts["duplicates"] + counts["apply_failures"] + counts["events_ignored"]
    return counts["records_read"] - accounted_count


def latencies(console: Console, rows: Sequence[Latency]) -> None:
    """Milliseconds as the client saw them, one request after the other."""
    width = max(len(row.kind) for row in rows)
    console.print(f"  {'':<{width}}  requests   p50 ms   p90 ms   p99 ms", highlight=False, soft_wrap=True)
    for row in rows:
        figures = f"{row.requests:>8,} {row.p50:>8.2f} {row.p90:>8.2f} {row.p99:>8.2f}"
        console.print(f"  {row.kind:<{width}}  {figures}", highlight=False, soft_wrap=True)
