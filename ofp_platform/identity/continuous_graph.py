"""Folds the context stream as it comes, until it is told to stop: an outage is waited out, anything else ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ofp_platform.identity.graph_projector import GraphProjector
from ofp_platform.log.port import LogUnavailable
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.storage.transient import is_transient, outage_words

IDLE_SECONDS = 0.2
RETRY_SECONDS = 1.0


def follow_context(
    open_projector: Callable[[], GraphProjector], stop: threading.Event, *, on_trouble: Callable[[str], None]
) -> None:
    """Apply what the context stream gets, until `stop` is set. `on_trouble` is told of an outage, once for each.

    Raises:
        LogRefused: the stream does not lead on from the basis of the graph.
    """
    projector: GraphProjector | None = None
    is_out = False
    while not stop.is_set():
        try:
            projector = projector or open_projector()
            receipt = projector.apply_available()
        except Exception as error:
            # the archive is asked first whether the stream lost its end
            if not is_transient(error) and not isinstance(error, LogUnavailable | ObjectStoreUnavailable):
                raise
            if not is_out:
                on_trouble(f"the context stream waits: {outage_words(error)}")
            is_out = True
            stop.wait(RETRY_SECONDS)
            continue
        is_out = False
        if receipt is None:
            stop.wait(IDLE_SECONDS)
