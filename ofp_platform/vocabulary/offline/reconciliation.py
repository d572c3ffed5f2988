"""The reconciliation of a build that ended, as it is stored: one object to compare with the run ledger."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ofp_platform.vocabulary.model import Digest, Model
from ofp_platform.vocabulary.offline.build_receipt import BuildOutcome
from ofp_platform.vocabulary.offline.build_refusal import Refusal
from ofp_platform.vocabulary.serving import Count, Version


class ReconciledReceipt(Model):
    """A receipt of the ledger. `is_whole`: its content has its digest."""

    stage: str = Field(min_length=1)
    attempt: Count
    publish_attempt: Count
    digest: Digest
    is_whole: bool


class Reconciliation(Model):
    """The ending of one run: its plan, every receipt until then, and its outcome or refusal."""

    kind: Literal["ofs_reconciliation"] = "ofs_reconciliation"
    contract_version: Version = "v0"
    request_id: Digest
    state: Literal["DONE", "FAILED"]
    attempts: Count
    publish_attempts: Count
    plan_digest: Digest | None = Field(description="null where the run failed before it was planned")
    receipts: tuple[ReconciledReceipt, ...] = Field(strict=False)
    refusal: Refusal | None
    outcome: BuildOutcome | None

    def wire(self) -> dict[str, Any]:
        """As stored."""
        return self.model_dump(mode="json")
