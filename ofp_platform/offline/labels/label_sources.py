"""Labels out of a run's own log: an event that reports something about an earlier one is an assertion about that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson
from pydantic import TypeAdapter, ValidationError

from ofp_platform.log.port import RecordBatch
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import SafeIdentifier
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.times import format_time

_EVENT_ID: TypeAdapter[str] = TypeAdapter(SafeIdentifier)


@dataclass(frozen=True)
class ReportRule:
    """How events of one type are read as labels: what they say about the event of `about_class` that a payload field names."""

    event_type: str
    about_class: str
    about_field: str
    label_type: str
    value: int


FRAUD_REPORTS = {
    "card_payments": ReportRule("fraud_report", "card_payment", "payment_event_id", "fraud", 1),
    "handbook": ReportRule("fraud_report", "transaction", "transaction_event_id", "fraud", 1),
}
"""By the id of the shipped pack."""


@dataclass
class ReportedLabels:
    """The labels of a log's reports. `assertions`: each statement once. `unusable`: positions of reports that name no event."""

    assertions: list[LabelAssertion] = field(default_factory=list)
    unusable: list[tuple[str, int | str]] = field(default_factory=list)


def reported_labels(batches: Iterable[RecordBatch], rule: ReportRule, pins: ContextPins, clock_skew_us: int) -> ReportedLabels:
    """The labels that the run's reports in `batches` assert.

    The source is the report's own event. A report holds from its time on, and is observed when its record was admitted: of
    several copies, when the first one was. Reports of other runs and amendments of reports say nothing, nor do those from the
    future (more than the clock skew, microseconds, after their admission).
    """
    observed_times: dict[tuple[str, str, int], int] = {}
    labels = ReportedLabels()
    for batch in batches:
        for index, event_type in enumerate(batch.event_types):
            if event_type != rule.event_type or batch.pins[batch.pins_index[index]] != pins or batch.amends[index] is not None:
                continue
            ts, admitted_at = int(batch.ts[index]), int(batch.admitted_at[index])
            if ts > admitted_at + clock_skew_us:
                continue
            try:
                about_event_id = _EVENT_ID.validate_python(orjson.loads(batch.payloads[index]).get(rule.about_field), strict=True)
            except ValidationError:
                labels.unusable.append((batch.partition_id, batch.offsets[index]))
                continue
            report = (about_event_id, batch.event_ids[index], ts)
            observed_times[report] = min(admitted_at, observed_times.get(report, admitted_at))
    labels.assertions = [
        LabelAssertion(
            event_class=rule.about_class,
            event_id=about_event_id,
            label_type=rule.label_type,
            value=rule.value,
            effective_time_utc=format_time(ts),
            observed_time_utc=format_time(observed_time),
            source=source,
        )
        for (about_event_id, source, ts), observed_time in sorted(observed_times.items())
    ]
    return labels
