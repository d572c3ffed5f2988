"""Parity: a served snapshot against its rebuild from the log, and what late events would have changed."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyId, KeyType
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, SafeIdentifier, Time
from ofp_platform.vocabulary.offline.build_intent import AsOfSpec
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import (
    OFFLINE_CONTRACT_VERSION,
    FeatureGroupVersionSet,
    GraphVersion,
    GroupVersion,
    OfflineVersion,
    Value,
    Version,
)


class ParityOutcome(StrEnum):
    """There is no fourth: a snapshot that was not compared is not in the report."""

    MATCH = "MATCH"
    MISMATCH = "MISMATCH"
    UNCHECKABLE = "UNCHECKABLE"


class UncheckableReason(StrEnum):
    """Closed list."""

    BASIS_BEYOND_REPLAY = "BASIS_BEYOND_REPLAY"
    ANOTHER_STREAM = "ANOTHER_STREAM"
    ANOTHER_RUN = "ANOTHER_RUN"
    REGISTRY_MISSING = "REGISTRY_MISSING"
    GROUP_VERSION_MISSING = "GROUP_VERSION_MISSING"
    RUN_CONFIG_UNKNOWN = "RUN_CONFIG_UNKNOWN"
    PROVENANCE_INCOMPLETE = "PROVENANCE_INCOMPLETE"
    GRAPH_VERSION_UNKNOWN = "GRAPH_VERSION_UNKNOWN"
    SNAPSHOT_MISSING = "SNAPSHOT_MISSING"
    SNAPSHOT_DAMAGED = "SNAPSHOT_DAMAGED"


class EventRef(Model):
    """One event, by identity and first position."""

    event_id: Identifier
    event_type: Identifier
    event_time_utc: Time
    partition_id: Identifier
    offset: int | str


class FeatureDifference(Model):
    """One place at which served and rebuilt differ. `feature` is null in `where` freshness."""

    where: Literal["values", "freshness", "warnings", "other"]
    key_type: KeyType | None = Field(default=None, strict=False)
    key_id: str | None = None
    group_name: Name | None = None
    group_version: GroupVersion | None = None
    feature: str | None = None
    served: Any = None
    rebuilt: Any = None
    events: tuple[EventRef, ...] = Field(
        default=(), strict=False, description="events of the key whose presence explains the served value, where one does"
    )


class ParityResult(Model):
    """One comparison. From `request_id` to `run_config_digest` it says what was served, null where that cannot be read."""

    kind: Literal["parity_result"] = "parity_result"
    contract_version: OfflineVersion = OFFLINE_CONTRACT_VERSION
    comparison_id: Digest = Field(description="SHA-256 over what was asked to be compared")
    decision_id: Identifier | None = None
    request_id: SafeIdentifier | None = Field(default=None, description="the one that the caller gave its request")
    context_pins: ContextPins | None = None
    feature_keys: tuple[FeatureKey, ...] | None = Field(default=None, strict=False)
    feature_groups: FeatureGroupVersionSet | None = None
    as_of: AsOfSpec | None = None
    input_basis: Basis | None = None
    registry_digest: Digest | None = None
    run_config_digest: Digest | None = None
    online_snapshot_ref: Digest = Field(description="hash of the served snapshot, under which it is stored")
    offline_snapshot_ref: Digest | None = Field(default=None, description="hash of its rebuild, null where there is none")
    outcome: ParityOutcome = Field(strict=False)
    reason: UncheckableReason | None = Field(default=None, strict=False)
    detail: str | None = None
    differences: tuple[FeatureDifference, ...] = Field(
        default=(), strict=False, description="all of them, in canonical order; events are given for the first"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        equal = self.offline_snapshot_ref == self.online_snapshot_ref
        if (self.outcome is ParityOutcome.MATCH) is not equal:
            raise ValueError("MATCH means equal hashes, and nothing else does")
        if (self.outcome is ParityOutcome.UNCHECKABLE) is not (self.reason is not None):
            raise ValueError("UNCHECKABLE has a reason, and nothing else has")
        return self

    @property
    def first_difference(self) -> FeatureDifference | None:
        """The one that the evidence is about."""
        return self.differences[0] if self.differences else None

    def wire(self) -> dict[str, Any]:
        """As stored: absent fields left out."""
        return self.model_dump(mode="json", exclude_none=True)


class RunParityRequest(Model):
    """The comparison of every decision of a run up to a basis: `comparison_id` is the digest of this."""

    kind: Literal["ofs_run_parity"] = "ofs_run_parity"
    contract_version: OfflineVersion = OFFLINE_CONTRACT_VERSION
    context_pins: ContextPins
    run_config_digest: Digest
    basis: Basis
    graph_version: GraphVersion | None = Field(
        default=None, exclude_if=lambda value: value is None, description="of corrections: the links that are known later"
    )

    def wire(self) -> dict[str, Any]:
        """As digested: absent pins left out."""
        return {**self.model_dump(mode="json", exclude={"context_pins"}), "context_pins": self.context_pins.wire()}


class LinkRef(Model):
    """One link, or unlink, of the context stream."""

    event_id: Identifier
    event_type: Literal["identity_link", "identity_unlink"]
    member: KeyId
    canonical: KeyId
    effective_time_utc: Time
    partition_id: Identifier
    offset: int | str


class Correction(Model):
    """One feature that a recorded decision would have had otherwise, had the events of `basis` and the links been known."""

    kind: Literal["ofs_correction"] = "ofs_correction"
    contract_version: Version = "v0"
    request_id: Digest = Field(description="SHA-256 over what was asked to be compared")
    decision_id: Identifier
    feature_snapshot_hash: Digest
    as_of_time_utc: Time
    key_type: KeyType = Field(strict=False)
    key_id: str
    group_name: Name
    group_version: GroupVersion
    feature: Name
    served: Value
    corrected: Value
    events: tuple[EventRef, ...] = Field(strict=False, description="the late events of the key, or its entity, in the windows")
    links: tuple[LinkRef, ...] = Field(
        default=(),
        strict=False,
        exclude_if=lambda value: not value,
        description="the late links about a member of the entity, as it was or would have been; left out where there are none",
    )

    @model_validator(mode="after")
    def _caused(self) -> Self:
        if not self.events and not self.links:
            raise ValueError("a correction has a cause: an event, or a link")
        return self
