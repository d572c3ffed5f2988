"""The objects of the serving boundary. Every top-level object names itself by `kind` and `contract_version`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import TypeAliasType, TypedDict

from ofp_platform.vocabulary.envelope import ijson_bytes
from ofp_platform.vocabulary.errors import ErrorCode, Reason
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyId, KeyType
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, SafeIdentifier, Time
from ofp_platform.vocabulary.position import Basis, PartitionBasis, Position, StreamName
from ofp_platform.vocabulary.raw_identifier import raw_identifier_in
from ofp_platform.vocabulary.snapshot_hash import CONTRACT_VERSION

Version = Literal["v0"]
ServingVersion = Literal["ofp_public_contracts_v0"]
OfflineVersion = Literal["ofs_public_contracts_v0"]
OFFLINE_CONTRACT_VERSION: OfflineVersion = "ofs_public_contracts_v0"
"""Of the objects that the offline plane publishes."""
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]


def _fixed_version(text: str) -> str:
    if text == "latest":
        raise ValueError("a version names one content for good; there is no 'latest'")
    return text


GroupVersion = Annotated[
    SafeIdentifier,
    AfterValidator(_fixed_version),
    Field(description="as in v1 or 1.0; there is no 'latest'", json_schema_extra={"not": {"const": "latest"}}),
]


class CategoryValue(TypedDict):
    """An item of a count_by or sum_by: a category, and its count or sum."""

    category: int | bool | str
    value: int


Value = Annotated[
    int | bool | str | list[int | bool | str | CategoryValue] | None,
    Field(
        description="an integer, a decimal as a string with all digits of its scale, a boolean or text, a list of integers,"
        " booleans, texts or categories with a value, or null (empty window)"
    ),
]


def _plain_extensions(extensions: dict[str, Any]) -> dict[str, Any]:
    try:
        ijson_bytes(extensions)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("not I-JSON") from None
    if raw_identifier_in(extensions) is not None:
        raise ValueError("a raw identifier is refused")
    return extensions


Extensions = Annotated[
    dict[str, Any],
    AfterValidator(_plain_extensions),
    Field(description="any I-JSON object of the caller's; it changes no value and no hash, and comes back in the provenance"),
]


class FeatureGroupRef(Model):
    """One feature group in one version. There is no 'latest'."""

    group_name: Name
    group_version: GroupVersion


FeatureKeys = Annotated[tuple[FeatureKey, ...], Field(strict=False, min_length=1)]
FeatureGroupVersionSet = TypeAliasType(
    "FeatureGroupVersionSet", Annotated[tuple[FeatureGroupRef, ...], Field(strict=False, min_length=1)]
)


class GetFeaturesRequest(Model):
    """What a decision service asks. Each key is answered for the requested groups of its key type."""

    kind: Literal["get_features_request"] = "get_features_request"
    contract_version: ServingVersion = CONTRACT_VERSION
    context_pins: ContextPins
    feature_keys: tuple[FeatureKey, ...] = Field(strict=False, min_length=1)
    feature_groups: tuple[FeatureGroupRef, ...] = Field(strict=False, min_length=1)
    as_of_time_utc: Time
    request_context: dict[Name, int | str] | None = None
    at_least_basis: tuple[Position, ...] | None = Field(
        default=None, strict=False, description="positions of records that must be in the basis of the answer"
    )
    request_id: SafeIdentifier | None = Field(default=None, description="the caller's; it comes back in the provenance")
    extensions: Extensions | None = None


class WarningCode(StrEnum):
    """Closed list of warnings."""

    NO_DATA = "NO_DATA"
    STALE_GROUP = "STALE_GROUP"
    VALUE_OUT_OF_RANGE = "VALUE_OUT_OF_RANGE"
    IDENTITY_CONFLICT = "IDENTITY_CONFLICT"


class IdentityConflict(Model):
    """Links between entities that do not count, because they contradict each other.

    `several_canonicals`: the first id is the member, the others, sorted, those that claim it. `cycle`: the ids of a circle of
    links, sorted.
    """

    kind: Literal["several_canonicals", "cycle"]
    key_ids: tuple[KeyId, ...] = Field(strict=False, min_length=2)


class Warn(Model):
    """One warning about one key and group; VALUE_OUT_OF_RANGE is about one feature of it, IDENTITY_CONFLICT about links of its
    entity."""

    code: WarningCode = Field(strict=False)
    key_type: KeyType = Field(strict=False)
    key_id: KeyId
    group_name: Name
    group_version: GroupVersion
    feature: Name | None = None
    conflict: IdentityConflict | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if (self.code is WarningCode.VALUE_OUT_OF_RANGE) is (self.feature is None):
            raise ValueError("a feature belongs to VALUE_OUT_OF_RANGE, and to no other warning")
        if (self.code is WarningCode.IDENTITY_CONFLICT) is (self.conflict is None):
            raise ValueError("a conflict belongs to IDENTITY_CONFLICT, and to no other warning")
        return self


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


class FeatureSnapshot(Model):
    """Values of one run at one instant under their hash, keys in the order of (key_type, key_id)."""

    kind: Literal["feature_snapshot"] = "feature_snapshot"
    contract_version: ServingVersion = CONTRACT_VERSION
    context_pins: ContextPins
    as_of_time_utc: Time
    feature_snapshot_hash: Digest
    by_key: tuple[KeyValues, ...] = Field(strict=False)


class FreshnessBlock(Model):
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
    feature_groups: tuple[FeatureGroupRef, ...] = Field(strict=False)
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


class GraphVersion(Model):
    """The version of the identity graph that resolved observed identifiers, and the log positions that the graph knew."""

    graph_version: Identifier
    stream_name: StreamName
    basis: tuple[PartitionBasis, ...] = Field(strict=False)


class FeatureProvenance(Model):
    """Everything needed to rebuild the snapshot and check its hash."""

    kind: Literal["feature_provenance"] = "feature_provenance"
    contract_version: ServingVersion = CONTRACT_VERSION
    context_pins: ContextPins
    feature_snapshot_hash: Digest
    requested: Requested
    group_versions_used: tuple[FeatureGroupRef, ...] = Field(strict=False)
    freshness: tuple[FreshnessBlock, ...] = Field(strict=False)
    input_basis: Basis
    graph_version: GraphVersion | None
    feature_definition_set: FeatureDefinitionSet
    run_config_digest: Digest
    warnings: tuple[Warn, ...] = Field(strict=False)
    posture: Posture
    request_id: SafeIdentifier | None = None
    extensions: Extensions | None = None


class GetFeaturesResponse(Model):
    """A whole answer: one snapshot, one basis, its provenance."""

    kind: Literal["get_features_response"] = "get_features_response"
    contract_version: ServingVersion = CONTRACT_VERSION
    snapshot: FeatureSnapshot
    provenance: FeatureProvenance


class ErrorResponse(Model):
    """A refusal. This plane states the reason of each; the pins are those of the request, null where it has none to read."""

    kind: Literal["error_response"] = "error_response"
    contract_version: ServingVersion = CONTRACT_VERSION
    error_code: ErrorCode = Field(strict=False)
    reason: Reason = Field(default=Reason.UNSTATED, strict=False)
    message: str
    retryable: bool
    context_pins: ContextPins | None = None


class OfflineErrorResponse(ErrorResponse):
    """A refusal of the offline plane's routes."""

    contract_version: OfflineVersion = OFFLINE_CONTRACT_VERSION  # type: ignore[assignment]


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
