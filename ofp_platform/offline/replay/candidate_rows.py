"""The events that may become rows of a per-event dataset, written to disk while the log is folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.replay.key_shards import KeyDigests
from ofp_platform.registry.apply_failure import is_key_id
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.models import FieldType
from ofp_platform.registry.routing import RoutedBatch
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.offline.build_intent import PerEvent, Scalar
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.times import parse_time

Int64s = npt.NDArray[np.int64]
T = TypeVar("T")
BATCH_ROWS = 65_536
_ARROW = {FieldType.INTEGER: pa.int64(), FieldType.STRING: pa.string(), FieldType.BOOLEAN: pa.bool_()}
_PYTHON: dict[FieldType, type] = {FieldType.INTEGER: int, FieldType.STRING: str, FieldType.BOOLEAN: bool}


@dataclass(frozen=True)
class CandidateScope:
    """Which events, and what of them: times in microseconds, `fields` payload field to type, key types in order."""

    event_types: tuple[str, ...]
    from_ts: int | None
    to_ts: int | None
    filters: tuple[tuple[str, tuple[Scalar, ...]], ...]
    fields: Mapping[str, FieldType]
    key_types: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """Of the candidates' file."""
        keys = [
            field
            for name in self.key_types
            for field in (
                pa.field(f"{name}_id", pa.string()),
                pa.field(f"{name}_high", pa.int64()),
                pa.field(f"{name}_low", pa.int64()),
            )
        ]
        own = [("event_id", pa.string()), ("event_type", pa.string())]
        own += [(name, pa.int64()) for name in ("ts", "admitted_at", "tie_high", "tie_low")]
        payload = [pa.field(f"payload__{name}", _ARROW[kind]) for name, kind in self.fields.items()]
        return pa.schema([*(pa.field(name, kind) for name, kind in own), *keys, *payload])


def candidate_scope(scope: PerEvent, registry: CompiledRegistry, key_types: Sequence[str]) -> CandidateScope:
    """What a per-event scope asks of the fold; `key_types` are those of the requested groups.

    Raises:
        BuildRefused: FEATURE_PROFILE_UNRESOLVED, with the field of the intent at fault.
    """
    routings = {}
    for place, name in enumerate(scope.event_types):
        routing = registry.pack.events.get(name)
        if routing is None:
            message = (
                f"event type {name!r} is not in pack {registry.pack.pack_id}; it has {', '.join(sorted(registry.pack.events))}"
            )
            raise BuildRefused(BuildReason.FEATURE_PROFILE_UNRESOLVED, message, f"scope.event_types.{place}")
        routings[name] = routing

    def kind_of(field: str, where: str) -> FieldType:
        kinds = {routing.fields[field] for routing in routings.values() if field in routing.fields}
        if len(kinds) != 1:
            told = "with different types" if kinds else "by no event type of the scope"
            message = f"payload field {field!r} is routed {told}; name fields that the pack routes"
            raise BuildRefused(BuildReason.FEATURE_PROFILE_UNRESOLVED, message, where)
        return kinds.pop()

    for place, one in enumerate(scope.filters):
        kind_of(one.field, f"scope.filters.{place}.field")
    fields = {field: kind_of(field, f"scope.payload_fields.{place}") for place, field in enumerate(scope.payload_fields)}
    return CandidateScope(
        event_types=tuple(sorted(set(scope.event_types))),
        from_ts=None if scope.from_utc is None else parse_time(scope.from_utc),
        to_ts=None if scope.to_utc is None else parse_time(scope.to_utc),
        filters=tuple((one.field, one.one_of) for one in scope.filters),
        fields=fields,
        key_types=tuple(sorted(set(key_types))),
    )


class CandidateWriter:
    """Writes the candidates of a fold to one Arrow stream file, copies included."""

    def __init__(self, path: Path, scope: CandidateScope, registry: CompiledRegistry) -> None:
        self.path = path
        self.records = 0
        self.scope = scope
        self._events = registry.pack.events
        self._digests = KeyDigests()
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._sink, scope.schema)
        self._decoders: dict[tuple[str, ...], msgspec.json.Decoder[Any]] = {}

    def add(
        self,
        batch: RecordBatch,
        own: Int64s,
        routed: RoutedBatch,
        applied: npt.NDArray[np.bool_],
        digests: Mapping[str, tuple[Int64s, Int64s]],
    ) -> None:
        """Add the candidates among the records `own` (indices into the batch) that were routed and `applied` (bool).

        `digests`: per key type the halves of the key digests of `routed.touched`.
        """
        types = _taken(batch.event_types, own)
        wanted = applied.copy()
        if not set(types) <= set(self.scope.event_types):
            wanted &= np.fromiter(map(set(self.scope.event_types).__contains__, types), np.bool_, len(types))
        ts = batch.ts[own]
        if self.scope.from_ts is not None:
            wanted &= ts >= self.scope.from_ts
        if self.scope.to_ts is not None:
            wanted &= ts < self.scope.to_ts
        chosen = np.flatnonzero(wanted)
        if not len(chosen):
            return
        kinds = _taken(types, chosen)
        indices = own[chosen]
        columns: dict[str, Any] = {
            "event_id": _taken(batch.event_ids, indices),
            "event_type": kinds,
            "ts": ts[chosen],
            "admitted_at": batch.admitted_at[indices],
            "tie_high": routed.tie_digest[chosen, 0].view(np.int64),
            "tie_low": routed.tie_digest[chosen, 1].view(np.int64),
        }
        unread = []
        for key_type in self.scope.key_types:
            found = self._touched(key_type, chosen, len(own), kinds, routed, digests)
            if found is None:
                unread.append(key_type)
            else:
                columns |= found
        names = {self._key_field(kind, key_type) for key_type in unread for kind in set(kinds)}
        names |= {*self.scope.fields, *(name for name, _ in self.scope.filters)}
        fields = self._read(kinds, _taken(batch.payloads, indices), tuple(sorted(names - {""})))
        for key_type in unread:
            columns |= self._read_keys(key_type, kinds, fields)
        for name, kind in self.scope.fields.items():
            columns[f"payload__{name}"] = _column(fields[name], kind)
        schema = self.scope.schema
        made = pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
        if self.scope.filters:
            rows = range(len(kinds))
            keep = [all(_is_one_of(fields[name][row], values) for name, values in self.scope.filters) for row in rows]
            made = made.filter(pa.array(keep))
        self._waiting.append(made)
        self._waiting_rows += made.num_rows
        self.records += made.num_rows
        if self._waiting_rows >= BATCH_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is waiting and close the file."""
        self._flush()
        self._writer.close()
        self._sink.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting).combine_chunks())
        self._waiting, self._waiting_rows = [], 0

    def _key_field(self, event_type: str, key_type: str) -> str:
        return self._events[event_type].keys.get(KeyType(key_type), "")

    def _touched(
        self,
        key_type: str,
        chosen: Int64s,
        count: int,
        kinds: list[str],
        routed: RoutedBatch,
        digests: Mapping[str, tuple[Int64s, Int64s]],
    ) -> dict[str, Any] | None:
        """The columns of a key type that the router has read of all that have such a key; None: it has not."""
        touched = routed.touched.get(key_type)
        if touched is None:
            return None
        place = np.full(count, -1, np.int64)
        place[touched.record_index] = np.arange(len(touched.record_index))
        place = place[chosen]
        present = place >= 0
        if not present.all() and any(self._key_field(kinds[row], key_type) for row in np.flatnonzero(~present).tolist()):
            return None
        high, low = (np.where(present, half[place], 0) for half in digests[key_type])
        names = pa.array(touched.key_ids, pa.string()).take(pa.array(place, mask=~present))
        return {f"{key_type}_id": names, f"{key_type}_high": high, f"{key_type}_low": low}

    def _read_keys(self, key_type: str, kinds: list[str], fields: Mapping[str, list[Any]]) -> dict[str, Any]:
        """The same, from the payloads; what is no key id is null."""
        values = [fields[self._key_field(kind, key_type)][row] for row, kind in enumerate(kinds)]
        names = [value if isinstance(value, str) and is_key_id(value) else None for value in values]
        high, low, _ = self._digests.columns([name or "" for name in names])
        return {f"{key_type}_id": names, f"{key_type}_high": high, f"{key_type}_low": low}

    def _read(self, kinds: list[str], payloads: list[bytes], names: tuple[str, ...]) -> dict[str, list[Any]]:
        """Payload field to its values; None where it is not there. "" is a field that no payload has."""
        values: dict[str, list[Any]] = {"": [None] * len(payloads)}
        if not names:
            return values
        decode = self._decoder(names).decode
        try:
            rows = list(map(decode, payloads))
            found = [list(map(attrgetter(f"f{place}"), rows)) for place in range(len(names))]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = [list(column) for column in zip(*(_read_one(payload, names) for payload in payloads), strict=True)]
        # a field that one type of the scope routes says nothing of another type's field of that name
        routed = {kind: {*self._events[kind].fields, *self._events[kind].keys.values()} for kind in set(kinds)}
        for name, column in zip(names, found, strict=True):
            everywhere = all(name in known for known in routed.values())
            values[name] = (
                column if everywhere else [one if name in routed[kind] else None for one, kind in zip(column, kinds, strict=True)]
            )
        return values

    def _decoder(self, names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
        if names not in self._decoders:
            struct = msgspec.defstruct(
                "Row",
                [(f"f{place}", int | str | bool | None, None) for place in range(len(names))],
                rename={f"f{place}": name for place, name in enumerate(names)},
                gc=False,
            )
            self._decoders[names] = msgspec.json.Decoder(struct)
        return self._decoders[names]


def _taken(values: list[T], places: Int64s) -> list[T]:
    """The values at rising places."""
    if len(places) == len(values):
        return values
    return list(itemgetter(*places.tolist())(values)) if len(places) > 1 else [values[place] for place in places.tolist()]


def _read_one(payload: bytes, names: Sequence[str]) -> tuple[Any, ...]:
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return (None,) * len(names)
    found = value if isinstance(value, dict) else {}
    return tuple(found.get(name) for name in names)


def _column(values: list[Any], kind: FieldType) -> pa.Array:
    """A payload field's column; what is not of its type is null."""
    if kind is FieldType.INTEGER and set(map(type, values)) == {int}:
        numbers = np.array(values)
        if numbers.dtype == np.int64 and numbers.min() >= -MAX_INTEGER and numbers.max() <= MAX_INTEGER:
            return pa.array(numbers)
    return pa.array([_typed(value, kind) for value in values], _ARROW[kind])


def _typed(value: Any, kind: FieldType) -> Any:
    if type(value) is not _PYTHON[kind] or (type(value) is int and abs(value) > MAX_INTEGER):
        return None
    return value


def _is_one_of(value: Any, allowed: Sequence[Scalar]) -> bool:
    return any(type(value) is type(one) and value == one for one in allowed)
