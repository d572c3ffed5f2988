"""A build as the run ledger knows it: what was asked, how far it is, what came of it, and the receipts of its stages."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from ofp_platform.vocabulary.model import Digest, Model, Time
from ofp_platform.vocabulary.offline.build_intent import DatasetBuild, ForensicRebuild, ParityRebuild
from ofp_platform.vocabulary.offline.build_plan import BuildPlan
from ofp_platform.vocabulary.offline.build_refusal import RETRYABLE, Refusal
from ofp_platform.vocabulary.serving import Count, Version


class RunState(StrEnum):
    """Where a build stands. DONE is final; FAILED stays until somebody asks for another attempt."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    PUBLISH_PENDING = "PUBLISH_PENDING"


class BuildReceipt(Model):
    """What one stage of one attempt did. `digest`: SHA-256 of the canonical bytes of `content`."""

    stage: str
    attempt: Count
    publish_attempt: Count
    content: dict[str, Any]
    digest: Digest
    recorded_at_utc: Time


class BuildRun(Model):
    """One request. `publish_only`: everything is built, only publication is left."""

    kind: Literal["ofs_build_run"] = "ofs_build_run"
    contract_version: Version = "v0"
    run_key: Digest = Field(description="the request id of the intent")
    state: RunState = Field(strict=False)
    intent: Annotated[DatasetBuild | ParityRebuild | ForensicRebuild, Field(discriminator="intent")]
    plan: BuildPlan | None = None
    plan_digest: Digest | None = Field(default=None, description="SHA-256 over the canonical bytes of the plan, as it is stored")
    old_form: str | None = Field(
        default=None, description="what of the plan another release wrote in a form that is not read here; there is no plan then"
    )
    publish_only: bool
    attempts: Count
    attempt_limit: Count
    publish_attempts: Count
    publish_attempt_limit: Count
    refusal: Refusal | None = Field(default=None, description="why it failed, or why publication is still to come")
    outcome: dict[str, Any] | None = Field(default=None, description="what a build that is DONE gave")
    submitted_at_utc: Time
    changed_at_utc: Time

    @property
    def retryable(self) -> bool:
        """Whether it failed for a reason that may pass by itself, and has attempts left."""
        return self.state is RunState.FAILED and self.refusal is not None and self.refusal.reason in RETRYABLE

    def wire(self) -> dict[str, Any]:
        """As shown: absent fields left out."""
        return self.model_dump(mode="json", exclude_none=True)
