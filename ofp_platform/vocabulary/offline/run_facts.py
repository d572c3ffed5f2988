"""Facts on record about a run: its pins, and the evidence that its checks passed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Digest, Model, Name, SafeIdentifier, Time
from ofp_platform.vocabulary.offline.build_plan import PinnedPack
from ofp_platform.vocabulary.position import PartitionBasis, StreamName
from ofp_platform.vocabulary.serving import Count, Version
from ofp_platform.vocabulary.world import WorldName

REQUIRED_CHECKS = ("feature_pack_published", "run_config_pinned", "stream_readable")
"""A build reads the facts of a run only if each of these passed."""


ScenarioRunId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", description="from the equivalence key: 32 hex digits")]


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


class TrafficMode(StrEnum):
    """The kind of traffic of a run: payments with frauds among them, or ordinary ones alone."""

    FRAUD = "fraud"
    BASELINE = "baseline"


class ScenarioFacts(Model):
    """The scenario in the facts of a run, each part by its digest."""

    scenario_run_id: ScenarioRunId
    plan_digest: Digest
    world: WorldName
    manifest_digest: Digest
    outputs: tuple[Name, ...] = Field(strict=False)
    traffic_delivery_mode: Annotated[TrafficMode, Field(strict=False)]
    class_map_digest: Digest
    context_stream: StreamName | None = None


class OutputEvidence(Model):
    """One output of a world, counted: rows and the span of their times, as its files have them and as its manifest says."""

    output: Name
    rows: Count
    rows_in_manifest: Count
    first_ts_utc: Time | None
    last_ts_utc: Time | None
    span_in_manifest: tuple[Time, Time] | None = Field(strict=False)


class ScenarioEvidence(Model):
    """The look of a gate of the runner; a gate leaves out what is none of its business. `problems`: in words; none: it passed.

    `event_types`: rows by type and schema version, joined by `/`.
    """

    world: WorldName
    manifest_digest: Digest
    outputs: tuple[OutputEvidence, ...] = Field(default=(), strict=False)
    event_types: Mapping[str, Count] = {}
    class_map_digest: Digest | None = None
    problems: tuple[str, ...] = Field(default=(), strict=False)


_Digests = Annotated[tuple[Digest, ...], Field(strict=False)]
_Spans = Annotated[tuple[ReadableSpan, ...], Field(strict=False)]


class RunCheckEvidence(Model):
    """The evidence of one check of a run, stored under the digest of its canonical bytes."""

    kind: Literal["run_check_evidence"] = "run_check_evidence"
    contract_version: Version = "v0"
    check: Name
    context_pins: ContextPins
    status: CheckStatus = Field(strict=False)
    looked_at: RunConfigEvidence | ScenarioEvidence | _Digests | _Spans = Field(
        description="the configuration; the world of the run; digests of the published pack; the partitions of the stream"
    )

    def wire(self) -> dict[str, Any]:
        """As stored: absent pins left out."""
        return {**self.model_dump(mode="json", exclude={"context_pins"}), "context_pins": self.context_pins.wire()}


class RunFacts(Model):
    """The facts of one run under an explicit reference, evidence in the order of the checks' names. Immutable.

    `scenario`: of a run that the scenario runner made READY; without it somebody examined a run that went on already.
    """

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
    scenario: ScenarioFacts | None = None

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
