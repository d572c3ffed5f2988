"""The label store as whoever asserts one label sees it: stored, refused in words, or away."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.registry.models import EventRouting, event_class
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion


def classes_of(events: Mapping[str, EventRouting]) -> list[str]:
    """The event classes of a pack, sorted: labels are about events of these."""
    return sorted({event_class(events, event_type) for event_type in events})


class LabelIntake:
    """Takes labels about events of a pack (`events`) into the store of a run, one at a time. `admitted_at`: see `append`."""

    def __init__(
        self,
        store: LabelStore,
        events: Mapping[str, EventRouting],
        admitted_at: Callable[[LabelAssertion], int] | None = None,
    ) -> None:
        self._store = store
        self._admitted_at = admitted_at
        self._classes = classes_of(events)

    def __call__(self, assertion: LabelAssertion, submitted_by: str) -> str | None:
        """Store an assertion durably; None: it is stored, now or before. Else why it is refused, in words.

        Raises:
            BuildRefused: STORE_UNAVAILABLE, the store does not answer: ask again.
        """
        if assertion.event_class not in self._classes:
            return f"the pack has no events of class {assertion.event_class}; it has {', '.join(self._classes)}"
        try:
            self._store.append([assertion], self._admitted_at, submitted_by)
        except BuildRefused as error:
            if error.retryable:
                raise
            return error.message
        return None
