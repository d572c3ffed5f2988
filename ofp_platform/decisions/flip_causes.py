"""From changes that flip a decision together to those that do it: each put in place alone, or taken away alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from ofp_platform.vocabulary.loop.flip_cause import Cause


def flip_causes(changes: Sequence[Cause], flips: Callable[[frozenset[Cause]], bool]) -> tuple[Cause, ...]:
    """The causes of a flip, in the order of `changes`, all of which together flip it.

    Every change that flips it alone; where none does, those without which it does not flip; where there are none either (some do
    for others), those of the smallest sets that flip it.
    """
    alone = [cause for cause in changes if flips(frozenset({cause}))]
    if alone:
        return tuple(alone)
    all_changes = frozenset(changes)
    needed_causes = [cause for cause in changes if not flips(all_changes - {cause})]
    if needed_causes:
        return tuple(needed_causes)
    for size in range(2, len(changes)):
        flipping_sets = [causes for causes in combinations(changes, size) if flips(frozenset(causes))]
        if flipping_sets:
            return tuple(cause for cause in changes if any(cause in causes for causes in flipping_sets))
    return tuple(changes)
