"""Records that a projection did not apply, as the service shows them: where they stand and why, never what is in them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ofp_platform.vocabulary.model import Identifier, Model, Time
from ofp_platform.vocabulary.serving import Count, Version

MOST_FAILURES = 200


class ApplyFailureRow(Model):
    """One record. `detail` names the fields at fault; `groups` those that it does not feed, empty: every group."""

    partition_id: Identifier
    offset: str
    event_time_utc: Time | None
    reason: str
    detail: str
    groups: str
    partial: bool


class ApplyFailures(Model):
    """A page in the order of the log. `next_after` leads to the records behind it; null: there are none."""

    kind: Literal["ofp_apply_failures"] = "ofp_apply_failures"
    contract_version: Version = "v0"
    projection_id: Count
    failures: tuple[ApplyFailureRow, ...] = Field(strict=False)
    next_after: str | None = Field(description="PARTITION:OFFSET")
