"""Keys that an event does not name: an observed identifier is an entity, whose id follows from the identifier's type and token.

A pack names such a key as `observed_identifiers[<id_type>]`; the payload has a list of that name, of objects with `id_type` and
`id_token`. Whoever reads payload fields reads these names as if they were fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.identity_link import minted_id
from ofp_platform.vocabulary.raw_identifier import is_observed_identifier

OBSERVED = "observed_identifiers"
"""The payload field that has the list."""
SEVERAL = "several tokens"
"""Stands for the key of an event that has several tokens of the type; no key id has a space."""
NO_TOKEN = "no token"
"""Stands for the key of an event that has a number, or an address, in place of a token."""
UNREADABLE = "unreadable identifiers"
"""Stands for the key of an event whose list is none."""
_SOURCE = re.compile(rf"{OBSERVED}\[([a-z][a-z0-9_]*)\]", re.ASCII)
_CACHE_LIMIT = 1_000_000


class ObservedIdentifier(msgspec.Struct, gc=False):
    """One identifier: its type, and a token in place of its number."""

    id_type: str
    id_token: str


Identifiers = list[ObservedIdentifier]


def observed_type(source: str) -> str | None:
    """The type of identifier that a key is made of; None: the key is a payload field."""
    match = _SOURCE.fullmatch(source)
    return None if match is None else match[1]


class ObservedKey:
    """One key that is made of identifiers; keeps the ids that it made, up to a bound.

    Args:
        source: as the pack has it.
        key_type: the type of the key.
    """

    def __init__(self, source: str, key_type: KeyType) -> None:
        id_type = observed_type(source)
        if id_type is None:
            raise ValueError(f"{source!r} is a payload field")
        self._id_type = id_type
        self._key_type = key_type
        self._minted: dict[str, str] = {}

    def of(self, identifiers: Iterable[ObservedIdentifier] | None) -> str:
        """The key id; "" where there is none of the type, and SEVERAL or NO_TOKEN, which are no key ids."""
        tokens = {each.id_token for each in identifiers or () if each.id_type == self._id_type}
        if len(tokens) != 1:
            return SEVERAL if tokens else ""
        (token,) = tokens
        key_id = self._minted.get(token)
        if key_id is None:
            if token == "" or is_observed_identifier(token):
                return NO_TOKEN if token else ""
            if len(self._minted) >= _CACHE_LIMIT:
                self._minted.clear()
            key_id = self._minted[token] = minted_id(self._key_type, self._id_type, token)
        return key_id


def with_observed_keys(payload: Mapping[str, Any], key_types: Mapping[str, str]) -> Mapping[str, Any]:
    """The fields of a payload and, by their names, the keys that are made of its identifiers.

    `key_types`: name of a key to its type, those of payload fields among them.
    """
    sources = {name: key_type for name, key_type in key_types.items() if observed_type(name) is not None}
    if not sources:
        return payload
    keys: dict[str, str]
    try:
        identifiers = msgspec.convert(payload.get(OBSERVED) or [], Identifiers)
    except msgspec.ValidationError:
        keys = dict.fromkeys(sources, UNREADABLE)
    else:
        keys = {name: ObservedKey(name, KeyType(key_type)).of(identifiers) for name, key_type in sources.items()}
    return {**payload, **keys}
