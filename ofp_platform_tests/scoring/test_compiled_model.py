"""Compiled scores and shares against the naive reading of a model, in Python's own integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ofp_platform.scoring.compiled_model import CompiledModel
from ofp_platform.vocabulary.loop.exact_model import ExactModel, FeatureInput, LinearForm, PayloadInput, Tree, TreesForm

SMALL = st.integers(-1_000, 1_000)


def inputs(count: int, absent: list[int | None]) -> tuple[FeatureInput, ...]:
    return tuple(
        FeatureInput(group_name="g", group_version="v1", feature=f"f{number}", scale=2, absent=absent[number])
        for number in range(count)
    )


@st.composite
def trees(draw: st.DrawFn, count: int) -> Tree:
    """A tree grown by splitting leaves, each child behind its parent."""
    asked, thresholds, left_children, right_children, absent_left = [-1], [0], [-1], [-1], [False]
    for _ in range(draw(st.integers(0, 6))):
        leaf = draw(st.sampled_from([node for node, place in enumerate(asked) if place < 0]))
        asked[leaf], thresholds[leaf] = draw(st.integers(0, count - 1)), draw(SMALL)
        left_children[leaf], right_children[leaf], absent_left[leaf] = len(asked), len(asked) + 1, draw(st.booleans())
        for column, empty in ((asked, -1), (thresholds, 0), (left_children, -1), (right_children, -1), (absent_left, False)):
            column += [empty, empty]  # type: ignore[operator]
    return Tree(
        inputs=asked,  # type: ignore[arg-type]
        thresholds=thresholds,  # type: ignore[arg-type]
        left_children=left_children,  # type: ignore[arg-type]
        right_children=right_children,  # type: ignore[arg-type]
        absent_left=absent_left,  # type: ignore[arg-type]
        values=draw(st.lists(SMALL, min_size=len(asked), max_size=len(asked))),  # type: ignore[arg-type]
    )


@st.composite
def models(draw: st.DrawFn) -> ExactModel:
    count = draw(st.integers(1, 4))
    absent = draw(st.lists(st.none() | SMALL, min_size=count, max_size=count))
    form: LinearForm | TreesForm
    if draw(st.booleans()):
        columns = [draw(st.lists(SMALL, min_size=count, max_size=count)) for _ in range(3)]
        least = [draw(st.integers(-1_000, 0)) for _ in range(count)]
        form = LinearForm(
            base=draw(SMALL),
            weights=tuple(columns[0]),
            references=tuple(columns[1]),
            least=tuple(least),
            greatest=tuple(low + draw(st.integers(0, 900)) for low in least),
        )
    else:
        form = TreesForm(base=draw(SMALL), trees=tuple(draw(st.lists(trees(count), min_size=1, max_size=4))))
    return ExactModel(model_name="m", inputs=inputs(count, absent), score_scale=3, score_kind="log_odds", form=form)


def told(model: ExactModel, row: list[int | None]) -> tuple[int, list[int]]:
    """The score of one row and each input's share, as the contract says it."""
    row = [asked.absent if value is None else value for value, asked in zip(row, model.inputs, strict=True)]
    shares = [0] * len(row)
    if isinstance(model.form, LinearForm):
        for place, value in enumerate(row):
            if value is not None:
                cut = max(model.form.least[place], min(model.form.greatest[place], value))
                shares[place] = model.form.weights[place] * (cut - model.form.references[place])
        return model.form.base + sum(shares), shares
    score = model.form.base
    for tree in model.form.trees:
        node = 0
        while (place := tree.inputs[node]) >= 0:
            value = row[place]
            goes_left = tree.absent_left[node] if value is None else value <= tree.thresholds[node]
            child = tree.left_children[node] if goes_left else tree.right_children[node]
            shares[place] += tree.values[child] - tree.values[node]
            node = child
        score += tree.values[node]
    return score, shares


@given(model=models(), data=st.data())
def test_scores_and_shares_are_those_of_the_contract(model: ExactModel, data: st.DataObject) -> None:
    count = len(model.inputs)
    rows = data.draw(st.lists(st.lists(st.none() | SMALL, min_size=count, max_size=count), min_size=1, max_size=6))
    present = np.array([[value is not None for value in row] for row in rows])
    values = np.array([[value or 0 for value in row] for row in rows], np.int64)
    compiled = CompiledModel(model)
    scores, shares = compiled.scores(values, present), compiled.shares(values, present)
    assert [(int(score), share.tolist()) for score, share in zip(scores, shares, strict=True)] == [
        told(model, row) for row in rows
    ]
    assert (shares.sum(axis=1) + compiled.base == scores).all()


def test_what_a_model_says_it_stores_and_reads_again() -> None:
    model = ExactModel(
        model_name="m",
        inputs=(PayloadInput(field="amount", scale=0),),
        score_scale=2,
        score_kind="log_odds",
        form=LinearForm(base=5, weights=(3,), references=(1,), least=(0,), greatest=(9,)),
    )
    assert ExactModel.model_validate_json(model.stored()) == model
    assert ExactModel.model_validate_json(model.stored()).digest == model.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": (2**50,), "greatest": (2**40,)}, "could pass 2\\^62"),
        ({"weights": (1, 2)}, "must be of one length"),
        ({"least": (5,), "greatest": (4,)}, "lies above its greatest"),
    ],
)
def test_a_linear_form_that_could_be_wrong_is_refused(change: dict[str, tuple[int, ...]], words: str) -> None:
    columns = {"weights": (1,), "references": (0,), "least": (0,), "greatest": (1,), **change}
    with pytest.raises(ValidationError, match=words):
        LinearForm(base=0, **columns)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"left_children": (0, -1, -1)}, "a child stands behind its parent"),
        ({"right_children": (3, -1, -1)}, "a child stands behind its parent"),
        ({"inputs": (-2, -1, -1)}, "there is no input -2"),
        ({"values": (0, 1)}, "must be of one length"),
    ],
)
def test_what_is_no_tree_is_refused(change: dict[str, tuple[int, ...]], words: str) -> None:
    columns: dict[str, tuple[int, ...]] = {"inputs": (0, -1, -1), "thresholds": (5, 0, 0), "left_children": (1, -1, -1)}
    columns |= {"right_children": (2, -1, -1), "values": (0, 1, 2)}
    with pytest.raises(ValidationError, match=words):
        Tree(absent_left=(False, False, False), **{**columns, **change})


def lone_leaf(value: int) -> Tree:
    head = {"inputs": (-1,), "thresholds": (0,), "left_children": (-1,), "right_children": (-1,), "absent_left": (False,)}
    return Tree(**head, values=(value,))


def test_trees_whose_sum_could_wrap_and_inputs_that_are_not_there_are_refused() -> None:
    leaf = Tree(
        inputs=(-1,), thresholds=(0,), left_children=(-1,), right_children=(-1,), absent_left=(False,), values=(2**53 - 1,)
    )
    with pytest.raises(ValidationError, match="could pass 2\\^62"):
        TreesForm(base=0, trees=(leaf,) * 300)
    split = Tree(
        inputs=(1, -1, -1),
        thresholds=(0, 0, 0),
        left_children=(1, -1, -1),
        right_children=(2, -1, -1),
        absent_left=(False,) * 3,
        values=(0, 0, 0),
    )
    head = {"model_name": "m", "score_scale": 0, "score_kind": "log_odds"}
    with pytest.raises(ValidationError, match="asks an input beyond the 1"):
        ExactModel(inputs=inputs(1, [None]), form=TreesForm(base=0, trees=(split,)), **head)
    with pytest.raises(ValidationError, match="an input is named twice"):
        ExactModel(inputs=inputs(1, [None]) * 2, form=TreesForm(base=0, trees=(split,)), **head)


def test_rows_of_other_inputs_are_refused() -> None:
    leaf = lone_leaf(7)
    form = TreesForm(base=1, trees=(leaf,))
    model = ExactModel(model_name="m", inputs=inputs(2, [None, None]), score_scale=0, score_kind="log_odds", form=form)
    with pytest.raises(ValueError, match="m takes 2 inputs a row"):
        CompiledModel(model).scores(np.zeros((3, 1), np.int64), np.ones((3, 1), np.bool_))
