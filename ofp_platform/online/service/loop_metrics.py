"""Counts and durations of one event loop in Prometheus form.

prometheus_client's own take a lock and several calls each, which shows beside an answer from the cache. These are plain numbers,
which become samples only when somebody asks for them. They belong to one event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_NO_LABELS: tuple[str, ...] = ()


class Tally(Collector):
    """A counter: `counts` by the values of its labels."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = (), *, registry: CollectorRegistry) -> None:
        self._described = name, help_text
        self._labels = labels
        self.counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
        if not labels:
            self.counts[_NO_LABELS] = 0
        registry.register(self)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The samples of now."""
        family = CounterMetricFamily(*self._described, labels=self._labels)
        for values, count in self.counts.items():
            family.add_metric(values, count)
        yield family


class Durations(Collector):
    """A histogram of seconds. `bounds`: the upper bounds of its buckets, ascending; a last one without a bound is added."""

    def __init__(
        self, name: str, help_text: str, bounds: Iterable[float], labels: Sequence[str] = (), *, registry: CollectorRegistry
    ) -> None:
        self._described = name, help_text
        self._labels = labels
        self._bounds = tuple(bounds)
        self._names = [str(floatToGoString(bound)) for bound in (*self._bounds, float("inf"))]  # type: ignore[no-untyped-call]
        self._counts: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(self._names))
        self._sums: defaultdict[tuple[str, ...], float] = defaultdict(float)
        if not labels:
            self._counts[_NO_LABELS] = [0] * len(self._names)
        registry.register(self)

    def observe(self, seconds: float, values: tuple[str, ...] = _NO_LABELS) -> None:
        """One duration; `values` of the labels."""
        self._counts[values][bisect_left(self._bounds, seconds)] += 1
        self._sums[values] += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The samples of now."""
        family = HistogramMetricFamily(*self._described, labels=self._labels)
        for values, counts in self._counts.items():
            buckets = list(zip(self._names, accumulate(counts), strict=True))
            family.add_metric(values, buckets, self._sums[values])
        yield family
