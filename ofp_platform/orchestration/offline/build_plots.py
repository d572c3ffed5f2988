"""Plots of a build, small enough to live in the event log: what labels cover, how parity went, what models score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ofp_platform.orchestration.range_plot import as_markdown

GOOD, BAD, UNKNOWN = "#4f6bed", "#d1495b", "#b8bfcc"
COLOURS = (GOOD, BAD, "#2a9d8f", "#e9a03b", "#7b5ea7", "#8c6d4f", "#3d8bb8", "#a3b552", "#5c6470")
_TICKS = 4


def label_coverage_by_day(by_day: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """Rows of each day as bars: covered, mature without a label, immature. `by_day` has day, rows, mature, immature, covered."""
    days = [str(row["day"]) for row in by_day]
    covered_counts = [int(row["covered"]) for row in by_day]
    silent = [int(row["mature"]) - int(row["covered"]) for row in by_day]
    immature = [int(row["immature"]) for row in by_day]
    return _stacked(
        days,
        {"covered": (covered_counts, GOOD), "mature, not covered": (silent, BAD), "immature": (immature, UNKNOWN)},
        "rows",
        "label maturity and coverage, by the day of the event",
    )


def parity_by_day(days: Mapping[str, Mapping[str, int]]) -> dg.MarkdownMetadataValue:
    """Compared decisions of each day as bars, by outcome. `days`: day to outcome to count."""
    ordered_days = sorted(days)
    outcomes = (("MATCH", GOOD), ("MISMATCH", BAD), ("UNCHECKABLE", UNKNOWN))
    series = {outcome: ([days[day].get(outcome, 0) for day in ordered_days], colour) for outcome, colour in outcomes}
    return _stacked(ordered_days, series, "decisions", "parity of served and rebuilt vectors, by the day of the decision's as-of")


def flips_by_day(days: Mapping[str, Mapping[str, int]]) -> dg.MarkdownMetadataValue:
    """Flipped decisions of each day as bars, by cause. `days`: day to cause to count."""
    ordered_days = sorted(days)
    causes = sorted({cause for counts in days.values() for cause in counts})
    series = {
        cause: ([days[day].get(cause, 0) for day in ordered_days], COLOURS[place % len(COLOURS)])
        for place, cause in enumerate(causes)
    }
    return _stacked(ordered_days, series, "decisions", "flips by cause, by the day of the event")


def counts_by_name(counts: Mapping[str, int], unit: str, title: str) -> dg.MarkdownMetadataValue:
    """One bar for each name, the greatest first, at most 20."""
    shown_counts = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]
    figure, axes = _axes(0.9 + 0.22 * max(len(shown_counts), 3))
    axes.barh(
        [name for name, _ in reversed(shown_counts)], [count for _, count in reversed(shown_counts)], color=GOOD, height=0.7
    )
    axes.set_xlabel(unit)
    _finish(axes, title)
    return as_markdown(figure, title)


def model_scores(scores: Mapping[str, Mapping[str, float]]) -> dg.MarkdownMetadataValue:
    """Bars of each model's scores, grouped by score. `scores`: model to score to value in [0, 1]."""
    names = list(next(iter(scores.values()), {}))
    figure, axes = _axes(2.4)
    width = 0.8 / max(len(scores), 1)
    for place, (model, values) in enumerate(scores.items()):
        axes.bar([index + place * width for index in range(len(names))], [values[name] for name in names], width, label=model)
    axes.set_xticks([index + 0.4 - width / 2 for index in range(len(names))], names)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=7, frameon=False)
    _finish(axes, "scores on the test days")
    return as_markdown(figure, "scores on the test days")


def _stacked(
    days: Sequence[str], series: Mapping[str, tuple[Sequence[int], str]], unit: str, title: str
) -> dg.MarkdownMetadataValue:
    figure, axes = _axes(2.6)
    bottom = [0] * len(days)
    for name, (counts, colour) in series.items():
        axes.bar(range(len(days)), counts, 0.9, bottom, color=colour, label=name)
        bottom = [below + count for below, count in zip(bottom, counts, strict=True)]
    step = max(len(days) // _TICKS, 1)
    axes.set_xticks(range(0, len(days), step), days[::step])
    axes.set_ylabel(unit)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _finish(axes, title)
    return as_markdown(figure, title)


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
