"""From the records of a log to the columns of keys: which keys an event touches, with its mask, values and tokens.

The hot path of a projection (about two microseconds per event with two keys), hence column by column and not event by
event: per event type one msgspec decoder of just the fields that the registry reads, list comprehensions over the
decoded rows, and dictionaries for whatever depends on one value alone (mask bits, tokens, key checks).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ofp_platform.registry.apply_failure import ApplyFailure, is_key_id
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.event_plan import EventPlan, KeyPlan, event_plans
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW, KeyLayout
from ofp_platform.registry.models import event_class
from ofp_platform.vocabulary.canonical import canonical_bytes

APPLIED, UNKNOWN_TYPE, FAILED = 0, 1, 2
CACHE_LIMIT = 1_000_000

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TouchedKeys:
    """The events of a batch that touch one key type, in record order.

    record_index: int64[m], places in the batch; key_ids: m canonical ids; matrix: int64[column_count, m], see `layout`.
    """

    record_index: Int64s
    key_ids: list[str]
    matrix: Int64s


@dataclass(frozen=True)
class RoutedBatch:
    """The effect of a batch of n records.

    status: int8[n] of APPLIED, UNKNOWN_TYPE, FAILED; failures: one per FAILED record, in order;
    id_digest: uint64[n, 2], the first 16 bytes (big-endian halves) of SHA-256(event_class NUL event_id);
    tie_digest: uint64[n, 2], the same of SHA-256(event_class NUL event_id NUL payload_hash);
    touched: per key type that any record touches. A record that is not applied touches nothing.
    """

    status: npt.NDArray[np.int8]
    failures: list[ApplyFailure]
    id_digest: npt.NDArray[np.uint64]
    tie_digest: npt.NDArray[np.uint64]
    touched: dict[str, TouchedKeys]


class TokenCache:
    """The token of a value (first 128 bits of SHA-256 of its canonical bytes) in two halves, cached up to a bound."""

    def __init__(self, limit: int = CACHE_LIMIT) -> None:
        self._limit = limit
        self._high: dict[str | int, int] = {}
        self._low: dict[str | int, int] = {}

    def columns(self, values: list[str | int]) -> tuple[Int64s, Int64s]:
        """High and low halves, each int64[len(values)]."""
        new = set(values).difference(self._high)
        if len(self._high) + len(new) > self._limit:
            self._high.clear()
            self._low.clear()
            new = set(values)
        for value in new:
            digest = hashlib.sha256(canonical_bytes(value)).digest()
            self._high[value] = int.from_bytes(digest[:8], "big", signed=True)
            self._low[value] = int.from_bytes(digest[8:16], "big", signed=True)
        high, low = self._high, self._low
        return (
            np.array([high[value] for value in values], dtype=np.int64),
            np.array([low[value] for value in values], dtype=np.int64),
        )


class Router:
    """Routes batches by one compiled registry. Not shared between threads: its caches are its own."""

    def __init__(self, registry: CompiledRegistry, cache_limit: int = CACHE_LIMIT) -> None:
        self._layouts: Mapping[str, KeyLayout] = registry.layouts
        self._events = registry.pack.events
        self._plans = event_plans(registry)
        self._tokens = TokenCache(cache_limit)
        self._good_keys: set[str] = set()
        self._cache_limit = cache_limit
        self._class_hashes = {name: hashlib.sha256(event_class(self._events, name).encode() + b"\0") for name in self._events}

    def route(
        self,
        event_types: Sequence[str],
        event_ids: Sequence[str],
        ts: Int64s,
        payload_hashes: Sequence[bytes],
        payloads: Sequence[bytes],
    ) -> RoutedBatch:
        """Route n records, given as columns (`ts` in microseconds, hashes of 32 bytes, payloads as JSON bytes).

        Never raises for what a payload holds: such a record is FAILED, with a reason, and touches nothing.
        """
        count = len(event_types)
        id_digest, tie_digest = self._digests(event_types, event_ids, payload_hashes)
        status = np.zeros(count, dtype=np.int8)
        failures: list[ApplyFailure] = []
        parts: dict[str, list[TouchedKeys]] = {}
        for name, indices in _by_type(event_types).items():
            plan = self._plans.get(name)
            if plan is None:
                status[indices] = UNKNOWN_TYPE
                continue
            if not plan.key_plans:
                continue  # declared, but no group selects it: nothing is read of it
            applied_indices, columns = self._decode(plan, indices, payloads, failures)
            if not applied_indices:
                continue
            where = np.array(applied_indices, dtype=np.int64)
            for key_plan in plan.key_plans:
                part = self._touch(key_plan, columns, where, ts, tie_digest)
                parts.setdefault(key_plan.key_type, []).append(part)
        failures.sort(key=lambda failure: failure.index)
        status[[failure.index for failure in failures]] = FAILED
        touched_keys = {key_type: _in_record_order(parts[key_type]) for key_type in sorted(parts)}
        return RoutedBatch(status, failures, id_digest, tie_digest, touched_keys)

    def _digests(
        self, event_types: Sequence[str], event_ids: Sequence[str], payload_hashes: Sequence[bytes]
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        hashes = self._class_hashes
        identities: list[bytes] = []
        ties: list[bytes] = []
        for name, event_id, payload_hash in zip(event_types, event_ids, payload_hashes, strict=True):
            class_hash = hashes.get(name)
            digest = hashlib.sha256(name.encode() + b"\0") if class_hash is None else class_hash.copy()
            digest.update(event_id.encode())
            identities.append(digest.digest())
            digest.update(b"\0" + payload_hash)  # one hash object: the tie's input begins with the identity's
            ties.append(digest.digest())
        return _halves(identities), _halves(ties)

    def _decode(
        self, plan: EventPlan, indices: list[int], payloads: Sequence[bytes], failures: list[ApplyFailure]
    ) -> tuple[list[int], dict[str, list[Any]]]:
        """The records that apply, and their columns; a failure for each other."""
        decode = plan.decode
        try:
            rows = list(map(decode, payloads if len(indices) == len(payloads) else map(payloads.__getitem__, indices)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            indices, rows = self._decode_each(plan, indices, payloads, failures)
        columns = plan.columns(rows)
        bad = self._bad_keys(plan, columns)
        if not bad:
            return indices, columns
        applied_indices: list[int] = []
        good: list[msgspec.Struct] = []
        for index, row in zip(indices, rows, strict=True):
            if any(getattr(row, key.attribute) in bad for key in plan.key_plans):
                failures.append(plan.failure(index, payloads[index]))
            else:
                applied_indices.append(index)
                good.append(row)
        return applied_indices, plan.columns(good)

    def _decode_each(
        self, plan: EventPlan, indices: list[int], payloads: Sequence[bytes], failures: list[ApplyFailure]
    ) -> tuple[list[int], list[msgspec.Struct]]:
        applied_indices: list[int] = []
        rows: list[msgspec.Struct] = []
        for index in indices:
            try:
                rows.append(plan.decode(payloads[index]))
                applied_indices.append(index)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                failures.append(plan.failure(index, payloads[index]))
        return applied_indices, rows

    def _bad_keys(self, plan: EventPlan, columns: Mapping[str, list[Any]]) -> set[str]:
        bad: set[str] = set()
        for attribute in {key.attribute for key in plan.key_plans}:
            if self._good_keys.issuperset(columns[attribute]):
                continue
            new = set(columns[attribute]).difference(self._good_keys)
            bad_key_ids = {key_id for key_id in new if not is_key_id(key_id)}
            bad |= bad_key_ids
            if len(self._good_keys) + len(new) > self._cache_limit:
                self._good_keys.clear()
            self._good_keys |= new - bad_key_ids
        return bad

    def _touch(
        self,
        plan: KeyPlan,
        columns: Mapping[str, list[str | int | bool]],
        where: Int64s,
        ts: Int64s,
        tie_digest: npt.NDArray[np.uint64],
    ) -> TouchedKeys:
        layout = self._layouts[plan.key_type]
        matrix = np.zeros((layout.column_count, len(where)), dtype=np.int64)
        matrix[TIME_ROW] = ts[where]
        matrix[MASK_ROW] = plan.mask(columns, len(where))
        if layout.ties:
            matrix[2:4] = tie_digest[where].view(np.int64).T
        for row, attribute in plan.integer_rows:
            matrix[row] = columns[attribute]
        for row, attribute in plan.token_rows:
            matrix[row], matrix[row + 1] = self._tokens.columns(columns[attribute])
        return TouchedKeys(where, columns[plan.attribute], matrix)  # type: ignore[arg-type]  # keys decode as str


def _by_type(event_types: Sequence[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    distinct = set(event_types)
    if len(distinct) == 1:
        return {event_types[0]: list(range(len(event_types)))}
    for name in sorted(distinct):
        groups[name] = []
    for index, name in enumerate(event_types):
        groups[name].append(index)
    return groups


def _halves(digests: list[bytes]) -> npt.NDArray[np.uint64]:
    words = np.frombuffer(b"".join(digests), dtype=">u8").reshape(-1, 4)
    return words[:, :2].astype(np.uint64)


def _in_record_order(parts: list[TouchedKeys]) -> TouchedKeys:
    if len(parts) == 1:
        return parts[0]
    where = np.concatenate([part.record_index for part in parts])
    order = np.argsort(where)
    key_ids = [key_id for part in parts for key_id in part.key_ids]
    matrix = np.concatenate([part.matrix for part in parts], axis=1)
    return TouchedKeys(where[order], [key_ids[place] for place in order.tolist()], np.ascontiguousarray(matrix[:, order]))
