"""A model in exact form, ready to score many rows at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ofp_platform.scoring.loops import score_trees, share_linear, share_trees
from ofp_platform.vocabulary.loop.exact_model import ExactModel, LinearForm, TreesForm

Int64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class _Nodes(NamedTuple):
    inputs: Int64
    thresholds: Int64
    left_children: Int64
    right_children: Int64
    absent_left: Bools
    values: Int64
    roots: Int64


@dataclass(frozen=True)
class CompiledModel:
    """Scores rows of inputs: values int64[n, m] (scaled, in the order of the model's inputs), present bool[n, m]."""

    model: ExactModel

    @property
    def base(self) -> int:
        """The score that shares are counted from, scaled."""
        form = self.model.form
        if isinstance(form, LinearForm):
            return form.base
        return form.base + sum(tree.values[0] for tree in form.trees)

    def scores(self, values: Int64, present: Bools) -> Int64:
        """The score of each row, scaled: int64[n]."""
        values, present = self._as_asked(values, present)
        if isinstance(self.model.form, LinearForm):
            shares: Int64 = self.shares(values, present)
            scores: Int64 = shares.sum(axis=1, dtype=np.int64) + np.int64(self.model.form.base)
            return scores
        scores = np.empty(len(values), np.int64)
        score_trees(values, present, *self._nodes, self.model.form.base, scores)
        return scores

    def shares(self, values: Int64, present: Bools) -> Int64:
        """The share of each input in each score, int64[n, m]: with `base` they add up to the score, to the last digit."""
        values, present = self._as_asked(values, present)
        shares = np.zeros(values.shape, np.int64)
        form = self.model.form
        if isinstance(form, LinearForm):
            weights, references = np.array(form.weights, np.int64), np.array(form.references, np.int64)
            least, greatest = np.array(form.least, np.int64), np.array(form.greatest, np.int64)
            share_linear(values, present, weights, references, least, greatest, shares)
        else:
            share_trees(values, present, *self._nodes, shares)
        return shares

    def _as_asked(self, values: Int64, present: Bools) -> tuple[Int64, Bools]:
        """Refuse arrays that are not those of the model's inputs; put what an absent value counts as in its place."""
        count = len(self.model.inputs)
        if values.ndim != 2 or values.shape[1] != count or present.shape != values.shape:
            raise ValueError(
                f"{self.model.model_name} takes {count} inputs a row, not arrays of {values.shape} and {present.shape}"
            )
        for column, asked_input in enumerate(self.model.inputs):
            if asked_input.absent is not None and not present[:, column].all():
                values, present = values.copy(), present.copy()
                values[~present[:, column], column] = asked_input.absent
                present[:, column] = True
        return np.ascontiguousarray(values), np.ascontiguousarray(present)

    @cached_property
    def _nodes(self) -> _Nodes:
        form = self.model.form
        assert isinstance(form, TreesForm)
        sizes = [len(tree.inputs) for tree in form.trees]
        roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

        def join(name: str, kind: Any, *, is_place: bool = False) -> Any:
            columns: list[Sequence[Any]] = [getattr(tree, name) for tree in form.trees]
            arrays = [np.array(column, kind) for column in columns]
            return np.concatenate([array + root if is_place else array for array, root in zip(arrays, roots, strict=True)])

        return _Nodes(
            join("inputs", np.int64),
            join("thresholds", np.int64),
            join("left_children", np.int64, is_place=True),
            join("right_children", np.int64, is_place=True),
            join("absent_left", np.bool_),
            join("values", np.int64),
            roots,
        )
