"""Labels by the letter of the law, one row after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.times import parse_time

Event = tuple[str, str]
"""Class and id."""


def resolve(assertions: Sequence[LabelAssertion], event: Event, label_type: str, as_of: int) -> LabelAssertion | None:
    """The assertion with the greatest (observed time, assertion id) of those observed by `as_of` (microseconds)."""
    known = [
        (parse_time(one.observed_time_utc), one.assertion_id, one)
        for one in assertions
        if (one.event_class, one.event_id) == event
        and one.label_type == label_type
        and parse_time(one.observed_time_utc) <= as_of
    ]
    return max(known, key=lambda item: item[:2])[2] if known else None


def label_row(
    assertions: Sequence[LabelAssertion],
    event: Event,
    ts: int,
    label_type: str,
    as_of: int,
    maturity: int,
    unlabelled_means: int | None,
) -> tuple[int | None, int | None, bool]:
    """(label_value, label_observed_time, label_is_mature) of one row; times in microseconds."""
    mature = as_of - ts >= maturity
    found = resolve(assertions, event, label_type, as_of)
    if found is None:
        return (unlabelled_means if mature else None), None, mature
    return found.value, parse_time(found.observed_time_utc), mature


def resolve_by_class(
    assertions: Sequence[LabelAssertion], event: Event, label_type: str, as_of: int, classes: Mapping[str, str]
) -> LabelAssertion | None:
    """As `resolve`, of the assertions of the foremost class alone: human, else external, else automated."""
    for foremost in ("human", "external", "automated"):
        of_class = [one for one in assertions if classes[one.source] == foremost]
        if (held := resolve(of_class, event, label_type, as_of)) is not None:
            return held
    return None
