"""The events behind one served value, as the service shows them: where their records stand, never what is in them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ofp_platform.vocabulary.identity import KeyId, KeyType
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, Time
from ofp_platform.vocabulary.serving import Count, GroupVersion, Value, Version

MOST_EVENTS = 500


class ExplainingEvent(Model):
    """An event in a window: the position of its first record, and how many more records are copies of it."""

    partition_id: Identifier
    offset: int | str
    event_id: str
    event_type: str
    event_time_utc: Time
    admitted_at_utc: Time
    copies: Count


class ExplainingWindow(Model):
    """One aggregation over its window: after < time <= until. `event_count`: of all events, also where not all are shown."""

    role: Literal["value", "numerator", "denominator"]
    aggregation: str
    of: str | None
    event_types: tuple[str, ...] = Field(strict=False)
    where: dict[str, tuple[str | int | bool, ...]] = Field(strict=False)
    after_utc: Time
    until_utc: Time
    event_count: Count
    events: tuple[ExplainingEvent, ...] = Field(strict=False, description=f"the newest, at most {MOST_EVENTS}, oldest first")


class Explanation(Model):
    """A served value and the events in its windows; the snapshot was rebuilt from the log first and has the same hash."""

    kind: Literal["ofp_explanation"] = "ofp_explanation"
    contract_version: Version = "v0"
    feature_snapshot_hash: Digest
    key_type: KeyType = Field(strict=False)
    key_id: KeyId
    group_name: Name
    group_version: GroupVersion
    feature: Name
    as_of_time_utc: Time
    value: Value
    records_read: Count = Field(description="records of the log that the rebuild read")
    windows: tuple[ExplainingWindow, ...] = Field(strict=False)
