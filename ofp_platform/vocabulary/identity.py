"""Who an event is about and which run it belongs to: ContextPins, FeatureKey."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import from_json

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.model import Model, SafeIdentifier
from ofp_platform.vocabulary.raw_identifier import is_observed_identifier

MAX_KEY_ID_LENGTH = 128
_KEY_ID_CHARACTER = r"[\x21-\x7e]"
KEY_ID_TEXT = re.compile(f"{_KEY_ID_CHARACTER}{{1,{MAX_KEY_ID_LENGTH}}}", re.ASCII)
KeySource = Annotated[
    str,
    Field(
        pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,62}|observed_identifiers\[[a-z][a-z0-9_]{0,62}\])$",
        description="the payload field that is the key; or observed_identifiers[<id_type>], the entity that an identifier of the"
        " event is",
    ),
]


class KeyType(StrEnum):
    """The entity types of v0; a registry may not add others."""

    ACCOUNT = "account"
    CARD = "card"
    CUSTOMER = "customer"
    DEVICE = "device"
    MERCHANT = "merchant"


def _canonical_key_id(text: str) -> str:
    if is_observed_identifier(text):
        raise ValueError("a raw identifier (a card number, IBAN, e-mail or IP address) is never a key; send the entity id")
    return text


KeyId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_KEY_ID_LENGTH,
        pattern=f"^{_KEY_ID_CHARACTER}+$",
        description="canonical entity id, never a raw identifier",
    ),
    AfterValidator(_canonical_key_id),
]


class FeatureKey(Model):
    """One canonical entity."""

    key_type: KeyType = Field(strict=False)
    key_id: KeyId


class ContextPins(Model):
    """Which run an event, a projection or an answer belongs to."""

    scenario_id: SafeIdentifier
    run_id: SafeIdentifier
    manifest_fingerprint: SafeIdentifier
    parameter_hash: SafeIdentifier
    seed: int | None = Field(default=None, ge=0, le=2**53 - 1)
    platform_run_id: SafeIdentifier | None = None
    scenario_run_id: SafeIdentifier | None = None

    def wire(self) -> dict[str, str | int]:
        """As on the wire: absent pins are left out, never null."""
        return self.model_dump(exclude_none=True)


PIN_NAMES = tuple(ContextPins.model_fields)


def readable_pins(body: bytes) -> ContextPins | None:
    """The `context_pins` of a JSON object that may be wrong elsewhere; None where they cannot be read."""
    try:
        return ContextPins.model_validate(from_json(body)["context_pins"])
    except (ValidationError, ValueError, TypeError, KeyError):
        return None


@lru_cache(maxsize=1024)
def pins_digest(pins: ContextPins) -> str:
    """SHA-256 over the canonical bytes of the pins: the short name of a run inside the plane."""
    return digest_of(pins.wire())
