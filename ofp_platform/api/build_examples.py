"""Worked examples of the offline plane's routes: an intent as it is submitted, its run, and errors."""

from __future__ import annotations

from typing import Any

from ofp_platform.api.build_routes import MAX_INTENT_BYTES
from ofp_platform.api.examples import request_example, snapshot_record_example
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.offline.build_intent import INTENT, AsOfBasis, AsOfSpec, intent_wire, request_id
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.rebuilt_snapshot import RebuiltFeatureSnapshot
from ofp_platform.vocabulary.serving import OFFLINE_CONTRACT_VERSION


def intent_example() -> dict[str, Any]:
    """A training set of the payments of three weeks, with the labels of the week after."""
    return {
        "kind": "ofs_build_intent",
        "contract_version": "v0",
        "intent": "dataset_build",
        "context_pins": request_example()["context_pins"],
        "run_facts_ref": "card-payments/run-2026-03",
        "stream_name": "payments",
        "dataset_name": "fraud_by_payment",
        "purpose": "training",
        "replay": {"select": "admission_times", "from_utc": "2026-03-01T00:00:00Z", "to_utc": "2026-03-31T00:00:00Z"},
        "feature_pack": {"pack_id": "card_payments", "revision": 1},
        "feature_groups": [{"group_name": "account_activity", "group_version": "v1"}],
        "scope": {
            "kind": "per_event",
            "event_types": ["card_payment"],
            "from_utc": "2026-03-01T00:00:00Z",
            "to_utc": "2026-03-22T00:00:00Z",
            "payload_fields": ["amount_minor"],
        },
        "as_of_basis": "ingest_time",
        "label": {"label_type": "fraud", "as_of_utc": "2026-03-29T00:00:00Z", "maturity_seconds": 604_800},
        "policy": {"policy_id": "fraud_training", "revision": 1},
    }


def run_example(wire: dict[str, Any] | None = None) -> dict[str, Any]:
    """The run of an intent (by default `intent_example`), nobody having begun to build it."""
    intent = INTENT.validate_python(wire or intent_example())
    return {
        "kind": "ofs_build_run",
        "contract_version": "v0",
        "run_key": request_id(intent),
        "state": "QUEUED",
        "intent": intent_wire(intent),
        "publish_only": False,
        "attempts": 0,
        "attempt_limit": 3,
        "publish_attempts": 0,
        "publish_attempt_limit": 3,
        "submitted_at_utc": "2026-03-31T12:00:00.250000Z",
        "changed_at_utc": "2026-03-31T12:00:00.250000Z",
    }


def rebuilt_example() -> dict[str, Any]:
    """A forensic rebuild of the answer of `response_example`."""
    hashed_object = snapshot_record_example()["hashed"]
    as_of = AsOfSpec(as_of_time_utc=hashed_object["as_of_time_utc"], as_of_basis=AsOfBasis.DECISION)
    return RebuiltFeatureSnapshot.of(snapshot_record_example()["feature_snapshot_hash"], hashed_object, as_of).wire()


def build_error_examples() -> dict[int, dict[str, Any]]:
    """HTTP status to an error of these routes that has it."""
    words = "is not one of the values allowed here: 'decision', 'ingest_time' or 'event_time'"
    errors: dict[int, ContractError] = {
        400: invalid(Reason.INTENT_REFUSED, str(BuildRefused(BuildReason.INVALID_INTENT, words, "as_of_basis"))),
        401: invalid(Reason.UNAUTHENTICATED, "send a key that is valid in the header 'Authorization: Bearer <key>'"),
        403: invalid(Reason.FORBIDDEN, "the principal metrics has no scope builds:submit"),
        404: not_found(Reason.UNKNOWN_BUILD_RUN, "no run has this key; the answer to a submitted intent names its run"),
        405: invalid(Reason.METHOD_NOT_ALLOWED, "this path takes POST only"),
        408: invalid(Reason.BODY_INCOMPLETE, "the body did not arrive within 5 s"),
        413: invalid(Reason.BODY_TOO_LARGE, f"the body is larger than {MAX_INTENT_BYTES} bytes"),
        415: invalid(Reason.UNSUPPORTED_MEDIA_TYPE, "the body is sent with the header 'content-type: application/json'"),
        421: invalid(Reason.FOREIGN_HOST, "this service is not known by the name in the header Host; see ofp serve --allow-host"),
        503: unavailable(Reason.STORE_DOWN, "the run ledger does not answer; the same request may be sent again, and is one run"),
    }
    return {status: error.wire(OFFLINE_CONTRACT_VERSION) for status, error in errors.items()}
