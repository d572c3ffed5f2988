"""From an error of the contract to an HTTP answer, and from an unexpected exception to an error of the contract."""

from __future__ import annotations

import logging

from ofp_platform.telemetry.line_parts import error_places
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError, ErrorCode, Reason, unavailable
from ofp_platform.vocabulary.snapshot_hash import CONTRACT_VERSION

LOGGER = logging.getLogger("ofp.http")
RETRY_AFTER_SECONDS = 1
JSON_TYPE = b"application/json"
Headers = list[tuple[bytes, bytes]]

_STATUS_OF_CODE = {ErrorCode.INVALID_REQUEST: 400, ErrorCode.NOT_FOUND: 404, ErrorCode.UNAVAILABLE: 503}
_STATUS_OF_REASON = {
    Reason.BODY_TOO_LARGE: 413,
    Reason.BODY_INCOMPLETE: 408,
    Reason.UNAUTHENTICATED: 401,
    Reason.FORBIDDEN: 403,
    Reason.FOREIGN_ORIGIN: 403,
    Reason.UNSUPPORTED_MEDIA_TYPE: 415,
    Reason.FOREIGN_HOST: 421,
    Reason.METHOD_NOT_ALLOWED: 405,
    Reason.DECISION_CONFLICT: 409,
    Reason.IDEMPOTENCY_CONFLICT: 409,
    Reason.CASE_ENTRY_CONFLICT: 409,
    Reason.CASE_NOT_NOW: 409,
    Reason.ACTION_NOT_NOW: 409,
    Reason.RATE_EXCEEDED: 429,
}
# the body was not read to its end: the connection cannot carry another request
_ENDS_CONNECTION = frozenset(
    {
        Reason.BODY_TOO_LARGE,
        Reason.BODY_INCOMPLETE,
        Reason.UNAUTHENTICATED,
        Reason.FORBIDDEN,
        Reason.FOREIGN_HOST,
        Reason.FOREIGN_ORIGIN,
        Reason.UNSUPPORTED_MEDIA_TYPE,
        Reason.OVERLOADED,
    }
)


def status_of(error: ContractError) -> int:
    """The HTTP status of an error."""
    return _STATUS_OF_REASON.get(error.reason) or _STATUS_OF_CODE[error.code]


def refusal(error: ContractError, request_id: str, contract_version: str = CONTRACT_VERSION) -> tuple[int, Headers, bytes]:
    """Status, headers (with content-length) and body of the answer to a refused request."""
    body = canonical_bytes(error.wire(contract_version))
    headers: Headers = [
        (b"content-type", JSON_TYPE),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode("ascii")),
    ]
    if error.retryable:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_SECONDS))
    if error.reason is Reason.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.reason in _ENDS_CONNECTION:
        headers.append((b"connection", b"close"))
    return status_of(error), headers, body


def unexpected(error: Exception, route: str, request_id: str) -> ContractError:
    """Log an exception that nobody expected and give the error that the client sees.

    The log has the type and the places in the code only: the text of an exception may quote a payload.
    """
    places = " < ".join(error_places(error))
    LOGGER.error("unexpected %s in %s request_id=%s at %s", type(error).__name__, route, request_id, places)
    return unavailable(Reason.INTERNAL, f"an unexpected error, logged as request {request_id}; try again")
