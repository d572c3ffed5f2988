"""The identity links of a run, read anew from their stream, for whatever is rebuilt of groups that resolve identities."""

from __future__ import annotations

from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.log.port import EventLog
from ofp_platform.offline.sources.replay_reading import replaying
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused


def run_links(context_log: EventLog | None, pins: ContextPins, clock_skew_us: int, field: str) -> ContextReplay:
    """All links of a run.

    Raises:
        BuildRefused: BASIS_UNRESOLVED, there is no context stream; REPLAY_INCOMPLETE; STORE_UNAVAILABLE.
    """
    if context_log is None:
        text = (
            "a group resolves identities, and there is no stream of links: the profile names no context_stream, or nobody made it"
        )
        raise BuildRefused(BuildReason.BASIS_UNRESOLVED, text, field)
    with replaying(field):
        return ContextReplay.read(context_log, pins, clock_skew_us)
