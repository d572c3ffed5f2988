"""Bounds of requests over HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.api.build_routes import MAX_INTENT_BYTES


@dataclass(frozen=True)
class HttpPolicy:
    """Bounds of the service: sizes of a request and of an intent in bytes, seconds for a body, requests answered at once."""

    max_body_bytes: int = 65_536
    max_intent_bytes: int = MAX_INTENT_BYTES
    body_timeout_seconds: float = 5.0
    max_in_flight: int = 512
