"""Amendments as the router needs them: which event is meant, and whether a replacement leaves alone what it must not change.

An event that may be amended, and whatever amends it, have two digests of 128 bits each. That of the target is over class, id and
type and over all its keys, so an amendment with other keys meets nothing. The other is over the fields that the pack declares
and no replacement may change; a replacement with others has no effect either. Neither depends on the groups of the pack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from ofp_platform.registry.field_types import DECODED_TYPES, NOT_DECODED
from ofp_platform.registry.models import EventRouting, FieldType
from ofp_platform.vocabulary.identity import KEY_ID_TEXT
from ofp_platform.vocabulary.observed_keys import observed_type, with_observed_keys

Int64s = npt.NDArray[np.int64]
Values = tuple[Any, ...]


@dataclass(frozen=True)
class AmendableType:
    """One event type whose events may be amended. `keys`, `fixed_fields`: payload fields, sorted.

    `decode`: a payload as an object with those fields as attributes; it refuses one that lacks any of them. None where a key is
    made of identifiers, which are read one payload after the other. `key_types`: of the keys.
    """

    name: str
    event_class: str
    keys: tuple[str, ...]
    fixed_fields: tuple[str, ...]
    may_replace: bool
    decode: Callable[[bytes], Any] | None
    key_types: Mapping[str, str]

    @classmethod
    def of(cls, name: str, event_class: str, routing: EventRouting) -> AmendableType | None:
        """None: its events are not amended."""
        if routing.amendments is None:
            return None
        keys = tuple(sorted(set(routing.keys.values())))
        fixed_fields = tuple(sorted(set(routing.fields) - set(routing.amendments.may_change) - set(keys)))
        types = {**dict.fromkeys(keys, FieldType.STRING), **{name: routing.fields[name] for name in fixed_fields}}
        names = {_attribute(place): name for place, name in enumerate(types)}
        fields = [(attribute, DECODED_TYPES[types[name]]) for attribute, name in names.items()]
        decode: Callable[[bytes], Any] | None = None
        if not any(map(observed_type, keys)):
            decode = msgspec.json.Decoder(msgspec.defstruct("Fields", fields, rename=names, gc=False)).decode
        key_types = {source: key_type.value for key_type, source in routing.keys.items()}
        return cls(name, event_class, keys, fixed_fields, bool(routing.amendments.may_change), decode, key_types)

    def digests(self, event_ids: Sequence[str], payloads: Sequence[bytes]) -> Int64s:
        """int64[4, n]: both halves of the target's digest and of that of the fixed fields; ids are those of the events meant."""
        keys, fixed_values = self._values(payloads)
        head = f"{self.event_class}\0{self.name}\0".encode()
        target_halves = _digests(head, [(event_id, *values) for event_id, values in zip(event_ids, keys, strict=True)])
        has_fixed_values = self.may_replace and bool(self.fixed_fields)  # else they are never compared, or never differ
        fixed_halves = _digests(head, fixed_values) if has_fixed_values else np.zeros_like(target_halves)
        return np.concatenate([target_halves, fixed_halves])

    def _values(self, payloads: Sequence[bytes]) -> tuple[list[Values], list[Values]]:
        """Per payload the values of the keys and those of the fixed fields."""
        names, key_count = (*self.keys, *self.fixed_fields), len(self.keys)
        if self.decode is not None:
            try:
                rows = list(map(self.decode, payloads))
            except NOT_DECODED:
                pass
            else:
                attributes = [_attribute(place) for place in range(len(names))]
                return _tuples(rows, attributes[:key_count]), _tuples(rows, attributes[key_count:])
        payload_fields = [with_observed_keys(_fields(payload), self.key_types) for payload in payloads]
        values = [tuple(_plain(name, fields.get(name)) for name in names) for fields in payload_fields]
        return [row[:key_count] for row in values], [row[key_count:] for row in values]


def _attribute(place: int) -> str:
    return f"f{place}"  # a payload field may be a word that a struct cannot have


def _tuples(rows: list[Any], attributes: list[str]) -> list[Values]:
    columns = [map(attrgetter(attribute), rows) for attribute in attributes]
    return list(zip(*columns, strict=True)) if columns else [()] * len(rows)


def _digests(head: bytes, values: Iterable[Values]) -> Int64s:
    """int64[2, n]: the first 128 bits of SHA-256 over the head and the JSON array of the values."""
    data = b"".join([sha256(head + orjson.dumps(row)).digest() for row in values])
    words = np.frombuffer(data, dtype=">i8").reshape(-1, 4)[:, :2]
    return np.ascontiguousarray(words.T.astype(np.int64))


def _fields(payload: bytes) -> dict[str, Any]:
    """The fields of a payload; nothing where it is no object: then it is not applied either."""
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _plain(name: str, value: Any) -> Any:
    """A value of a type that fields and keys have; whatever else it is, it is missing, as is what identifiers make no key of."""
    is_key = observed_type(name) is None or KEY_ID_TEXT.fullmatch(value) is not None
    return value if isinstance(value, str | int) and is_key else None
