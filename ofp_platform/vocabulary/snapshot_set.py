"""The index of a snapshot set as it is stored: the snapshots of one hour, by key, at one basis."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ofp_platform.vocabulary.identity import ContextPins, KeyId, KeyType
from ofp_platform.vocabulary.model import Digest, Model, Time
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import Version


class SnapshotReference(Model):
    """The snapshot of one key."""

    key_type: KeyType = Field(strict=False)
    key_id: KeyId
    feature_snapshot_hash: Digest
    reference: str = Field(min_length=1, description="path of the snapshot in the object store")


class SnapshotSetIndex(Model):
    """Every key with an event in the hour, with its snapshot as of the end of the hour."""

    kind: Literal["ofp_snapshot_set"] = "ofp_snapshot_set"
    contract_version: Version = "v0"
    context_pins: ContextPins
    hour_start_utc: Time
    as_of_time_utc: Time = Field(description="the end of the hour")
    registry_digest: Digest
    run_config_digest: Digest
    input_basis: Basis
    snapshots: tuple[SnapshotReference, ...] = Field(strict=False, description="in the order of (key_type, key_id)")

    def wire(self) -> dict[str, Any]:
        """As stored: absent pins left out."""
        return {**self.model_dump(mode="json", exclude={"context_pins"}), "context_pins": self.context_pins.wire()}
