"""The example of the API's page, taken from the service itself: what is copied from there gets the answer shown there."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from ofp_platform.api.service import ServingPort
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.serving import FeatureGroups, Health
from ofp_platform.vocabulary.snapshot_hash import CONTRACT_VERSION
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time, parse_time

_HOUR = 3600 * MICROS_PER_SECOND
_BEFORE_ANY_EVENT = "2026-01-01T00:00:00Z"
_CONTEXT_VALUES: dict[str, int | str] = {"integer": 12_900, "decimal": "129.00"}


@dataclass(frozen=True)
class LiveExample:
    """A request to this very service, its answer, and the answer's snapshot hash."""

    request: dict[str, Any]
    response: dict[str, Any]
    snapshot_hash: str

    def intent(self) -> dict[str, Any]:
        """A forensic rebuild of that very answer: it ends as MATCH."""
        provenance = self.response["provenance"]
        pins, question = provenance["context_pins"], provenance["requested"]
        definitions, stream_name = provenance["feature_definition_set"], provenance["input_basis"]["stream_name"]
        intent = {
            "kind": "ofs_build_intent",
            "contract_version": "v0",
            "intent": "forensic_rebuild",
            "context_pins": pins,
            "run_facts_ref": f"{stream_name}/{pins['run_id']}",  # where `ofp facts publish` puts them
            "stream_name": stream_name,
            "policy": {"policy_id": "fraud_training", "revision": 1},
            "basis": provenance["input_basis"],
            "feature_pack": {name: definitions[name] for name in ("pack_id", "revision")},
            "run_config_digest": provenance["run_config_digest"],
            **{name: question[name] for name in ("feature_keys", "feature_groups", "as_of_time_utc")},
            "expected_hash": self.snapshot_hash,
        }
        if question["request_context"] is not None:
            intent["request_context"] = question["request_context"]
        return intent


def live_request(groups: FeatureGroups, health: Health) -> dict[str, Any]:
    """A request for one key and the first group of the catalogue, as of the full hour after the watermark.

    Rounded up, it changes with the hour only and is never behind the horizon.
    """
    group = next((candidate for candidate in groups.groups if not candidate.request_context), groups.groups[0])
    as_of = _BEFORE_ANY_EVENT
    if health.watermark_utc is not None:
        as_of = format_time(-(-parse_time(health.watermark_utc) // _HOUR) * _HOUR)
    request = {
        "kind": "get_features_request",
        "contract_version": CONTRACT_VERSION,
        "context_pins": groups.context_pins.wire(),
        "feature_keys": [{"key_type": group.key_type.value, "key_id": f"{group.key_type.value}-0000001"}],
        "feature_groups": [{"group_name": group.group_name, "group_version": group.group_version}],
        "as_of_time_utc": as_of,
        "request_id": "first-look",
    }
    if group.request_context:
        request["request_context"] = {name: _CONTEXT_VALUES.get(kind, "0") for name, kind in group.request_context.items()}
    return request


async def ask_live(port: ServingPort, known_example: LiveExample | None) -> LiveExample:
    """The example of now; `known` itself while the request would be the same.

    Raises:
        ContractError: the plane does not answer.
    """
    groups = FeatureGroups.model_validate_json(await port.feature_groups())
    request = live_request(groups, await port.health())
    if known_example is not None and known_example.request == request:
        return known_example
    answer = port.answer(canonical_bytes(request))
    if isinstance(answer, Awaitable):
        answer = await answer
    return LiveExample(request, json.loads(answer.body), answer.hash)
