"""Worked examples of the contract for the OpenAPI page and the documents: valid, with hashes that verify."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache, wraps
from typing import Any

from ofp_platform.api.feast_questions import NO_TIME
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.identity_link import graph_version_of
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.snapshot_hash import CONTRACT_VERSION, hashed_object, snapshot_hash

_AS_OF = "2026-03-31T12:00:00.250000Z"
_ACCOUNT = {"key_type": "account", "key_id": "acc-000117"}
_MERCHANT = {"key_type": "merchant", "key_id": "mer-00042"}
_AMOUNT = {"group_name": "account_amount", "group_version": "v1"}
_ACTIVITY = {"group_name": "merchant_activity", "group_version": "v1"}
_PINS = ContextPins(
    scenario_id="card-payments",
    run_id="run-2026-03",
    manifest_fingerprint=sha256_hex(b"example manifest"),
    parameter_hash=sha256_hex(b"example parameters"),
    seed=7,
)
_CONTEXT = {"amount_minor": 12_900}
_EXTENSIONS = {"channel": "web"}


def _fresh(example: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Examples share parts; a caller gets its own copy to change as it likes."""

    @wraps(example)
    def copied() -> dict[str, Any]:
        return deepcopy(example())

    return copied


@_fresh
def request_example() -> dict[str, Any]:
    """A get_features request: one account, one merchant, as of a payment of 129.00."""
    return {
        "kind": "get_features_request",
        "contract_version": CONTRACT_VERSION,
        "context_pins": _PINS.wire(),
        "feature_keys": [_ACCOUNT, _MERCHANT],
        "feature_groups": [_AMOUNT, _ACTIVITY],
        "as_of_time_utc": _AS_OF,
        "request_context": _CONTEXT,
        "at_least_basis": [{"stream_name": "payments", "partition_id": "p0002", "offset": 51_233}],
        "request_id": "decision-8812",
        "extensions": _EXTENSIONS,
    }


@cache
def _hashed() -> dict[str, Any]:
    offsets = {"p0000": 50_871, "p0001": 49_930, "p0002": 51_234, "p0003": 48_322}
    parts = [
        {"partition_id": name, "offset_kind": "exclusive_next", "offset": offset, "closed": False}
        for name, offset in offsets.items()
    ]
    return hashed_object(
        context_pins=_PINS.wire(),
        as_of_time_utc=_AS_OF,
        feature_keys=[_ACCOUNT, _MERCHANT],
        feature_groups=[_AMOUNT, _ACTIVITY],
        registry_digest=sha256_hex(b"example pack"),
        run_config_digest=sha256_hex(b"example policy"),
        values=[
            {
                **_ACCOUNT,
                "by_group": [
                    {
                        **_AMOUNT,
                        "features": {"amount_over_mean_30d": "2.962112", "mean_amount_30d": "4355.000000"},
                    }
                ],
            },
            {
                **_MERCHANT,
                "by_group": [
                    {
                        **_ACTIVITY,
                        "features": {
                            "count_1h": 0,
                            "count_24h": 0,
                            "count_5m": 0,
                            "declined_ratio_24h": None,
                            "mean_amount_30d": None,
                        },
                    }
                ],
            },
        ],
        freshness=[
            {
                **_ACCOUNT,
                **_AMOUNT,
                "ttl_seconds": 2_592_000,
                "last_update_event_time": "2026-03-31T11:58:30Z",
                "age_seconds": 90,
                "stale": False,
            },
            {
                **_MERCHANT,
                **_ACTIVITY,
                "ttl_seconds": 86_400,
                "last_update_event_time": None,
                "age_seconds": None,
                "stale": True,
            },
        ],
        warnings=[{"code": code, **_MERCHANT, **_ACTIVITY} for code in ("NO_DATA", "STALE_GROUP")],
        input_basis={"stream_name": "payments", "partitions": parts},
        request_context=_CONTEXT,
    )


@_fresh
def response_example() -> dict[str, Any]:
    """The answer to `request_example`: a known account, a merchant without data."""
    hashed_part = _hashed()
    return {
        "kind": "get_features_response",
        "contract_version": CONTRACT_VERSION,
        "snapshot": {
            "kind": "feature_snapshot",
            "contract_version": CONTRACT_VERSION,
            "context_pins": hashed_part["context_pins"],
            "as_of_time_utc": _AS_OF,
            "feature_snapshot_hash": snapshot_hash(hashed_part),
            "by_key": hashed_part["values"],
        },
        "provenance": {
            "kind": "feature_provenance",
            "contract_version": CONTRACT_VERSION,
            "context_pins": hashed_part["context_pins"],
            "feature_snapshot_hash": snapshot_hash(hashed_part),
            "requested": {
                "as_of_time_utc": _AS_OF,
                "feature_keys": hashed_part["feature_keys"],
                "feature_groups": hashed_part["feature_groups"],
                "request_context": _CONTEXT,
            },
            "group_versions_used": hashed_part["feature_groups"],
            "freshness": hashed_part["freshness"],
            "input_basis": hashed_part["input_basis"],
            "graph_version": None,
            "feature_definition_set": _definition_set(),
            "run_config_digest": hashed_part["run_config_digest"],
            "warnings": hashed_part["warnings"],
            "posture": {
                "state": "GREEN",
                "reasons": [],
                "lag_records": 3,
                "watermark_utc": "2026-03-31T12:00:00.100000Z",
                "watermark_age_seconds": 0,
            },
            "request_id": "decision-8812",
            "extensions": _EXTENSIONS,
        },
    }


def _definition_set() -> dict[str, Any]:
    return {"pack_id": "card_payments", "revision": 1, "digest": _hashed()["registry_digest"]}


@_fresh
def snapshot_record_example() -> dict[str, Any]:
    """The record of the snapshot in `response_example`."""
    hashed_part = _hashed()
    return {
        "kind": "ofp_snapshot_record",
        "contract_version": "v0",
        "feature_snapshot_hash": snapshot_hash(hashed_part),
        "hashed": hashed_part,
    }


@_fresh
def feature_groups_example() -> dict[str, Any]:
    """A catalogue with one group."""
    return {
        "kind": "ofp_feature_groups",
        "contract_version": "v0",
        "context_pins": _PINS.wire(),
        "feature_definition_set": _definition_set(),
        "groups": [
            {
                **_AMOUNT,
                "key_type": "account",
                "ttl_seconds": 2_592_000,
                "features": ["amount_over_mean_30d", "mean_amount_30d"],
                "request_context": {"amount_minor": "integer"},
            }
        ],
    }


@_fresh
def entity_example() -> dict[str, Any]:
    """Two devices that are one."""
    basis = Basis.model_validate(
        {"stream_name": "links", "partitions": [{"partition_id": "0000", "offset_kind": "exclusive_next", "offset": 2}]}
    )
    since = "2026-01-02T00:00:00Z"
    return {
        "kind": "ieg_entity_profile",
        "contract_version": "v0",
        "context_pins": _PINS.wire(),
        "graph_version": graph_version_of(basis).model_dump(mode="json"),
        "as_of_time_utc": "2026-01-03T00:00:00Z",
        "key": {"key_type": "device", "key_id": "device-0000001"},
        "canonical_id": "device-0000002",
        "members": ["device-0000001", "device-0000002"],
        "conflicts": [],
        "neighbours": [{"member": "device-0000001", "canonical": "device-0000002", "effective_time_utc": since, "counts": True}],
    }


@_fresh
def catalogue_example() -> dict[str, Any]:
    """The definitions of one group."""
    over = {
        "aggregation": "mean",
        "events": ["card_payment"],
        "value": "amount_minor",
        "where": {},
        "window": "30d",
        "delay": "0s",
    }
    words = {"owner": "team:fraud-platform", "tags": []}
    return {
        "kind": "ofp_catalogue",
        "contract_version": "v0",
        "context_pins": _PINS.wire(),
        "feature_definition_set": _definition_set(),
        "pack_description": "Velocity and amounts of card payments.",
        "groups": [
            {
                **_AMOUNT,
                "key_type": "account",
                "ttl_seconds": 2_592_000,
                "content_digest": "5" * 64,
                "description": "A payment beside what the account usually pays.",
                "owner": "team:fraud-platform",
                "tags": ["amounts"],
                "features": [
                    {
                        "name": "amount_over_mean_30d",
                        "type": "decimal(6)",
                        "expression": "request.amount_minor / mean_amount_30d",
                        "description": "",
                        **words,
                    },
                    {"name": "mean_amount_30d", "type": "decimal(6)", "definition": over, "description": "", **words},
                ],
                "request_context": {"amount_minor": "integer"},
                "read_by": [{"kind": "dataset", "name": "fraud_by_payment", "reference": "6" * 64}],
            }
        ],
        "readers_known": True,
    }


@_fresh
def feast_question_example() -> dict[str, Any]:
    """A question in Feast's shape."""
    return {
        "features": ["account_amount:mean_amount_30d"],
        "entities": {"account_id": [_ACCOUNT["key_id"]]},
        "as_of_time_utc": _AS_OF,
        "request_context": _CONTEXT,
    }


@_fresh
def feast_answer_example() -> dict[str, Any]:
    """Its answer."""
    account = {"values": [_ACCOUNT["key_id"]], "statuses": ["PRESENT"], "event_timestamps": [NO_TIME]}
    mean = {"values": ["4355.000000"], "statuses": ["PRESENT"], "event_timestamps": ["2026-03-31T11:58:30Z"]}
    return {
        "results": [account, mean],
        "metadata": {
            "feature_names": ["account_id", "mean_amount_30d"],
            "feature_snapshot_hash": "7" * 64,
            "as_of_time_utc": _AS_OF,
        },
    }


@_fresh
def apply_failures_example() -> dict[str, Any]:
    """One record that feeds no group."""
    row = {
        "partition_id": "0002",
        "offset": "51233",
        "event_time_utc": "2026-03-31T11:59:58Z",
        "reason": "MISSING_KEY",
        "detail": "account_id is not there",
        "groups": "",
        "partial": False,
    }
    kind = {"kind": "ofp_apply_failures", "contract_version": "v0"}
    return {**kind, "projection_id": 1, "failures": [row], "next_after": None}


@_fresh
def explanation_example() -> dict[str, Any]:
    """One value with one event in its window."""
    return {
        "kind": "ofp_explanation",
        "contract_version": "v0",
        "feature_snapshot_hash": snapshot_record_example()["feature_snapshot_hash"],
        "key_type": "account",
        "key_id": "acc-000117",
        "group_name": "account_activity",
        "group_version": "v1",
        "feature": "sum_amount_30d",
        "as_of_time_utc": "2026-03-31T12:00:00.250000Z",
        "value": 1250,
        "records_read": 1200,
        "windows": [
            {
                "role": "value",
                "aggregation": "sum",
                "of": "amount_minor",
                "event_types": ["card_payment"],
                "where": {},
                "after_utc": "2026-03-01T12:00:00.250000Z",
                "until_utc": "2026-03-31T12:00:00.250000Z",
                "event_count": 1,
                "events": [
                    {
                        "partition_id": "0002",
                        "offset": 51233,
                        "event_id": "evt-9",
                        "event_type": "card_payment",
                        "event_time_utc": "2026-03-31T11:59:58.000000Z",
                        "admitted_at_utc": "2026-03-31T11:59:58.400000Z",
                        "copies": 0,
                    }
                ],
            }
        ],
    }


@_fresh
def health_example() -> dict[str, Any]:
    """A plane that is a little behind."""
    basis = _hashed()["input_basis"]
    return {
        "kind": "ofp_health",
        "contract_version": "v0",
        "state": "AMBER",
        "reasons": ["lag of 7210 records"],
        "projection": "payments/1",
        "input_basis": basis,
        "watermark_utc": "2026-03-31T12:00:00.100000Z",
        "watermark_age_seconds": 2,
        "partitions": [
            {"partition_id": part["partition_id"], "lag_records": 7_210 if part["partition_id"] == "p0002" else 0}
            for part in basis["partitions"]
        ],
        "counters": {"snapshots_built": 18_201, "events_applied": 200_360, "duplicates": 41},
        "apply_failures": {"MISSING_FIELD": 2},
    }


@_fresh
def decision_example() -> dict[str, Any]:
    """The decision on the payment of `request_example`, by the snapshot of `response_example`."""
    response = response_example()
    provenance = response["provenance"]
    return DecisionRecord.model_validate_json(
        canonical_bytes(
            {
                "decision_id": decision_id(_PINS, "card_payment", "payment-8812"),
                "context_pins": _PINS.wire(),
                "event_type": "card_payment",
                "event_id": "payment-8812",
                "event_position": request_example()["at_least_basis"][0],
                "as_of_time_utc": _AS_OF,
                "feature_snapshot_hash": provenance["feature_snapshot_hash"],
                "feature_keys": [_ACCOUNT, _MERCHANT],
                "feature_groups": [_AMOUNT, _ACTIVITY],
                "request_context": _CONTEXT,
                "request_id": "decision-8812",
                "feature_definition_set": provenance["feature_definition_set"],
                "run_config_digest": provenance["run_config_digest"],
                "input_basis": provenance["input_basis"],
                "rule": {"rule_name": "card_velocity", "rule_version": "v1", "digest": sha256_hex(b"example rule")},
                "score": 30,
                "outcome": "review",
                "decided_at_utc": "2026-03-31T12:00:00.120000Z",
            }
        )
    ).wire()


@_fresh
def labels_example() -> dict[str, Any]:
    """A chargeback of that payment."""
    return {
        "kind": "label_assertions",
        "contract_version": "v0",
        "context_pins": _PINS.wire(),
        "assertions": [
            {
                "kind": "label_assertion",
                "contract_version": "v0",
                "event_class": "payment",
                "event_id": "payment-8812",
                "label_type": "fraud",
                "value": 1,
                "effective_time_utc": _AS_OF,
                "observed_time_utc": "2026-04-20T08:00:00Z",
                "source": "chargebacks",
            }
        ],
    }


def error_examples() -> dict[int, dict[str, Any]]:
    """HTTP status to an error that has it."""
    errors: dict[int, ContractError] = {
        400: invalid(Reason.INVALID_TIME, "as_of_time_utc: not an RFC 3339 UTC time with 'Z' and at most 6 fractional digits"),
        401: invalid(Reason.UNAUTHENTICATED, "send a key that is valid in the header 'Authorization: Bearer <key>'"),
        403: invalid(Reason.FORBIDDEN, "the principal metrics has no scope features:read"),
        404: not_found(Reason.UNKNOWN_GROUP_VERSION, "group account_amount v9 is not in the registry", _PINS),
        405: invalid(Reason.METHOD_NOT_ALLOWED, "/v0/get_features takes POST only"),
        408: invalid(Reason.BODY_INCOMPLETE, "the body did not arrive within 5 s"),
        409: invalid(
            Reason.DECISION_CONFLICT,
            f"decision {decision_example()['decision_id']} is recorded with other content; what was decided is never decided"
            " again",
            _PINS,
        ),
        413: invalid(Reason.BODY_TOO_LARGE, "the body is larger than 65536 bytes"),
        415: invalid(Reason.UNSUPPORTED_MEDIA_TYPE, "the body is sent with the header 'content-type: application/json'"),
        421: invalid(Reason.FOREIGN_HOST, "this service is not known by the name in the header Host; see ofp serve --allow-host"),
        503: unavailable(Reason.BASIS_NOT_REACHED, "the basis did not reach at_least_basis within 500 ms", _PINS),
    }
    return {status: error.wire() for status, error in errors.items()}
