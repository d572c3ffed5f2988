"""Facts on record about a run: its pins, and the evidence that its checks passed."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Digest, Model, Name, SafeIdentifier
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.position import StreamName
from ofp_platform.vocabulary.serving import Count, Version

REQUIRED_CHECKS = ("feature_pack_published", "run_config_pinned", "stream_readable")
"""A build reads the facts of a run only if each of these passed."""


class CheckStatus(StrEnum):
    """How a check ended."""

    PASS = "PASS"
    FAIL = "FAIL"


class CheckEvidence(Model):
    """One check of the run. `evidence_digest`: SHA-256 over what it looked at."""

    check: Name
    status: CheckStatus = Field(strict=False)
    evidence_digest: Digest


class RunFacts(Model):
    """The facts of one run under an explicit reference, evidence in the order of the checks' names. Immutable."""

    kind: Literal["run_facts"] = "run_facts"
    contract_version: Version = "v0"
    reference: SafeIdentifier
    context_pins: ContextPins
    stream_name: StreamName
    feature_pack: PinnedPack
    run_config_digest: Digest
    clock_skew_us: Count
    allowed_lateness_us: Count
    evidence: tuple[CheckEvidence, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        checks = [item.check for item in self.evidence]
        if checks != sorted(set(checks)):
            raise ValueError("evidence must name each check once, in the order of their names")
        return self

    def wire(self) -> dict[str, Any]:
        """As stored: absent pins left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical bytes of it all."""
        return digest_of(self.wire())

    def without_pass(self) -> list[str]:
        """The required checks for which there is no PASS, sorted."""
        passed = {item.check for item in self.evidence if item.status is CheckStatus.PASS}
        return sorted(set(REQUIRED_CHECKS) - passed)
