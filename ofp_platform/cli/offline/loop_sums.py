"""The loop of the profile's run, summed up: what the command, the demo and Dagster show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.loop.loop_reconciliation import LoopReconciliation


def sum_up_loop(plane: Plane) -> LoopReconciliation:
    """The reconciliation of all that the decider of the run came by.

    Raises:
        CommandRefused: there is no loop, or nothing of it is decided on yet.
        LogError | psycopg.Error: log or database do not answer.
    """
    from ofp_platform.decisions.event_reader import EventReader
    from ofp_platform.governance.loop_reconciliation import reconcile_loop
    from ofp_platform.log.governance_log import compare_facts
    from ofp_platform.storage.decider_places import decided_span

    profile = plane.profile
    pins, deciding = profile.context_pins, profile.deciding
    if deciding is None:
        raise CommandRefused("the profile declares no `deciding`: the plane itself decides nothing, and there is no loop")
    reader = EventReader(plane.archived_log, pins, deciding.event_type, profile.clock_skew_us)
    with plane.pool.connection() as connection:
        span = decided_span(connection, pins, plane.log.stream_name)
        if span is not None:
            facts = compare_facts(plane.pool)
            sums = reconcile_loop(connection, pins, deciding.event_type, reader.ids_between(*span), span, facts)
            if sums.traffic or sums.decisions:  # a decider may have begun and come by nothing
                return sums
    raise CommandRefused(f"nothing of run {pins.run_id!r} is decided on yet: `ofp decider run` decides")
