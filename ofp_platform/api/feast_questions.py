"""Questions in the shape of Feast's feature server, asked of the plane as one get_features, and its answer in Feast's shape.

A row of `entities` is a key of each kind; all rows are one question, on one basis, with one snapshot hash. Feast's request names
no time: without `as_of_time_utc`, which is ours, it is asked as of its arrival, and the answer says which moment that was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json
from ofp_platform.vocabulary.model import Name, Time
from ofp_platform.vocabulary.raw_identifier import redact
from ofp_platform.vocabulary.serving import FeatureGroupInfo, FeatureGroups

NO_TIME = "1970-01-01T00:00:00Z"
PRESENT, NOT_FOUND, OUTSIDE_MAX_AGE = "PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"
FeatureName = Annotated[str, Field(min_length=3, max_length=200, description="GROUP:FEATURE, or GROUP@VERSION:FEATURE")]
KeyText = Annotated[str, Field(max_length=128)] | int


class FeastQuestion(BaseModel):
    """The body of POST /get-online-features, and two fields of ours, `as_of_time_utc` and `request_context`."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    features: list[FeatureName] = Field(min_length=1, max_length=1_000)
    entities: dict[Name, list[KeyText]] = Field(
        min_length=1, max_length=len(KeyType), description="a key type, as account or account_id, to the keys of the rows"
    )
    full_feature_names: bool = False
    as_of_time_utc: Time | None = Field(default=None, description="the moment of the features; absent: when the request arrived")
    request_context: dict[Name, Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)] | str] | None = None


class FeastColumn(BaseModel):
    """The values of one entity or feature, a row each."""

    values: list[str | int | float | bool | None]
    statuses: list[str] = Field(description="PRESENT, NOT_FOUND (no event of the key), OUTSIDE_MAX_AGE (older than the ttl)")
    event_timestamps: list[str] = Field(description="of the newest event behind the value")


class FeastMetadata(BaseModel):
    """The names of the columns, and which snapshot they are of."""

    feature_names: list[str]
    feature_snapshot_hash: str
    as_of_time_utc: str


class FeastAnswer(BaseModel):
    """The answer in Feast's shape."""

    results: list[FeastColumn]
    metadata: FeastMetadata


@dataclass(frozen=True)
class AskedFeature:
    """One column of the answer."""

    name: str
    group: FeatureGroupInfo
    feature: str


@dataclass(frozen=True)
class PlaneQuestion:
    """A question of Feast's shape, resolved: `body` is the get_features request that it comes to."""

    body: bytes
    as_of_time_utc: str
    entities: Mapping[str, tuple[str, list[str]]]
    features: tuple[AskedFeature, ...]


def read_question(body: bytes, groups: FeatureGroups, arrived_at_utc: str) -> PlaneQuestion:
    """Read a request and resolve it among the groups that are served.

    Raises:
        ContractError: MALFORMED_JSON, INVALID_FIELD; UNKNOWN_GROUP_VERSION, a group, version or feature that is not served.
    """
    question = _question(body)
    rows = {len(keys) for keys in question.entities.values()}
    if len(rows) != 1 or rows == {0}:
        raise invalid(Reason.INVALID_FIELD, "entities: every list has one key a row, all as many, and at least one")
    entities = {name: (_key_type(name), [str(key) for key in keys]) for name, keys in question.entities.items()}
    key_types = [key_type for key_type, _ in entities.values()]
    if len(set(key_types)) != len(key_types):
        raise invalid(Reason.INVALID_FIELD, "entities: a key type is there twice")
    features = tuple(_feature(text, groups, full=question.full_feature_names) for text in question.features)
    as_of = question.as_of_time_utc or arrived_at_utc
    needed_types = {feature.group.key_type.value for feature in features}
    if missing := sorted(needed_types - set(key_types)):
        raise invalid(Reason.GROUP_WITHOUT_KEY, f"entities: no keys of type {missing[0]}, which the features are of")
    request: dict[str, Any] = {
        "context_pins": groups.context_pins.wire(),
        "feature_keys": [
            {"key_type": key_type, "key_id": key_id}
            for key_type, key_ids in entities.values()
            if key_type in needed_types
            for key_id in dict.fromkeys(key_ids)
        ],
        "feature_groups": [
            {"group_name": name, "group_version": version}
            for name, version in sorted({(feature.group.group_name, feature.group.group_version) for feature in features})
        ],
        "as_of_time_utc": as_of,
    }
    if question.request_context is not None:
        request["request_context"] = question.request_context
    return PlaneQuestion(orjson.dumps(request), as_of, entities, features)


def _question(body: bytes) -> FeastQuestion:
    try:
        return FeastQuestion.model_validate(read_json(body))
    except (NotJson, NotIJson) as error:
        raise invalid(Reason.MALFORMED_JSON, f"the body is not JSON: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = redact(".".join(map(str, first["loc"])))
        raise invalid(Reason.INVALID_FIELD, f"{place or 'the body'}: {first['msg']}") from None


def _key_type(name: str) -> str:
    key_type = name.removesuffix("_id")
    if key_type not in list(KeyType):
        raise invalid(Reason.INVALID_FIELD, f"entities: a key type is one of {', '.join(KeyType)}, with or without _id")
    return key_type


def _feature(text: str, groups: FeatureGroups, *, full: bool) -> AskedFeature:
    view, colon, feature = text.partition(":")
    name, at, version = view.partition("@")
    if not colon or (at and not version):
        raise invalid(Reason.INVALID_FIELD, "features: GROUP:FEATURE, or GROUP@VERSION:FEATURE")
    candidates = [group for group in groups.groups if group.group_name == name and version in ("", group.group_version)]
    if len(candidates) > 1:
        versions = ", ".join(f"{name}@{group.group_version}" for group in candidates)
        raise invalid(Reason.INVALID_FIELD, f"features: the group has several versions, say which one: {versions}")
    if not candidates or feature not in candidates[0].features:
        raise _unknown()
    return AskedFeature(f"{view}__{feature}" if full else feature, candidates[0], feature)


def _unknown() -> ContractError:
    return not_found(Reason.UNKNOWN_GROUP_VERSION, "features: one is of no group that is served; see GET /v0/catalogue")


def answer_of(question: PlaneQuestion, response: bytes) -> bytes:
    """The response of get_features as the answer to a question, columns in its order; a decimal is a text, as everywhere."""
    content = orjson.loads(response)
    snapshot, provenance = content["snapshot"], content["provenance"]
    values = {
        (key["key_type"], key["key_id"], group["group_name"], group["group_version"]): group["features"]
        for key in snapshot["by_key"]
        for group in key["by_group"]
    }
    updates = {_place(block): block for block in provenance["freshness"]}
    columns = [
        {"values": key_ids, "statuses": [PRESENT] * len(key_ids), "event_timestamps": [NO_TIME] * len(key_ids)}
        for _, key_ids in question.entities.values()
    ]
    keys_of = dict(question.entities.values())
    for column_of in question.features:
        group = column_of.group
        column: dict[str, list[Any]] = {"values": [], "statuses": [], "event_timestamps": []}
        for key_id in keys_of[group.key_type.value]:
            place = (group.key_type.value, key_id, group.group_name, group.group_version)
            block = updates[place]
            updated_at = block["last_update_event_time"]
            status = NOT_FOUND if updated_at is None else OUTSIDE_MAX_AGE if block["stale"] else PRESENT
            column["values"].append(values[place][column_of.feature])
            column["statuses"].append(status)
            column["event_timestamps"].append(updated_at or NO_TIME)
        columns.append(column)
    return orjson.dumps(
        {
            "results": columns,
            "metadata": {
                "feature_names": [*question.entities, *(column_of.name for column_of in question.features)],
                "feature_snapshot_hash": snapshot["feature_snapshot_hash"],
                "as_of_time_utc": snapshot["as_of_time_utc"],
            },
        }
    )


def _place(block: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return block["key_type"], block["key_id"], block["group_name"], block["group_version"]
