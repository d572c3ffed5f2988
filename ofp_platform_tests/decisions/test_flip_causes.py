"""Causes against their definition, read word for word over all sets of changes."""

from __future__ import annotations

from itertools import chain, combinations

from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.decisions.flip_causes import flip_causes
from ofp_platform.vocabulary.loop.flip_cause import Cause

Changes = frozenset[Cause]


def subsets(changes: list[Cause]) -> list[Changes]:
    return [frozenset(one) for one in chain.from_iterable(combinations(changes, size) for size in range(len(changes) + 1))]


@given(st.lists(st.sampled_from(list(Cause)), unique=True, min_size=1, max_size=5), st.data())
def test_causes_are_what_the_definition_says(changes: list[Cause], draw: st.DataObject) -> None:
    everything = frozenset(changes)
    flipping = {one for one in subsets(changes) if one and (one == everything or draw.draw(st.booleans()))}
    alone = {cause for cause in changes if {cause} in flipping}
    needed = {cause for cause in changes if everything - {cause} not in flipping}
    least = min(len(one) for one in flipping)
    smallest = frozenset().union(*(one for one in flipping if len(one) == least))
    causes = flip_causes(changes, lambda changed: changed in flipping)
    assert set(causes) == (alone or needed or smallest)
    assert list(causes) == [cause for cause in changes if cause in causes]
    assert causes


def test_a_change_that_does_nothing_is_no_cause_of_what_two_others_do_for_each_other() -> None:
    idle, *others = Cause.FEATURE, Cause.RULE, Cause.MODEL, Cause.POSTURE

    def flips(changed: Changes) -> bool:
        return len(changed - {idle}) >= 2

    assert flip_causes([idle, *others], flips) == tuple(others)
