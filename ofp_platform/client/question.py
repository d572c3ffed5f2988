"""Makes requests on the client's side: what is wrong is refused before it goes over the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from pydantic import ValidationError

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey
from ofp_platform.vocabulary.offline.build_intent import DatasetBuild, ForensicRebuild, ParityRebuild, intent_wire
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.raw_identifier import raw_identifier_in
from ofp_platform.vocabulary.serving import FeatureGroupRef, GetFeaturesRequest
from ofp_platform.vocabulary.times import format_time, to_micros

Keys = Sequence[FeatureKey | tuple[str, str]]
Groups = Sequence[FeatureGroupRef | tuple[str, str]]
Intent = DatasetBuild | ParityRebuild | ForensicRebuild


def make_request(
    *,
    context_pins: ContextPins,
    feature_keys: Keys,
    feature_groups: Groups,
    as_of_time_utc: str | datetime,
    request_context: Mapping[str, int | str] | None = None,
    at_least_basis: Sequence[Position] | None = None,
    request_id: str | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> GetFeaturesRequest:
    """A request, checked before it leaves: a raw identifier never goes over the wire.

    Keys are (key_type, key_id), groups (group_name, group_version). A datetime must have a zone.

    Raises:
        ContractError: INVALID_REQUEST; the message names the field, never its value.
    """
    try:
        instant = format_time(to_micros(as_of_time_utc)) if isinstance(as_of_time_utc, datetime) else as_of_time_utc
    except ValueError:
        raise invalid(Reason.INVALID_TIME, "as_of_time_utc: a datetime needs a zone", context_pins) from None
    try:
        request = GetFeaturesRequest(
            context_pins=context_pins,
            feature_keys=tuple(
                key if isinstance(key, FeatureKey) else FeatureKey.model_validate({"key_type": key[0], "key_id": key[1]})
                for key in feature_keys
            ),
            feature_groups=tuple(
                group if isinstance(group, FeatureGroupRef) else FeatureGroupRef(group_name=group[0], group_version=group[1])
                for group in feature_groups
            ),
            as_of_time_utc=instant,
            request_context=None if request_context is None else dict(request_context),
            at_least_basis=None if at_least_basis is None else tuple(at_least_basis),
            request_id=request_id,
            extensions=None if extensions is None else dict(extensions),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise _wrong_field(field, first["msg"], context_pins) from None
    shared_texts = {"context_pins": request.context_pins.wire(), "request_id": request_id, "request_context": request_context}
    for field, value in shared_texts.items():
        if raw_identifier_in(value) is not None:
            raise invalid(Reason.RAW_IDENTIFIER, f"{field}: a raw identifier never leaves; send the entity id", context_pins)
    return request


def _wrong_field(field: str, message: str, pins: ContextPins) -> ContractError:
    if "raw identifier" in message:
        return invalid(Reason.RAW_IDENTIFIER, f"{field}: a raw identifier is never a key; send the entity id", pins)
    if field == "as_of_time_utc":
        return invalid(Reason.INVALID_TIME, f"{field}: not an RFC 3339 UTC time with at most 6 fractional digits", pins)
    return invalid(Reason.INVALID_FIELD, f"{field}: not valid", pins)


def request_body(request: GetFeaturesRequest) -> bytes:
    """The bytes of a request, absent fields left out."""
    return canonical_bytes(request.model_dump(mode="json", exclude_none=True))


def intent_body(intent: Intent | Mapping[str, Any]) -> bytes:
    """The bytes of an intent. A mapping is sent as it is: the service says what is wrong with it.

    Raises:
        ContractError: INVALID_FIELD; the mapping holds what JSON has no form for.
    """
    if not isinstance(intent, Mapping):
        return canonical_bytes(intent_wire(intent))
    try:
        return json.dumps(dict(intent), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        words = "an intent is made of texts, numbers, true, false, null, lists and dicts; a time is a text"
        raise invalid(Reason.INVALID_FIELD, words) from None


def path_with(path: str, **given: str | int | None) -> str:
    """A path with a query of what is given."""
    query = urlencode({name: value for name, value in given.items() if value is not None})
    return f"{path}?{query}" if query else path


def entity_path(key: FeatureKey | tuple[str, str], as_of_time_utc: str | datetime | None) -> str:
    """Path and query of the entity of a key."""
    key_type, key_id = (key.key_type.value, key.key_id) if isinstance(key, FeatureKey) else key
    moment = (
        as_of_time_utc if as_of_time_utc is None or isinstance(as_of_time_utc, str) else format_time(to_micros(as_of_time_utc))
    )
    return path_with("/v0/entity", key_type=key_type, key_id=key_id, as_of_time_utc=moment)


def explanation_path(snapshot_hash: str, feature: str, key: str | None, group: str | None) -> str:
    """Path and query of the events behind one served value."""
    return path_with(f"/v0/snapshots/{snapshot_hash}/explanation", feature=feature, key=key, group=group)


def decision_query(
    key: FeatureKey | tuple[str, str] | None,
    event_id: str | None,
    from_utc: str | datetime | None,
    to_utc: str | datetime | None,
    limit: int | None,
    cursor: str | None,
) -> str:
    """The query of a list of decisions, with its question mark; empty: all of them."""
    key_type, key_id = (None, None) if key is None else (key.key_type, key.key_id) if isinstance(key, FeatureKey) else key
    times = [time if time is None or isinstance(time, str) else format_time(to_micros(time)) for time in (from_utc, to_utc)]
    names = ("key_type", "key_id", "event_id", "from_utc", "to_utc", "limit", "cursor")
    given = zip(names, (key_type, key_id, event_id, *times, limit, cursor), strict=True)
    query = urlencode({name: value for name, value in given if value is not None})
    return f"?{query}" if query else ""


def labels_body(context_pins: ContextPins, assertions: Sequence[LabelAssertion]) -> bytes:
    """The bytes of assertions about events of a run."""
    head = {"kind": "label_assertions", "contract_version": "v0", "context_pins": context_pins.wire()}
    return canonical_bytes({**head, "assertions": [assertion.wire() for assertion in assertions]})
