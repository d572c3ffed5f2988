"""The compiled loops: scores of n rows, and the share of each of m inputs in them. Sums stay below 2^62: the contract says so."""

from __future__ import annotations

from typing import Any

from numba import types

from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT1, OUT2, native

_PRESENT = types.Array(types.bool_, 2, "C", readonly=True)
_FLAGS = types.Array(types.bool_, 1, "C", readonly=True)
# of all trees, one behind the other: inputs, thresholds, left, right, absent_left, values; roots: where each tree begins
_NODES = (IN1, IN1, IN1, IN1, _FLAGS, IN1, IN1)


@native(NOTHING(IN2, _PRESENT, *_NODES, INTEGER, OUT1))
def score_trees(
    values: Any,
    present: Any,
    inputs: Any,
    thresholds: Any,
    left_children: Any,
    right_children: Any,
    absent_left: Any,
    node_values: Any,
    roots: Any,
    base: Any,
    scores: Any,
) -> None:
    """Write the score of each row. values, present: [n, m]; scores: int64[n]."""
    for row in range(values.shape[0]):
        total = base
        for tree in range(roots.shape[0]):
            node = roots[tree]
            asked_input = inputs[node]
            while asked_input >= 0:
                goes_left = values[row, asked_input] <= thresholds[node] if present[row, asked_input] else absent_left[node]
                node = left_children[node] if goes_left else right_children[node]
                asked_input = inputs[node]
            total += node_values[node]
        scores[row] = total


@native(NOTHING(IN2, _PRESENT, *_NODES, OUT2))
def share_trees(
    values: Any,
    present: Any,
    inputs: Any,
    thresholds: Any,
    left_children: Any,
    right_children: Any,
    absent_left: Any,
    node_values: Any,
    roots: Any,
    shares: Any,
) -> None:
    """Add to each input what its questions changed on the ways of a row. shares: int64[n, m], zeros before."""
    for row in range(values.shape[0]):
        for tree in range(roots.shape[0]):
            node = roots[tree]
            asked_input = inputs[node]
            while asked_input >= 0:
                goes_left = values[row, asked_input] <= thresholds[node] if present[row, asked_input] else absent_left[node]
                child = left_children[node] if goes_left else right_children[node]
                shares[row, asked_input] += node_values[child] - node_values[node]
                node = child
                asked_input = inputs[node]


@native(NOTHING(IN2, _PRESENT, IN1, IN1, IN1, IN1, OUT2))
def share_linear(values: Any, present: Any, weights: Any, references: Any, least: Any, greatest: Any, shares: Any) -> None:
    """Write the share of each input. values, present: [n, m]; shares: int64[n, m]."""
    for row in range(values.shape[0]):
        for asked_input in range(values.shape[1]):
            if present[row, asked_input]:
                value = min(max(values[row, asked_input], least[asked_input]), greatest[asked_input])
                shares[row, asked_input] = weights[asked_input] * (value - references[asked_input])
            else:
                shares[row, asked_input] = 0
