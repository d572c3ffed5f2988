"""Spans of a door: each record that it took, and the append of those that are new."""

from __future__ import annotations

from collections.abc import Sequence

from ofp_platform.ingress.batches import BatchReceipt, SentBatch
from ofp_platform.telemetry.event_spans import Interval, event_spans
from ofp_platform.telemetry.trace_ids import Stage
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome


def tell_admission(
    admitting: Interval, appending: Interval, batches: Sequence[SentBatch], receipts: Sequence[BatchReceipt]
) -> None:
    """Tell the spans of batches that are settled. An event that is set aside, or was there, has a span of admission alone."""
    spans = event_spans()
    if spans is None:
        return
    for batch, receipt in zip(batches, receipts, strict=True):
        for outcome in receipt.outcomes if not receipt.repeated else ():
            if outcome.event_id is None:  # no envelope
                continue
            is_new = outcome.outcome is AdmissionOutcome.ADMIT
            attributes: dict[str, str | int] = {"ofp.outcome": outcome.outcome.value, "ofp.batch_id": receipt.batch_id}
            spans.tell(Stage.ADMIT, outcome.event_id, admitting, attributes, is_first=is_new, caller=batch.traceparent)
            if is_new and (at := outcome.position) is not None:
                place = {"ofp.partition_id": at.partition_id, "ofp.offset": at.offset}
                spans.tell(Stage.APPEND, outcome.event_id, appending, place, is_first=True)
