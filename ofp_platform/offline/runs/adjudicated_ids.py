"""Conflicting ids of a replay, held against the adjudications that a plan pins."""

from __future__ import annotations

from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.models import event_class
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.event_anomaly import EventAnomaly

CountingRecords = dict[tuple[str, str], tuple[str, int | str]]
"""By event type and id: partition and offset of the record whose content alone makes rows."""


def adjudicated_ids(
    plan: BuildPlan, registry: CompiledRegistry, folded_replay: FoldedReplay
) -> tuple[CountingRecords, list[EventAnomaly]]:
    """The records that count, under every type of their class; and the ids of which nobody decided.

    A decision for a record that has none of the id's contents decides nothing.
    """
    events = registry.pack.events
    decisions = {adjudication.name: adjudication for adjudication in plan.adjudications or ()}
    records: CountingRecords = {}
    undecided = []
    for anomaly in folded_replay.anomalies:
        name = event_class(events, anomaly.event_type)
        decision = decisions.get((name, anomaly.event_id))
        if decision is None or (decision.partition_id, str(decision.offset)) not in anomaly.positions:
            undecided.append(anomaly)
            continue
        for event_type in {anomaly.event_type, *events}:
            if event_class(events, event_type) == name:
                records[event_type, anomaly.event_id] = decision.partition_id, decision.offset
    return records, undecided
