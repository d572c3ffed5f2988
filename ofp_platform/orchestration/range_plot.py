"""A plot of events per range, small enough to live in the event log."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import dagster as dg
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ofp_platform.log.ranges import range_name

SHOWN = 24


def events_per_range(partition_id: str, events: Mapping[int, int], size: int) -> dg.MarkdownMetadataValue:
    """Bars of the events of ranges (number to events), at most the last `SHOWN`, under the line of a full range."""
    numbers = sorted(events)[-SHOWN:]
    figure = Figure(figsize=(6.4, 2.4), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.bar([range_name(number) for number in numbers], [events[number] for number in numbers], color="#4f6bed", width=0.8)
    axes.axhline(size, color="#999999", linewidth=0.8, linestyle="--")
    axes.set_ylabel("events")
    axes.set_title(f"events per range, log partition {partition_id} (dashed: records of a full range)", fontsize=8)
    axes.tick_params(axis="x", rotation=90 if len(numbers) > 6 else 0, labelsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return as_markdown(figure, "events per range")


def as_markdown(figure: Figure, name: str) -> dg.MarkdownMetadataValue:
    """A figure as a picture inside Markdown, which is what Dagster's pages show."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    image_text = base64.b64encode(buffer.getvalue()).decode()
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{image_text})")
