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
from ofp_platform.offline.replay.key_shards import KEYS_HELD, KeyDigests
from ofp_platform.registry.apply_failure import GroupVersion
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.registry.models import FieldType
from ofp_platform.registry.routing import RoutedBatch
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.observed_keys import observed_type, with_observed_keys
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
    """The selected events and their fields: times in microseconds, `fields` payload field to type, key types in order.

    An event that fails for one of `groups` is not selected.
    """

    event_types: tuple[str, ...]
    from_ts: int | None
    to_ts: int | None
    filters: tuple[tuple[str, tuple[Scalar, ...]], ...]
    fields: Mapping[str, FieldType]
    key_types: tuple[str, ...]
    groups: frozenset[GroupVersion]

    @property
    def schema(self) -> pa.Schema:
        """The schema of the candidates' file."""
        keys = [
            field
            for name in self.key_types
            for field in (
                pa.field(f"{name}_id", pa.string()),
                pa.field(f"{name}_high", pa.int64()),
                pa.field(f"{name}_low", pa.int64()),
            )
        ]
        event_columns = [("event_id", pa.string()), ("event_type", pa.string())]
        event_columns += [(name, pa.int64()) for name in ("ts", "admitted_at", "tie_high", "tie_low", "partition", "position")]
        payload = [pa.field(f"payload__{name}", _ARROW[kind]) for name, kind in self.fields.items()]
        return pa.schema([*(pa.field(name, kind) for name, kind in event_columns), *keys, *payload])


def candidate_scope(scope: PerEvent, registry: CompiledRegistry, groups: Sequence[CompiledGroup]) -> CandidateScope:
    """The events and fields that a per-event scope needs from the fold, for the requested groups.

    Raises:
        BuildRefused: FEATURE_PROFILE_UNRESOLVED, with the field of the intent at fault.
    """
    routings = {}
    for index, name in enumerate(scope.event_types):
        routing = registry.pack.events.get(name)
        if routing is None:
            message = (
                f"event type {name!r} is not in pack {registry.pack.pack_id}; it has {', '.join(sorted(registry.pack.events))}"
            )
            raise BuildRefused(BuildReason.FEATURE_PROFILE_UNRESOLVED, message, f"scope.event_types.{index}")
        routings[name] = routing

    def kind_of(field: str, where: str) -> FieldType:
        kinds = {routing.fields[field] for routing in routings.values() if field in routing.fields}
        if len(kinds) != 1:
            problem = "with different types" if kinds else "by no event type of the scope"
            message = f"payload field {field!r} is routed {problem}; name fields that the pack routes"
            raise BuildRefused(BuildReason.FEATURE_PROFILE_UNRESOLVED, message, where)
        return kinds.pop()

    for index, condition in enumerate(scope.filters):
        kind_of(condition.field, f"scope.filters.{index}.field")
    fields = {field: kind_of(field, f"scope.payload_fields.{index}") for index, field in enumerate(scope.payload_fields)}
    return CandidateScope(
        event_types=tuple(sorted(set(scope.event_types))),
        from_ts=None if scope.from_utc is None else parse_time(scope.from_utc),
        to_ts=None if scope.to_utc is None else parse_time(scope.to_utc),
        filters=tuple((condition.field, condition.one_of) for condition in scope.filters),
        fields=fields,
        key_types=tuple(sorted({group.key_type for group in groups})),
        groups=frozenset((group.name, group.version) for group in groups),
    )


class CandidateWriter:
    """Writes the candidates of a fold to one Arrow stream file, copies included."""

    def __init__(self, path: Path, scope: CandidateScope, registry: CompiledRegistry, keys_held: int = KEYS_HELD) -> None:
        self.path = path
        self.records = 0
        self.scope = scope
        self._events = registry.pack.events
        self._rules = registry.key_rules
        self._digests = KeyDigests(keys_held)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._sink, scope.schema)
        self._decoders: dict[tuple[str, ...], msgspec.json.Decoder[Any]] = {}

    def add(
        self,
        batch: RecordBatch,
        own_indices: Int64s,
        routed_batch: RoutedBatch,
        is_applied: npt.NDArray[np.bool_],
        digests: Mapping[str, tuple[Int64s, Int64s]],
        partition: int,
        positions: Int64s,
    ) -> None:
        """Add the candidates among the records `own_indices` (into the batch) that were routed and applied; amendments are none.

        `is_applied` bool[len(own_indices)]; `digests`: per key type the halves of the key digests of `routed_batch.touched`.
        `partition`: its number; `positions` int64[len(own_indices)].
        """
        types = _select(batch.event_types, own_indices)
        is_candidate = is_applied & ~routed_batch.amends
        for failure in routed_batch.group_failures:
            if not self.scope.groups.isdisjoint(failure.groups):
                is_candidate[failure.index] = False
        if not set(types) <= set(self.scope.event_types):
            is_candidate &= np.fromiter(map(set(self.scope.event_types).__contains__, types), np.bool_, len(types))
        ts = batch.ts[own_indices]
        if self.scope.from_ts is not None:
            is_candidate &= ts >= self.scope.from_ts
        if self.scope.to_ts is not None:
            is_candidate &= ts < self.scope.to_ts
        candidate_rows = np.flatnonzero(is_candidate)
        if not len(candidate_rows):
            return
        kinds = _select(types, candidate_rows)
        indices = own_indices[candidate_rows]
        columns: dict[str, Any] = {
            "event_id": _select(batch.event_ids, indices),
            "event_type": kinds,
            "ts": ts[candidate_rows],
            "admitted_at": batch.admitted_at[indices],
            "tie_high": routed_batch.tie_digest[candidate_rows, 0].view(np.int64),
            "tie_low": routed_batch.tie_digest[candidate_rows, 1].view(np.int64),
            "partition": np.full(len(candidate_rows), partition, np.int64),
            "position": positions[candidate_rows],
        }
        unread_key_types = []
        for key_type in self.scope.key_types:
            key_columns = self._routed_key_columns(key_type, candidate_rows, len(own_indices), kinds, routed_batch, digests)
            if key_columns is None:
                unread_key_types.append(key_type)
            else:
                columns |= key_columns
        names = {self._key_field(kind, key_type) for key_type in unread_key_types for kind in set(kinds)}
        names |= {*self.scope.fields, *(name for name, _ in self.scope.filters)}
        fields = self._read(kinds, _select(batch.payloads, indices), tuple(sorted(names - {""})))
        for key_type in unread_key_types:
            columns |= self._read_keys(key_type, kinds, fields)
        for name, kind in self.scope.fields.items():
            columns[f"payload__{name}"] = _column(fields[name], kind)
        schema = self.scope.schema
        record_batch = pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
        if self.scope.filters:
            rows = range(len(kinds))
            keep = [all(_is_one_of(fields[name][row], values) for name, values in self.scope.filters) for row in rows]
            record_batch = record_batch.filter(pa.array(keep))
        self._waiting.append(record_batch)
        self._waiting_rows += record_batch.num_rows
        self.records += record_batch.num_rows
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

    def _routed_key_columns(
        self,
        key_type: str,
        candidate_rows: Int64s,
        count: int,
        kinds: list[str],
        routed_batch: RoutedBatch,
        digests: Mapping[str, tuple[Int64s, Int64s]],
    ) -> dict[str, Any] | None:
        """The columns of a key type, if the router has read the key of every candidate that has one; else None."""
        touched_keys = routed_batch.touched.get(key_type)
        if touched_keys is None:
            return None
        key_index = np.full(count, -1, np.int64)
        key_index[touched_keys.record_index] = np.arange(len(touched_keys.record_index))
        key_index = key_index[candidate_rows]
        present = key_index >= 0
        if not present.all() and any(self._key_field(kinds[row], key_type) for row in np.flatnonzero(~present).tolist()):
            return None
        high, low = (np.where(present, half[key_index], 0) for half in digests[key_type])
        names = pa.array(touched_keys.key_ids, pa.string()).take(pa.array(key_index, mask=~present))
        return {f"{key_type}_id": names, f"{key_type}_high": high, f"{key_type}_low": low}

    def _read_keys(self, key_type: str, kinds: list[str], fields: Mapping[str, list[Any]]) -> dict[str, Any]:
        """The columns of a key type, from the payloads; a value that is no key id is null."""
        values = [fields[self._key_field(kind, key_type)][row] for row, kind in enumerate(kinds)]
        accepts = self._rules[key_type].accepts
        names = [value if isinstance(value, str) and accepts(value) else None for value in values]
        high, low, _ = self._digests.columns([name or "" for name in names])
        return {f"{key_type}_id": names, f"{key_type}_high": high, f"{key_type}_low": low}

    def _read(self, kinds: list[str], payloads: list[bytes], names: tuple[str, ...]) -> dict[str, list[Any]]:
        """Payload field to its values, None where it is absent. "" stands for a field that no payload has."""
        values: dict[str, list[Any]] = {"": [None] * len(payloads)}
        if not names:
            return values
        columns = None if any(map(observed_type, names)) else self._read_all(payloads, names)
        if columns is None:
            key_types = {source: kind.value for name in set(kinds) for kind, source in self._events[name].keys.items()}
            rows = [_read_one(payload, names, key_types) for payload in payloads]
            columns = [list(column) for column in zip(*rows, strict=True)]
        # a field that one type of the scope routes says nothing of another type's field of that name
        routed_fields = {kind: {*self._events[kind].fields, *self._events[kind].keys.values()} for kind in set(kinds)}
        for name, column in zip(names, columns, strict=True):
            everywhere = all(name in fields for fields in routed_fields.values())
            values[name] = (
                column
                if everywhere
                else [value if name in routed_fields[kind] else None for value, kind in zip(column, kinds, strict=True)]
            )
        return values

    def _read_all(self, payloads: list[bytes], names: tuple[str, ...]) -> list[list[Any]] | None:
        """The columns of fields; None: some payload has another type in one of them."""
        decode = self._decoder(names).decode
        try:
            rows = list(map(decode, payloads))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return [list(map(attrgetter(f"f{index}"), rows)) for index in range(len(names))]

    def _decoder(self, names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
        if names not in self._decoders:
            struct = msgspec.defstruct(
                "Row",
                [(f"f{index}", int | str | bool | None, None) for index in range(len(names))],
                rename={f"f{index}": name for index, name in enumerate(names)},
                gc=False,
            )
            self._decoders[names] = msgspec.json.Decoder(struct)
        return self._decoders[names]


def _select(values: list[T], indices: Int64s) -> list[T]:
    """The values at ascending indices."""
    if len(indices) == len(values):
        return values
    return list(itemgetter(*indices.tolist())(values)) if len(indices) > 1 else [values[index] for index in indices.tolist()]


def _read_one(payload: bytes, names: Sequence[str], key_types: Mapping[str, str]) -> tuple[Any, ...]:
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return (None,) * len(names)
    fields = with_observed_keys(value if isinstance(value, dict) else {}, key_types)
    return tuple(fields.get(name) for name in names)


def _column(values: list[Any], kind: FieldType) -> pa.Array:
    """A payload field's column; a value of another type is null."""
    if kind is FieldType.INTEGER and set(map(type, values)) == {int}:
        numbers = np.array(values)
        if numbers.dtype == np.int64 and numbers.min() >= -MAX_INTEGER and numbers.max() <= MAX_INTEGER:
            return pa.array(numbers)
    return pa.array([_value_of_type(value, kind) for value in values], _ARROW[kind])


def _value_of_type(value: Any, kind: FieldType) -> Any:
    if type(value) is not _PYTHON[kind] or (type(value) is int and abs(value) > MAX_INTEGER):
        return None
    return value


def _is_one_of(value: Any, allowed_values: Sequence[Scalar]) -> bool:
    return any(type(value) is type(allowed_value) and value == allowed_value for allowed_value in allowed_values)
