"""The objects of the serving boundary. Every top-level object names itself by `kind` and `contract_version`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from ofp_platform.vocabulary.errors import ErrorCode, Reason
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyId, KeyType
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, Time
from ofp_platform.vocabulary.position import Basis, Position

CONTRACT_VERSION = "v0"
Version = Literal["v0"]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
GroupVersion = Annotated[str, Field(pattern=r"^v[0-9]{1,9}$")]
Value = Annotated[
    int | str | None,
    Field(description="an integer, a decimal as a string with all digits of its scale, or null for an empty window"),
]


class GroupRef(Model):
    """One feature group in one version. There is no 'latest'."""

    group_name: Name
    group_version: GroupVersion


FeatureKeys = Annotated[tuple[FeatureKey, ...], Field(strict=False, min_length=1)]
GroupRefs = Annotated[tuple[GroupRef, ...], Field(strict=False, min_length=1)]


class GetFeaturesRequest(Model):
    """What a decision service asks. Each key is answered for the requested groups of its key type."""

    kind: Literal["get_features_request"] = "get_features_request"
    contract_version: Version = "v0"
    context_pins: ContextPins
    feature_keys: tuple[FeatureKey, ...] = Field(strict=False, min_length=1)
    feature_groups: tuple[GroupRef, ...] = Field(strict=False, min_length=1)
    as_of_time_utc: Time
    request_context: dict[Name, int | str] | None = None
    at_least_basis: tuple[Position, ...] | None = Field(
        default=None, strict=False, description="positions of records that must be in the basis of the answer"
    )
    request_id: Identifier | None = None


class WarningCode(StrEnum):
    """Closed list of warnings."""

    NO_DATA = "NO_DATA"
    STALE_GROUP = "STALE_GROUP"


class Warn(Model):
    """One warning about one key and group."""

    code: WarningCode = Field(strict=False)
    key_type: KeyType = Field(strict=False)
    key_id: KeyId
    group_name: Name
    group_version: GroupVersion


class GroupValues(Model):
    """The values of one group for one key."""

    group_name: Name
    group_version: GroupVersion
    features: dict[Name, Value]


class KeyValues(Model):
    """The values of one key, groups in the order of (group_name, group_version)."""

    key_type: KeyType = Field(strict=False)
    key_id: KeyId
    by_group: tuple[GroupValues, ...] = Field(strict=False)


class Snapshot(Model):
    """Values, keys in the order of (key_type, key_id)."""

    kind: Literal["ofp_snapshot"] = "ofp_snapshot"
    contract_version: Version = "v0"
    as_of_time_utc: Time
    by_key: tuple[KeyValues, ...] = Field(strict=False)


class Freshness(Model):
    """How old the newest event is that touches the key and any feature of the group, at the as-of."""

    key_type: KeyType = Field(strict=False)
    key_id: KeyId
    group_name: Name
    group_version: GroupVersion
    ttl_seconds: Count
    last_update_event_time: Time | None
    age_seconds: Count | None
    stale: bool


class FeatureDefinitionSet(Model):
    """Which definitions made the values."""

    pack_id: Name
    revision: Count
    digest: Digest


class Requested(Model):
    """What was asked, in canonical order."""

    as_of_time_utc: Time
    feature_keys: tuple[FeatureKey, ...] = Field(strict=False)
    feature_groups: tuple[GroupRef, ...] = Field(strict=False)
    request_context: dict[Name, int | str] | None = Field(
        description="null unless on-demand features used it; part of the hash when they did"
    )


class PostureState(StrEnum):
    """Traffic light of the projection that answered."""

    GREEN = "GREEN"
    AMBER = "AMBER"
    RED = "RED"


class Posture(Model):
    """What depends on the moment: never part of the hash."""

    state: PostureState = Field(strict=False)
    reasons: tuple[str, ...] = Field(strict=False)
    lag_records: Count | None
    watermark_utc: Time | None
    watermark_age_seconds: int | None = Field(description="as-of minus watermark, floored; negative when the as-of is older")


class Provenance(Model):
    """Everything needed to rebuild the snapshot and check its hash."""

    kind: Literal["ofp_provenance"] = "ofp_provenance"
    contract_version: Version = "v0"
    context_pins: ContextPins
    feature_snapshot_hash: Digest
    requested: Requested
    group_versions_used: tuple[GroupRef, ...] = Field(strict=False)
    freshness: tuple[Freshness, ...] = Field(strict=False)
    input_basis: Basis
    graph_version: str | None
    feature_definition_set: FeatureDefinitionSet
    run_config_digest: Digest
    warnings: tuple[Warn, ...] = Field(strict=False)
    posture: Posture
    request_id: str | None = None


class GetFeaturesResponse(Model):
    """A whole answer: one snapshot, one basis, its provenance."""

    kind: Literal["get_features_response"] = "get_features_response"
    contract_version: Version = "v0"
    snapshot: Snapshot
    provenance: Provenance


class OfpError(Model):
    """A refusal."""

    kind: Literal["ofp_error"] = "ofp_error"
    contract_version: Version = "v0"
    error_code: ErrorCode = Field(strict=False)
    reason: Reason = Field(strict=False)
    message: str
    retryable: bool
    context_pins: ContextPins | None


class SnapshotRecord(Model):
    """What the object store holds under a snapshot's hash: `hashed` is exactly what the hash is over."""

    kind: Literal["ofp_snapshot_record"] = "ofp_snapshot_record"
    contract_version: Version = "v0"
    feature_snapshot_hash: Digest
    hashed: dict[str, Any]


class PartitionHealth(Model):
    """One log partition as the projection sees it."""

    partition_id: Identifier
    lag_records: Count


class Health(Model):
    """The state of the serving process and of its projection."""

    kind: Literal["ofp_health"] = "ofp_health"
    contract_version: Version = "v0"
    state: PostureState = Field(strict=False)
    reasons: tuple[str, ...] = Field(strict=False)
    projection: str | None
    input_basis: Basis | None
    watermark_utc: Time | None
    watermark_age_seconds: int | None
    partitions: tuple[PartitionHealth, ...] = Field(strict=False)
    counters: dict[str, int]
    apply_failures: dict[str, int]


class FeatureGroupInfo(Model):
    """One group as the catalogue shows it."""

    group_name: Name
    group_version: GroupVersion
    key_type: KeyType = Field(strict=False)
    ttl_seconds: Count
    features: tuple[str, ...] = Field(strict=False)
    request_context: dict[str, str]


class FeatureGroups(Model):
    """The catalogue of the live registry."""

    kind: Literal["ofp_feature_groups"] = "ofp_feature_groups"
    contract_version: Version = "v0"
    context_pins: ContextPins
    feature_definition_set: FeatureDefinitionSet
    groups: tuple[FeatureGroupInfo, ...] = Field(strict=False)
