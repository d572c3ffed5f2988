"""Why a build is refused or fails, from a closed list, with the field at fault."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from ofp_platform.vocabulary.model import Model


class BuildReason(StrEnum):
    """Closed list. Those of `RETRYABLE` may pass by themselves."""

    INVALID_INTENT = "INVALID_INTENT"
    BASIS_UNRESOLVED = "BASIS_UNRESOLVED"
    LABEL_ASOF_MISSING = "LABEL_ASOF_MISSING"
    LABEL_ASOF_IN_FUTURE = "LABEL_ASOF_IN_FUTURE"
    FEATURE_PROFILE_UNRESOLVED = "FEATURE_PROFILE_UNRESOLVED"
    RUN_FACTS_UNAVAILABLE = "RUN_FACTS_UNAVAILABLE"
    PASS_EVIDENCE_MISSING = "PASS_EVIDENCE_MISSING"
    EVIDENCE_UNRESOLVED = "EVIDENCE_UNRESOLVED"
    REPLAY_INCOMPLETE = "REPLAY_INCOMPLETE"
    REPLAY_MISMATCH = "REPLAY_MISMATCH"
    HISTORY_TOO_SHORT = "HISTORY_TOO_SHORT"
    ARCHIVE_DAMAGED = "ARCHIVE_DAMAGED"
    EVENT_ANOMALY = "EVENT_ANOMALY"
    FAILED_RECORDS_ABOVE_POLICY = "FAILED_RECORDS_ABOVE_POLICY"
    LABEL_COVERAGE_BELOW_POLICY = "LABEL_COVERAGE_BELOW_POLICY"
    LEAKAGE_DETECTED = "LEAKAGE_DETECTED"
    PARITY_ANCHOR_UNRESOLVED = "PARITY_ANCHOR_UNRESOLVED"
    PARITY_MISMATCH = "PARITY_MISMATCH"
    PARITY_BELOW_POLICY = "PARITY_BELOW_POLICY"
    SERVED_ROW_MISMATCH = "SERVED_ROW_MISMATCH"
    POLICY_UNRESOLVED = "POLICY_UNRESOLVED"
    POLICY_TOO_WEAK = "POLICY_TOO_WEAK"
    SUPERSEDED_UNRESOLVED = "SUPERSEDED_UNRESOLVED"
    VALUE_OUT_OF_RANGE = "VALUE_OUT_OF_RANGE"
    NOTHING_TO_BUILD = "NOTHING_TO_BUILD"
    PUBLICATION_CONFLICT = "PUBLICATION_CONFLICT"
    BUILD_TOO_LARGE = "BUILD_TOO_LARGE"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    CANCELLED = "CANCELLED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"


RETRYABLE = frozenset({BuildReason.STORE_UNAVAILABLE})


class Refusal(Model):
    """A refusal as it is stored on the run and shown: what, which field of the intent, in words."""

    reason: BuildReason = Field(strict=False)
    field: str = Field(description="path of the field at fault, as in replay.basis.partitions.0.next; empty when none is")
    message: str


class BuildRefused(Exception):
    """A build cannot go on; nothing of it is visible."""

    def __init__(self, reason: BuildReason, message: str, field: str = "") -> None:
        super().__init__(f"{reason.value}{f' ({field})' if field else ''}: {message}")
        self.reason = reason
        self.message = message
        self.field = field

    @property
    def retryable(self) -> bool:
        """Whether the same build may pass later without anybody doing anything."""
        return self.reason in RETRYABLE

    @property
    def refusal(self) -> Refusal:
        """As stored."""
        return Refusal(reason=self.reason, field=self.field, message=self.message)
