"""Defects to plant in the plane, each a mistake that somebody could make: a suite that does not find them sees nothing.

A planted defect replaces one function while it is planted; nothing of the plane has a switch for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from ofp_platform.kernel.query import DELAY, WINDOW, LayoutArrays
from ofp_platform.online.projecting import chunk_merge, record_intake
from ofp_platform.online.serving.evaluation import Evaluator
from ofp_platform.online.state.identity_index import ANOMALY, DUPLICATE, NEW, IdentityIndex
from ofp_platform.registry.belonging import Belonging, belonging

Defect = Callable[[], AbstractContextManager[None]]


def moved_edges(plan: LayoutArrays, left: int, right: int) -> LayoutArrays:
    """The same plan, each window beginning `left` and ending `right` microseconds earlier."""
    slots = plan.slots.copy()
    slots[:, WINDOW] += left - right
    slots[:, DELAY] += right
    return replace(plan, slots=slots)


@contextmanager
def _serving_with(left: int, right: int) -> Iterator[None]:
    begin = Evaluator.__init__

    def mistaken(evaluator: Evaluator, *rest: Any) -> None:
        begin(evaluator, *rest)
        evaluator._arrays = {name: moved_edges(arrays, left, right) for name, arrays in evaluator._arrays.items()}

    with patch.object(Evaluator, "__init__", mistaken):
        yield


def left_edge_closed() -> AbstractContextManager[None]:
    """Serving counts an event at exactly T - delay - window."""
    return _serving_with(left=1, right=0)


def right_edge_open() -> AbstractContextManager[None]:
    """Serving does not count an event at exactly T - delay."""
    return _serving_with(left=0, right=1)


@contextmanager
def _identities(seen: int, taken_for: int) -> Iterator[None]:
    admit = IdentityIndex.admit

    def mistaken(index: IdentityIndex, words: Any) -> Any:
        status, earlier = admit(index, words)
        return np.where(status == seen, taken_for, status), earlier

    with patch.object(IdentityIndex, "admit", mistaken):
        yield


def duplicates_counted_twice() -> AbstractContextManager[None]:
    """The projector takes a copy of an event for another event."""
    return _identities(DUPLICATE, NEW)


def conflicts_dropped() -> AbstractContextManager[None]:
    """The projector takes another content of an event for a copy of it."""
    return _identities(ANOMALY, DUPLICATE)


@contextmanager
def skew_one_short() -> Iterator[None]:
    """The projector refuses an event that is ahead of its admission by exactly what is allowed."""

    def mistaken(*rest: Any) -> Belonging:
        arguments = (*rest[:-1], rest[-1] - 1)
        return belonging(*arguments)

    with patch.object(record_intake, "belonging", mistaken):
        yield


@contextmanager
def ties_in_order_of_arrival() -> Iterator[None]:
    """The projector leaves events of equal times as they came."""
    merge = chunk_merge.merge
    with patch.object(chunk_merge, "merge", lambda *rest, ties, limit: merge(*rest, ties=False, limit=limit)):
        yield


DEFECTS: dict[str, Defect] = {
    "a window closed on its left": left_edge_closed,
    "duplicates counted twice": duplicates_counted_twice,
    "a window open on its right": right_edge_open,
    "conflicts dropped": conflicts_dropped,
    "the skew a microsecond short": skew_one_short,
    "ties in the order of arrival": ties_in_order_of_arrival,
}
