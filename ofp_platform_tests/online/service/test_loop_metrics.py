"""Counts and durations of a loop are told as prometheus_client tells its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from ofp_platform.online.service.loop_metrics import Durations, Tally

BOUNDS = (0.0002, 0.001, 0.5, 1, 5)


def _lines(registry: CollectorRegistry) -> list[str]:
    return sorted(line for line in generate_latest(registry).decode().splitlines() if "_created" not in line)


@given(
    seconds=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(BOUNDS) | st.floats(0, 10))),
    labelled=st.booleans(),
)
def test_they_tell_the_same(seconds: list[tuple[str, float]], labelled: bool) -> None:
    own, theirs = CollectorRegistry(), CollectorRegistry()
    labels = ["route"] if labelled else []
    tally, counter = Tally("n", "some", labels, registry=own), Counter("n", "some", labels, registry=theirs)
    durations = Durations("s", "long", BOUNDS, labels, registry=own)
    histogram = Histogram("s", "long", labels, buckets=BOUNDS, registry=theirs)
    for route, duration in seconds:
        values = (route,) if labelled else ()
        tally.counts[values] += 1
        durations.observe(duration, values)
        (counter.labels(*values) if labelled else counter).inc()
        (histogram.labels(*values) if labelled else histogram).observe(duration)
    assert _lines(own) == _lines(theirs)
