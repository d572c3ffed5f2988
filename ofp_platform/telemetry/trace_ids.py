"""Which trace an event has: its ids follow from the id of the event, so every process knows them, and nobody carries a header."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256


class Stage(StrEnum):
    """A stage on the way of an event, by the name of its spans."""

    ADMIT = "ofp.admit"
    APPEND = "ofp.append"
    APPLY = "ofp.apply"
    DECIDE = "ofp.decide"
    GET_FEATURES = "ofp.get_features"
    ACT = "ofp.act"
    AUDIT = "ofp.audit"


PARENTS = {
    Stage.APPEND: Stage.ADMIT,
    Stage.APPLY: Stage.APPEND,
    Stage.DECIDE: Stage.APPEND,
    Stage.GET_FEATURES: Stage.DECIDE,
    Stage.ACT: Stage.DECIDE,
    Stage.AUDIT: Stage.DECIDE,
}
"""The stage under which the spans of a stage stand."""


def trace_id(event_id: str) -> int:
    """The first 16 bytes of SHA-256 over `ofp|trace|` and the id of the event, as a number."""
    return int.from_bytes(sha256(f"ofp|trace|{event_id}".encode()).digest()[:16]) or 1


def span_id(stage: Stage, event_id: str) -> int:
    """The id of the span of a stage that an event passes once: 8 bytes, likewise."""
    return int.from_bytes(sha256(f"ofp|span|{stage}|{event_id}".encode()).digest()[:8]) or 1
