"""A decision on served features, small and valid."""

from __future__ import annotations

from ofp_platform.client import ReceivedFeatures
from ofp_platform.decisions.decision_point import CARD_PAYMENTS
from ofp_platform.decisions.event_reader import ReadEvent
from ofp_platform.decisions.recorder import record_of
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform.vocabulary.position import Position

_EVERYTHING_PASSES = CARD_PAYMENTS.rule.model_copy(update={"conditions": ()})


def decision_on(answer: ReceivedFeatures) -> DecisionRecord:
    """On the first record of a partition, by features that knew it."""
    provenance = answer.provenance
    basis = provenance.input_basis
    event = ReadEvent(
        Position(stream_name=basis.stream_name, partition_id=basis.partitions[0].partition_id, offset=0), "one", 0, {}
    )
    return record_of(answer, event, "card_payment", _EVERYTHING_PASSES, 1_800_000_000_000_000)
