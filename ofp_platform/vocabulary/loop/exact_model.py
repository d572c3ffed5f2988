"""Models in exact form: thresholds are the features' own decimals, weights and leaves are scaled integers, a score is their sum.

Every number of an input is an integer: the value times 10^scale of the input. A score is an integer, too: times 10^score_scale of
the model. A model says what it would score for reference inputs (`base`), and each input has a share in what differs from that.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import MAX_INTEGER, canonical_bytes, sha256_hex
from ofp_platform.vocabulary.model import Model, Name
from ofp_platform.vocabulary.offline.build_intent import Integer
from ofp_platform.vocabulary.serving import GroupVersion, Version

MOST_SCALE = 18
_SUM_BOUND = 2**62
Scale = Annotated[int, Field(ge=0, le=MOST_SCALE, description="decimal digits behind the point")]
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Absent = Annotated[
    Integer | None, Field(description="the scaled integer that an absent value counts as; null: the model's own way")
]


class FeatureInput(Model):
    """A feature of the vector; booleans count as 0 and 1."""

    source: Literal["feature"] = "feature"
    group_name: Name
    group_version: GroupVersion
    feature: Name
    scale: Scale
    absent: Absent = None

    @property
    def name(self) -> str:
        """As the column of a dataset is called."""
        return f"{self.group_name}_{self.group_version}__{self.feature}"


class PayloadInput(Model):
    """A field of the event's payload: an integer, or a decimal as a string."""

    source: Literal["payload"] = "payload"
    field: FieldName
    scale: Scale
    absent: Absent = None

    @property
    def name(self) -> str:
        """As the column of a dataset is called."""
        return f"payload__{self.field}"


class TimeInput(Model):
    """A flag of the event's own time, in UTC: during_weekend (Saturday, Sunday), during_night (before seven)."""

    source: Literal["event_time"] = "event_time"
    part: Literal["during_weekend", "during_night"]

    @property
    def name(self) -> str:
        """The flag."""
        return self.part

    @property
    def scale(self) -> int:
        """Flags are integers."""
        return 0

    @property
    def absent(self) -> None:
        """Every event has a time."""
        return


ModelInput = Annotated[FeatureInput | PayloadInput | TimeInput, Field(discriminator="source")]


class LinearForm(Model):
    """base + the sum of weights[i] * (x[i] - references[i]), x[i] cut to least[i]..greatest[i]; an absent x[i] has no share."""

    form: Literal["linear"] = "linear"
    base: Integer
    weights: tuple[Integer, ...] = Field(strict=False)
    references: tuple[Integer, ...] = Field(strict=False)
    least: tuple[Integer, ...] = Field(strict=False)
    greatest: tuple[Integer, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        columns = (self.weights, self.references, self.least, self.greatest)
        if len({len(column) for column in columns}) != 1:
            raise ValueError("weights, references, least and greatest must be of one length")
        greatest_sum = abs(self.base)
        for weight, reference, least, greatest in zip(*columns, strict=True):
            if least > greatest:
                raise ValueError("an input's least lies above its greatest")
            greatest_sum += abs(weight) * max(abs(least - reference), abs(greatest - reference))
        if greatest_sum >= _SUM_BOUND:
            raise ValueError("a score could pass 2^62: cut the inputs to smaller ranges, or lower the scale of the score")
        return self


class Tree(Model):
    """Nodes in arrays, the root first, each child behind its parent. inputs: the index of the input that a node asks, -1: a leaf;
    left is gone where x <= threshold, or where x is absent and absent_left says so. values: of every node, the score of an event
    about which nothing more is known; that of its leaf is what the tree adds.
    """

    inputs: tuple[int, ...] = Field(strict=False, min_length=1)
    thresholds: tuple[Integer, ...] = Field(strict=False)
    left_children: tuple[int, ...] = Field(strict=False)
    right_children: tuple[int, ...] = Field(strict=False)
    absent_left: tuple[bool, ...] = Field(strict=False)
    values: tuple[Integer, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        count = len(self.inputs)
        columns = (self.thresholds, self.left_children, self.right_children, self.absent_left, self.values)
        if {len(column) for column in columns} != {count}:
            raise ValueError("the arrays of a tree must be of one length")
        for node, (asked_input, left_children, right_children) in enumerate(
            zip(self.inputs, self.left_children, self.right_children, strict=True)
        ):
            if asked_input >= 0 and not (node < left_children < count and node < right_children < count):
                raise ValueError(f"node {node}: a child stands behind its parent, inside the tree")
            if asked_input < -1:
                raise ValueError(f"node {node}: there is no input {asked_input}")
        return self

    def depth(self) -> int:
        """Questions on the longest way to a leaf."""
        depths = [0] * len(self.inputs)
        for node, asked_input in enumerate(self.inputs):
            if asked_input >= 0:
                for child in (self.left_children[node], self.right_children[node]):
                    depths[child] = max(depths[child], depths[node] + 1)
        return max(depths)


class TreesForm(Model):
    """base + what the leaf of each tree says."""

    form: Literal["trees"] = "trees"
    base: Integer
    trees: tuple[Tree, ...] = Field(strict=False, min_length=1)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        greatest_sum = abs(self.base)
        for tree in self.trees:
            greatest_sum += 2 * (tree.depth() + 1) * max(map(abs, tree.values))
        if greatest_sum >= _SUM_BOUND:
            raise ValueError("a score, or an input's share, could pass 2^62: lower the scale of the score")
        return self


class ExactModel(Model):
    """A model in exact form. `score_kind`: of a score without its scale, the probability or the logarithm of the odds."""

    kind: Literal["exact_model"] = "exact_model"
    contract_version: Version = "v0"
    model_name: Name
    inputs: tuple[ModelInput, ...] = Field(strict=False, min_length=1)
    score_scale: Scale
    score_kind: Literal["probability", "log_odds"]
    form: Annotated[LinearForm | TreesForm, Field(discriminator="form")]

    @model_validator(mode="after")
    def _of_its_inputs(self) -> Self:
        count = len(self.inputs)
        names = [asked_input.name for asked_input in self.inputs]
        if len(set(names)) != count:
            raise ValueError("an input is named twice")
        if isinstance(self.form, LinearForm):
            if len(self.form.weights) != count:
                raise ValueError(f"{count} inputs need {count} weights, not {len(self.form.weights)}")
        elif any(max(tree.inputs) >= count for tree in self.form.trees):
            raise ValueError(f"a tree asks an input beyond the {count} of the model")
        return self

    def stored(self) -> bytes:
        """The canonical bytes of it all."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 over `stored`."""
        return sha256_hex(self.stored())


MAX_INPUT = MAX_INTEGER
"""A scaled input beyond this, or its negative, counts as it: in training, in evaluation, and when it decides."""
