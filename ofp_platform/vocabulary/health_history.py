"""Health over time as a service keeps it: lag and freshness of the last day."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ofp_platform.vocabulary.model import Model, Time
from ofp_platform.vocabulary.serving import Count, PostureState, Version

MOST_HOURS = 24
Seconds = Annotated[int, Field(ge=1, le=86_400)]


class HealthSample(Model):
    """The worst of a span of time that begins at `at_utc`. What nobody observed is null."""

    at_utc: Time
    state: PostureState | None = Field(strict=False, description="null: no process of the service told it")
    lag_records: Count | None = Field(description="the greatest")
    watermark_age_seconds: int | None = Field(description="the greatest")


class HealthHistory(Model):
    """Samples without a hole, the oldest first, each over `seconds`: a span in which nothing was observed is there, as null."""

    kind: Literal["ofp_health_history"] = "ofp_health_history"
    contract_version: Version = "v0"
    seconds: Seconds
    samples: tuple[HealthSample, ...] = Field(strict=False)
