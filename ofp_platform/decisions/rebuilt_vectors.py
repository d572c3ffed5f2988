"""Vectors that were not served: the port through which another plane gives them to whoever tries a decision otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ofp_platform.decisions.decided_span import PastDecision
from ofp_platform.vocabulary.loop.flip_cause import Cause, NotRebuilt

Causes = frozenset[Cause]
KeyValues = list[dict[str, Any]]
"""The values of a vector by key, as they are hashed."""


class TriedVector(Protocol):
    """The vector of one decision, as it was recorded and with changes."""

    @property
    def changes(self) -> Causes:
        """The changes that there are in it; changes of what is known that leave it as it was, all together, are none."""
        ...

    def values(self, chosen_changes: Causes) -> KeyValues | None:
        """The vector with these changes, some of `changes`; None: it cannot be computed."""
        ...


class VectorRebuilder(Protocol):
    """Rebuilds vectors of recorded decisions."""

    def rebuild(self, stored_decisions: Sequence[str]) -> Sequence[TriedVector | NotRebuilt]:
        """The vectors of decisions on one, from the stored texts of these; in their order."""
        ...


class ServedVector:
    """The vector as it was served, and nothing else."""

    changes: Causes = frozenset()

    def __init__(self, decision: PastDecision) -> None:
        self._by_key = decision.by_key or []

    def values(self, chosen_changes: Causes) -> KeyValues:
        """As it was served."""
        return self._by_key
