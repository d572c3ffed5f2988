"""Errors of the contract: closed lists of codes and reasons, one exception."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.snapshot_hash import CONTRACT_VERSION


class ErrorCode(StrEnum):
    """What kind of failure it is."""

    INVALID_REQUEST = "INVALID_REQUEST"
    NOT_FOUND = "NOT_FOUND"
    UNAVAILABLE = "UNAVAILABLE"


class Reason(StrEnum):
    """Why, from a closed list."""

    # INVALID_REQUEST
    MALFORMED_JSON = "MALFORMED_JSON"
    INVALID_FIELD = "INVALID_FIELD"
    MISSING_FIELD = "MISSING_FIELD"
    INVALID_TIME = "INVALID_TIME"
    RAW_IDENTIFIER = "RAW_IDENTIFIER"
    TOO_MANY_KEYS = "TOO_MANY_KEYS"
    TOO_MANY_GROUPS = "TOO_MANY_GROUPS"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    BODY_INCOMPLETE = "BODY_INCOMPLETE"
    INVALID_KEY = "INVALID_KEY"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    DUPLICATE_GROUP = "DUPLICATE_GROUP"
    GROUP_WITHOUT_KEY = "GROUP_WITHOUT_KEY"
    KEY_WITHOUT_GROUP = "KEY_WITHOUT_GROUP"
    AS_OF_BEFORE_HORIZON = "AS_OF_BEFORE_HORIZON"
    REQUEST_CONTEXT_MISSING = "REQUEST_CONTEXT_MISSING"
    REQUEST_CONTEXT_INVALID = "REQUEST_CONTEXT_INVALID"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    FOREIGN_HOST = "FOREIGN_HOST"
    FOREIGN_ORIGIN = "FOREIGN_ORIGIN"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    INTENT_REFUSED = "INTENT_REFUSED"
    BASIS_LOST = "BASIS_LOST"
    DECISION_MISMATCH = "DECISION_MISMATCH"
    DECISION_CONFLICT = "DECISION_CONFLICT"
    TOO_MANY_MEMBERS = "TOO_MANY_MEMBERS"
    TOO_MANY_RECORDS = "TOO_MANY_RECORDS"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    CASE_ENTRY_CONFLICT = "CASE_ENTRY_CONFLICT"
    CASE_NOT_NOW = "CASE_NOT_NOW"
    ACTION_NOT_NOW = "ACTION_NOT_NOW"
    # NOT_FOUND
    UNKNOWN_RUN = "UNKNOWN_RUN"
    UNKNOWN_GROUP_VERSION = "UNKNOWN_GROUP_VERSION"
    UNKNOWN_SNAPSHOT = "UNKNOWN_SNAPSHOT"
    UNKNOWN_BUILD_RUN = "UNKNOWN_BUILD_RUN"
    UNKNOWN_DECISION = "UNKNOWN_DECISION"
    UNKNOWN_CASE = "UNKNOWN_CASE"
    UNKNOWN_ACTION = "UNKNOWN_ACTION"
    UNKNOWN_COMPARISON = "UNKNOWN_COMPARISON"
    UNKNOWN_DATASET = "UNKNOWN_DATASET"
    UNKNOWN_PATH = "UNKNOWN_PATH"
    # UNAVAILABLE
    STORE_DOWN = "STORE_DOWN"
    PROJECTION_STALLED = "PROJECTION_STALLED"
    PROJECTION_BEHIND = "PROJECTION_BEHIND"
    BASIS_NOT_REACHED = "BASIS_NOT_REACHED"
    LOG_TAIL_LOST = "LOG_TAIL_LOST"
    PUBLISH_AMBIGUOUS = "PUBLISH_AMBIGUOUS"
    SERVED_LOG_FULL = "SERVED_LOG_FULL"
    DECISION_PENDING = "DECISION_PENDING"
    IEG_DOWN = "IEG_DOWN"
    SNAPSHOT_CORRUPT = "SNAPSHOT_CORRUPT"
    DECISION_CORRUPT = "DECISION_CORRUPT"
    OVERLOADED = "OVERLOADED"
    RATE_EXCEEDED = "RATE_EXCEEDED"
    INTERNAL = "INTERNAL"
    # of any code: an error that another plane made, and that states no reason
    UNSTATED = "UNSTATED"


class ContractError(Exception):
    """A refusal as the contract words it; `message` never holds a payload, a raw identifier or a stack trace."""

    def __init__(
        self,
        code: ErrorCode,
        reason: Reason,
        message: str,
        *,
        context_pins: ContextPins | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.context_pins = context_pins

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later: exactly the UNAVAILABLE ones."""
        return self.code is ErrorCode.UNAVAILABLE

    def wire(self, contract_version: str = CONTRACT_VERSION) -> dict[str, Any]:
        """The error object of a contract, the serving boundary's unless it is said otherwise."""
        return {
            "kind": "error_response",
            "contract_version": contract_version,
            "error_code": self.code.value,
            "reason": self.reason.value,
            "message": self.message,
            "retryable": self.retryable,
            "context_pins": None if self.context_pins is None else self.context_pins.wire(),
        }


def invalid(reason: Reason, message: str, pins: ContextPins | None = None) -> ContractError:
    """An INVALID_REQUEST."""
    return ContractError(ErrorCode.INVALID_REQUEST, reason, message, context_pins=pins)


def not_found(reason: Reason, message: str, pins: ContextPins | None = None) -> ContractError:
    """A NOT_FOUND."""
    return ContractError(ErrorCode.NOT_FOUND, reason, message, context_pins=pins)


def unavailable(reason: Reason, message: str, pins: ContextPins | None = None) -> ContractError:
    """An UNAVAILABLE, which a client may retry."""
    return ContractError(ErrorCode.UNAVAILABLE, reason, message, context_pins=pins)
