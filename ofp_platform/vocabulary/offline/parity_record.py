"""Parity: a served snapshot against its rebuild from the log, and what late events would have changed."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, Time
from ofp_platform.vocabulary.serving import FeatureGroupRefs, GroupVersion, Value, Version


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


class FirstDifference(Model):
    """The first place, in canonical order, at which served and rebuilt differ. `feature` is null in `where` freshness."""

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


class ParityRecord(Model):
    """One comparison."""

    kind: Literal["ofs_parity_record"] = "ofs_parity_record"
    contract_version: Version = "v0"
    request_id: Digest
    decision_id: Identifier | None = None
    feature_snapshot_hash: Digest
    rebuilt_hash: Digest | None = None
    outcome: ParityOutcome = Field(strict=False)
    reason: UncheckableReason | None = Field(default=None, strict=False)
    detail: str | None = None
    as_of_time_utc: Time | None = None
    feature_groups: FeatureGroupRefs | None = None
    first_difference: FirstDifference | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        equal = self.rebuilt_hash == self.feature_snapshot_hash
        if (self.outcome is ParityOutcome.MATCH) is not equal:
            raise ValueError("MATCH means equal hashes, and nothing else does")
        if (self.outcome is ParityOutcome.UNCHECKABLE) is not (self.reason is not None):
            raise ValueError("UNCHECKABLE has a reason, and nothing else has")
        return self


class Correction(Model):
    """One feature that a recorded decision would have had otherwise, had the events of `basis` been known."""

    kind: Literal["ofs_correction"] = "ofs_correction"
    contract_version: Version = "v0"
    request_id: Digest
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
    events: tuple[EventRef, ...] = Field(strict=False, min_length=1, description="the late events of the key that did it")
