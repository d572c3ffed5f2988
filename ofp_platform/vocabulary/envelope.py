"""The canonical event envelope, what an amendment says of another event, their canonical bytes and the payload hash."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field

from ofp_platform.vocabulary.canonical import MAX_DEPTH, MAX_INTEGER, canonical_bytes, jcs_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Identifier, Model, Time

EventType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,62}$")]
SchemaVersion = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$")]
_FLAT = (str, int, bool, type(None))
_LONG_NUMBER = re.compile(rb"[0-9]{16}")


class Amends(Model):
    """The event that an amendment amends, by its identity and event time, and how.

    void: the event does not count any more. replace: it counts with the amendment's payload. Either payload has its keys.
    """

    event_class: EventType
    event_id: Identifier
    ts_utc: Time
    kind: Literal["void", "replace"]


class Envelope(Model):
    """One event as a producer sends it. Pins that a run does not have are left out, never null; so is `amends`."""

    event_id: Identifier
    event_type: EventType
    schema_version: SchemaVersion
    ts_utc: Time
    emitted_at_utc: Time | None = None
    scenario_id: Identifier
    run_id: Identifier
    manifest_fingerprint: Identifier
    parameter_hash: Identifier
    seed: int | None = Field(default=None, ge=0, le=2**53 - 1)
    platform_run_id: Identifier | None = None
    scenario_run_id: Identifier | None = None
    amends: Amends | None = None
    payload: dict[str, Any]

    def pins(self) -> ContextPins:
        """The run that the event belongs to.

        Raises:
            ValueError: a pin is a raw identifier.
        """
        return ContextPins(
            scenario_id=self.scenario_id,
            run_id=self.run_id,
            manifest_fingerprint=self.manifest_fingerprint,
            parameter_hash=self.parameter_hash,
            seed=self.seed,
            platform_run_id=self.platform_run_id,
            scenario_run_id=self.scenario_run_id,
        )


def ijson_bytes(value: Any) -> bytes:
    """RFC 8785 bytes of any I-JSON object, by the fast encoder where the value is flat and inside its profile.

    Raises:
        ValueError | TypeError: the value is not I-JSON; the text says why.
    """
    if isinstance(value, dict) and all(type(v) in _FLAT and type(k) is str and k.isascii() for k, v in value.items()):
        return canonical_bytes(value)
    if _is_in_profile(value):
        try:
            return canonical_bytes(value)
        except TypeError:
            pass  # what is wrong with it is said below
    encoded = jcs_bytes(value)
    if _LONG_NUMBER.search(encoded) is not None and _is_unreadable(value):
        raise ValueError("a number whose canonical form is an integer beyond 2^53-1; send it as a string")
    return encoded


def _is_in_profile(value: Any) -> bool:
    """Whether a nested value holds nothing but what the fast encoder writes as RFC 8785 has it, if it is I-JSON at all."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for part in level:
            kind = type(part)
            if kind is dict:
                try:
                    if not "".join(part).isascii():
                        return False
                except TypeError:  # a name that is no text
                    return False
                below.extend(part.values())
            elif kind is list:
                below.extend(part)
            elif kind not in _FLAT:
                return False
        if not below:
            return True
        level = below
    return False


def _is_unreadable(value: Any) -> bool:
    """Whether a float in it is written as an integer that nobody could read back as the same number."""
    if isinstance(value, dict):
        return any(map(_is_unreadable, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_is_unreadable, value))
    return isinstance(value, float) and MAX_INTEGER < abs(value) < 1e21


def payload_hash(envelope: Envelope) -> bytes:
    """SHA-256 (32 bytes) over the RFC 8785 bytes of event_type, schema_version, ts_utc, pins, payload and, if any, amends."""
    return hash_of_parts(
        envelope.event_type,
        envelope.schema_version,
        envelope.ts_utc,
        canonical_bytes(envelope.pins().wire()),
        ijson_bytes(envelope.payload),
        amends_bytes(envelope.amends),
    )


def amends_bytes(amends: Amends | None) -> bytes | None:
    """The RFC 8785 bytes of what an envelope amends; None: nothing."""
    return None if amends is None else canonical_bytes(amends.model_dump(mode="json"))


@lru_cache(maxsize=1024)
def read_amends(text: bytes) -> Amends:
    """Read what an envelope amends from its RFC 8785 bytes.

    Raises:
        pydantic.ValidationError: it is no such text.
    """
    return Amends.model_validate_json(text)


def hash_of_parts(event_type: str, schema_version: str, ts_utc: str, pins: bytes, payload: bytes, amends: bytes | None) -> bytes:
    """The payload hash from parts of a valid envelope; `pins`, `payload` and `amends` are their RFC 8785 bytes.

    The patterns of the three texts leave nothing to escape, so the sorted object can be put together as it stands.
    """
    body = b'{%b"event_type":"%b","payload":%b,"pins":%b,"schema_version":"%b","ts_utc":"%b"}' % (
        b"" if amends is None else b'"amends":%b,' % amends,
        event_type.encode(),
        payload,
        pins,
        schema_version.encode(),
        ts_utc.encode(),
    )
    return hashlib.sha256(body).digest()
