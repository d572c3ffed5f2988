"""Facts on record about a run: its pins, and the evidence that its checks passed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Digest, Model, Name, SafeIdentifier
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.position import PartitionBasis, StreamName
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


class ReadableSpan(Model):
    """A partition of the stream: what the log promises, and what is wrong with that where reading does not bear it out."""

    start: PartitionBasis | None
    end: PartitionBasis
    problem: str = Field(description="empty where both ends can be read")


class RunConfigEvidence(Model):
    """The configuration of the run, and those that its stream is served with."""

    allowed_lateness_us: Count
    clock_skew_us: Count
    run_config_digest: Digest
    served_with: tuple[Digest, ...] = Field(strict=False)
    stream_name: StreamName


_Digests = Annotated[tuple[Digest, ...], Field(strict=False)]
_Spans = Annotated[tuple[ReadableSpan, ...], Field(strict=False)]


class RunCheckEvidence(Model):
    """The evidence of one check of a run, stored under the digest of its canonical bytes."""

    kind: Literal["run_check_evidence"] = "run_check_evidence"
    contract_version: Version = "v0"
    check: Name
    context_pins: ContextPins
    status: CheckStatus = Field(strict=False)
    looked_at: RunConfigEvidence | _Digests | _Spans = Field(
        description="the configuration; digests of the published pack; the partitions of the stream"
    )

    def wire(self) -> dict[str, Any]:
        """As stored: absent pins left out."""
        return {**self.model_dump(mode="json", exclude={"context_pins"}), "context_pins": self.context_pins.wire()}


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
