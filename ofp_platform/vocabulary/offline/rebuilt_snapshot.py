"""A snapshot that was rebuilt from the log, as it is stored: the question, where and when it was asked, and what it gave."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.identity import ContextPins, FeatureKey
from ofp_platform.vocabulary.model import Digest, Model
from ofp_platform.vocabulary.offline.build_intent import AsOfSpec
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import OFFLINE_CONTRACT_VERSION, FeatureGroupVersionSet, OfflineVersion
from ofp_platform.vocabulary.snapshot_hash import snapshot_hash


def rebuilt_snapshot_path(feature_snapshot_hash: str) -> str:
    """Where the rebuild with that hash stands in the object store."""
    return f"ofs/snapshots/{feature_snapshot_hash}.json"


class RebuiltFeatureSnapshot(Model):
    """One rebuild. `hashed` is exactly what the hash is over, as in a snapshot that was served."""

    kind: Literal["rebuilt_feature_snapshot"] = "rebuilt_feature_snapshot"
    contract_version: OfflineVersion = OFFLINE_CONTRACT_VERSION
    feature_snapshot_hash: Digest
    context_pins: ContextPins
    as_of: AsOfSpec
    feature_keys: tuple[FeatureKey, ...] = Field(strict=False, min_length=1)
    feature_groups: FeatureGroupVersionSet
    registry_digest: Digest
    run_config_digest: Digest
    input_basis: Basis
    hashed: dict[str, Any]

    @model_validator(mode="after")
    def _proven(self) -> Self:
        if snapshot_hash(self.hashed) != self.feature_snapshot_hash:
            raise ValueError("feature_snapshot_hash is not the hash of what was rebuilt")
        return self

    @classmethod
    def of(cls, feature_snapshot_hash: str, hashed: dict[str, Any], as_of: AsOfSpec) -> RebuiltFeatureSnapshot:
        """The rebuild with that hashed object."""
        names = ("context_pins", "feature_keys", "feature_groups", "registry_digest", "run_config_digest", "input_basis")
        fields = {name: hashed[name] for name in names}
        return cls.model_validate({**fields, "feature_snapshot_hash": feature_snapshot_hash, "as_of": as_of, "hashed": hashed})

    def wire(self) -> dict[str, Any]:
        """As stored: absent pins left out."""
        return {**self.model_dump(mode="json", exclude={"context_pins"}), "context_pins": self.context_pins.wire()}
