"""Amendments as the router needs them: which event is meant, and whether a replacement leaves alone what it must not change.

An event that may be amended, and whatever amends it, have two digests of 128 bits each. That of the target is over class, id and
type and over all its keys, so an amendment with other keys meets nothing. The other is over the fields that the pack declares
and no replacement may change; a replacement with others has no effect either. Neither depends on the groups of the pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ofp_platform.registry.models import EventRouting

Int64s = npt.NDArray[np.int64]
_HALVES = 4
"""Rows of both digests."""


@dataclass(frozen=True)
class AmendableType:
    """One event type whose events may be amended. `keys`, `fixed_fields`: payload fields, sorted."""

    name: str
    event_class: str
    keys: tuple[str, ...]
    fixed_fields: tuple[str, ...]
    may_replace: bool

    @classmethod
    def of(cls, name: str, event_class: str, routing: EventRouting) -> AmendableType | None:
        """None: its events are not amended."""
        if routing.amendments is None:
            return None
        keys = tuple(sorted(set(routing.keys.values())))
        fixed_fields = tuple(sorted(set(routing.fields) - set(routing.amendments.may_change) - set(keys)))
        return cls(name, event_class, keys, fixed_fields, bool(routing.amendments.may_change))

    def digests(self, event_ids: Sequence[str], payloads: Sequence[bytes]) -> Int64s:
        """int64[4, n]: both halves of the target's digest and of that of the fixed fields; ids are those of the events meant."""
        head = f"{self.event_class}\0{self.name}\0".encode()
        data = bytearray()
        for event_id, payload in zip(event_ids, payloads, strict=True):
            fields = _fields(payload)
            keys = orjson.dumps([event_id, *(_plain(fields.get(name)) for name in self.keys)])
            fixed_values = orjson.dumps([_plain(fields.get(name)) for name in self.fixed_fields])
            data += sha256(head + keys).digest()[:16]
            data += sha256(head + fixed_values).digest()[:16]
        words = np.frombuffer(bytes(data), dtype=">i8").reshape(-1, _HALVES)
        return np.ascontiguousarray(words.astype(np.int64).T)


def _fields(payload: bytes) -> dict[str, Any]:
    """The fields of a payload; nothing where it is no object: then it is not applied either."""
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _plain(value: Any) -> Any:
    """A value of a type that fields and keys have; whatever else it is, it is missing."""
    return value if isinstance(value, str | int) else None
