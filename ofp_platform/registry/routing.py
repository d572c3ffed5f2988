"""From the records of a log to the columns of keys: which keys an event touches, with its mask, values and tokens.

The hot path of a projection (about two microseconds per event with two keys), hence column by column and not event by
event: per event type one msgspec decoder of just the fields that the registry reads, list comprehensions over the
decoded rows, and dictionaries for whatever depends on one value alone (mask bits, tokens, key checks).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ofp_platform.registry.apply_failure import ApplyFailure, ApplyFailureReason
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.event_plan import EventPlan, KeyPlan, event_plans
from ofp_platform.registry.field_types import NOT_DECODED
from ofp_platform.registry.layout import (
    AMENDS_KIND_ROW,
    AMENDS_MASK_ROW,
    AMENDS_TIME_ROW,
    MASK_ROW,
    REPLACE,
    TARGET_ROW,
    TIE_ROW,
    TIME_ROW,
    VOID,
    KeyLayout,
)
from ofp_platform.registry.models import amended_type, event_class
from ofp_platform.registry.text_words import TEXT_WORDS, words_of
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.envelope import read_amends
from ofp_platform.vocabulary.times import parse_time

APPLIED, UNKNOWN_TYPE, FAILED = 0, 1, 2
CACHE_LIMIT = 1_000_000

Int64s = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Token = str | int | tuple[str | int, str | int]


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

    status: int8[n] of APPLIED, UNKNOWN_TYPE, FAILED; failures: one per FAILED record, in order; group_failures: one per APPLIED
    record that some of the groups that use its type cannot use, in order;
    id_digest: uint64[n, 2], the first 16 bytes (big-endian halves) of SHA-256(event_class NUL event_id);
    tie_digest: uint64[n, 2], the same of SHA-256(event_class NUL event_id NUL payload_hash);
    touched: per key type that any record touches. A record that is not applied touches nothing.
    feeds: bool[n], which records touch a key; an applied one that does not is of a type that no group uses.
    amends: bool[n], which applied records amend an event: such a record is no event itself.
    """

    status: npt.NDArray[np.int8]
    failures: list[ApplyFailure]
    group_failures: list[ApplyFailure]
    id_digest: npt.NDArray[np.uint64]
    tie_digest: npt.NDArray[np.uint64]
    touched: dict[str, TouchedKeys]
    feeds: Flags
    amends: Flags


class TokenCache:
    """The token of a value (first 128 bits of SHA-256 of its canonical bytes) in two halves, cached up to a bound.

    A value is a text, an integer, or a pair of these, which is an array.
    """

    def __init__(self, limit: int = CACHE_LIMIT) -> None:
        self._limit = limit
        self._high: dict[Token, int] = {}
        self._low: dict[Token, int] = {}

    def columns(self, values: Sequence[Token]) -> tuple[Int64s, Int64s]:
        """High and low halves, each int64[len(values)]."""
        new = set(values).difference(self._high)
        if len(self._high) + len(new) > self._limit:
            self._high.clear()
            self._low.clear()
            new = set(values)
        for value in new:
            digest = hashlib.sha256(canonical_bytes(list(value) if isinstance(value, tuple) else value)).digest()
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
        self._rules = registry.key_rules
        self._good_keys: dict[str, set[str]] = {key_type: set() for key_type in registry.layouts}
        self._cache_limit = cache_limit
        self._class_hashes = {name: hashlib.sha256(event_class(self._events, name).encode() + b"\0") for name in self._events}

    def route(
        self,
        event_types: Sequence[str],
        event_ids: Sequence[str],
        schema_versions: Sequence[str],
        ts: Int64s,
        payload_hashes: Sequence[bytes],
        payloads: Sequence[bytes],
        amends: Sequence[bytes | None],
    ) -> RoutedBatch:
        """Route n records, given as columns (`ts` in microseconds, hashes of 32 bytes, payloads and `amends` as JSON bytes).

        An amendment touches the keys in its payload at the time of the event that it amends. One of a type that the pack knows,
        and that may not amend events of that class, is FAILED.

        Never raises for what a payload holds: such a record feeds the groups that can use it; if there are none, though some
        should, it is FAILED, with a reason, and touches nothing.
        """
        count = len(event_types)
        id_digest, tie_digest = self._digests(event_types, event_ids, payload_hashes)
        status = np.zeros(count, dtype=np.int8)
        failures: list[ApplyFailure] = []
        feeds, is_amendment = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        amendments: dict[str, list[int]] = {}
        parts: dict[str, list[TouchedKeys]] = {}
        for name, indices in _by_type(event_types).items():
            plan = self._plans.get(name)
            if plan is None:
                status[indices] = UNKNOWN_TYPE
                continue
            indices = _understood(plan, name, indices, schema_versions, failures)
            indices = self._set_amendments_aside(name, indices, ts, amends, amendments, failures)
            if not plan.key_plans or not indices:
                continue  # declared, but no group selects it: nothing is read of it
            decoded_rows = self._decode(plan, indices, payloads, failures)
            where = np.array(decoded_rows.indices, dtype=np.int64)
            digests = None if plan.amendable is None else plan.amendable.digests(
                [event_ids[index] for index in decoded_rows.indices], [payloads[index] for index in decoded_rows.indices]
            )  # fmt: skip
            placed = None if plan.amendable is None else _feeding(plan, decoded_rows)
            for key_plan in plan.key_plans:
                part = self._touch(key_plan, decoded_rows, where, ts, tie_digest, digests, placed)
                if len(part.record_index):
                    parts.setdefault(key_plan.key_type, []).append(part)
                    feeds[part.record_index] = True
        for name, indices in amendments.items():
            is_amendment[indices] = True
            for key_type, part in self._amend(self._plans[name], indices, ts, payloads, amends, tie_digest, failures):
                parts.setdefault(key_type, []).append(part)
                feeds[part.record_index] = True
        failures.sort(key=lambda failure: failure.index)
        whole = [failure for failure in failures if not feeds[failure.index]]
        status[[failure.index for failure in whole]] = FAILED
        touched_keys = {key_type: _in_record_order(parts[key_type]) for key_type in sorted(parts)}
        partial = [failure for failure in failures if feeds[failure.index]] if len(whole) < len(failures) else []
        is_amendment &= status == APPLIED
        return RoutedBatch(status, whole, partial, id_digest, tie_digest, touched_keys, feeds, is_amendment)

    def _set_amendments_aside(
        self,
        event_type: str,
        indices: list[int],
        ts: Int64s,
        amends: Sequence[bytes | None],
        amendments: dict[str, list[int]],
        failures: list[ApplyFailure],
    ) -> list[int]:
        """The records that amend nothing; the others go to `amendments`, by the type that they amend, or are a failure each."""
        if amends.count(None) == len(amends):
            return indices
        for index in indices:
            text = amends[index]
            if text is None:
                continue
            target = read_amends(text)
            name = amended_type(self._events, event_type, target.event_class)
            if name is None:
                detail = f"it amends an event of class {target.event_class}, and the pack does not say that {event_type} may"
                failures.append(ApplyFailure(index, ApplyFailureReason.AMENDMENT_NOT_DECLARED, detail))
                continue
            amendable = self._plans[name].amendable
            if target.kind == "replace" and amendable is not None and not amendable.may_replace:
                detail = f"it replaces an event of type {name}, of which the pack says no field that may change"
                failures.append(ApplyFailure(index, ApplyFailureReason.AMENDMENT_NOT_DECLARED, detail))
                continue
            if parse_time(target.ts_utc) > ts[index]:
                detail = f"it amends an event of {target.ts_utc}, which is later than its own time"
                failures.append(ApplyFailure(index, ApplyFailureReason.AMENDMENT_BEFORE_EVENT, detail))
                continue
            amendments.setdefault(name, []).append(index)
        return [index for index in indices if amends[index] is None]

    def _amend(
        self,
        plan: EventPlan,
        indices: list[int],
        ts: Int64s,
        payloads: Sequence[bytes],
        amends: Sequence[bytes | None],
        tie_digest: npt.NDArray[np.uint64],
        failures: list[ApplyFailure],
    ) -> list[tuple[str, TouchedKeys]]:
        """What amendments of events of one type touch, by key type: those keys in their payloads that are right.

        A replacement fails for the groups that it lacks something for, as an event would; whatever touches nothing fails.
        """
        assert plan.amendable is not None
        if not plan.key_plans:
            return []
        own_failures: list[ApplyFailure] = []
        decoded_rows = self._decode_partly(plan, indices, payloads, own_failures)
        where = np.array(decoded_rows.indices, dtype=np.int64)
        targets = [read_amends(text) for index in decoded_rows.indices if (text := amends[index]) is not None]
        digests = plan.amendable.digests(
            [target.event_id for target in targets], [payloads[index] for index in decoded_rows.indices]
        )
        times = np.array([parse_time(target.ts_utc) for target in targets], np.int64)
        is_replacement = np.array([target.kind == "replace" for target in targets], np.bool_)
        touches = np.zeros(len(ts), np.bool_)
        parts = []
        for key_plan in plan.key_plans:
            whole = self._touch(key_plan, replace(decoded_rows, lacks={}, bad_keys={}), where, ts, tie_digest, digests, None)
            _, bits = key_plan.fed_bits(decoded_rows.lacks, len(where))
            matrix = whole.matrix
            matrix[AMENDS_MASK_ROW] = np.where(is_replacement, matrix[MASK_ROW] & bits, 0)
            matrix[MASK_ROW] = 0
            matrix[TIME_ROW] = times
            matrix[TIE_ROW : TIE_ROW + 2] = tie_digest[where].view(np.int64).T
            matrix[AMENDS_TIME_ROW] = ts[where]
            matrix[AMENDS_KIND_ROW] = np.where(is_replacement, REPLACE, VOID)
            kept_places = np.flatnonzero(~decoded_rows.bad_keys[key_plan.key_type])
            if len(kept_places):
                ids = [whole.key_ids[place] for place in kept_places.tolist()]
                parts.append(
                    (key_plan.key_type, TouchedKeys(where[kept_places], ids, np.ascontiguousarray(matrix[:, kept_places])))
                )
                touches[where[kept_places]] = True
        replacements = set(where[is_replacement].tolist())
        failures += [failure for failure in own_failures if failure.index in replacements or not touches[failure.index]]
        return parts

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

    def _decode(self, plan: EventPlan, indices: list[int], payloads: Sequence[bytes], failures: list[ApplyFailure]) -> _Decoded:
        """The records that can be read; a failure for each that some group cannot use."""
        decode = plan.decode
        try:
            rows = list(map(decode, payloads if len(indices) == len(payloads) else map(payloads.__getitem__, indices)))
        except NOT_DECODED:
            return self._decode_partly(plan, indices, payloads, failures)
        columns = plan.columns(rows)
        if any(self._bad_keys(plan, columns).values()) or plan.long_texts(columns):
            return self._decode_partly(plan, indices, payloads, failures)
        return _Decoded(indices, columns)

    def _decode_partly(
        self, plan: EventPlan, indices: list[int], payloads: Sequence[bytes], failures: list[ApplyFailure]
    ) -> _Decoded:
        readable: list[int] = []
        rows: list[msgspec.Struct] = []
        for index in indices:
            row = plan.decode_usable(payloads[index])
            if row is None:
                failures.append(plan.failure(index, payloads[index]))
            else:
                readable.append(index)
                rows.append(row)
        columns = plan.columns(rows)
        lacks = {name: _are(None, values) for name, values in columns.items() if None in values}
        columns = {
            name: [zero if value is None else value for value in columns[name]] if name in lacks else columns[name]
            for name, zero in plan.attributes.items()
        }
        lacks |= plan.long_texts(columns)
        attributes = {key.key_type: key.attribute for key in plan.key_plans}
        bad_keys = {
            key_type: np.fromiter(map(bad.__contains__, columns[attributes[key_type]]), np.bool_, len(rows))
            for key_type, bad in self._bad_keys(plan, columns).items()
        }
        is_partial = np.logical_or.reduce([np.zeros(len(rows), np.bool_), *lacks.values(), *bad_keys.values()])
        for place in np.flatnonzero(is_partial).tolist():
            failures.append(plan.failure(readable[place], payloads[readable[place]]))
        return _Decoded(readable, columns, lacks, bad_keys)

    def _bad_keys(self, plan: EventPlan, columns: Mapping[str, list[Any]]) -> dict[str, set[str]]:
        """Key type to the texts in its column that are no keys of it."""
        bad: dict[str, set[str]] = {}
        for key in plan.key_plans:
            good_key_ids, key_ids = self._good_keys[key.key_type], columns[key.attribute]
            bad[key.key_type] = set()
            if good_key_ids.issuperset(key_ids):
                continue
            new = set(key_ids).difference(good_key_ids)
            accepts = self._rules[key.key_type].accepts
            bad[key.key_type] = {key_id for key_id in new if not accepts(key_id)}
            if len(good_key_ids) + len(new) > self._cache_limit:
                good_key_ids.clear()
            good_key_ids |= new - bad[key.key_type]
        return bad

    def _touch(
        self,
        plan: KeyPlan,
        decoded_rows: _Decoded,
        where: Int64s,
        ts: Int64s,
        tie_digest: npt.NDArray[np.uint64],
        digests: Int64s | None,
        placed: Flags | None,
    ) -> TouchedKeys:
        """Those that feed a group by this key. `placed`, of a type that may be amended: all of these whose key is right, as a
        replacement may feed the group."""
        layout = self._layouts[plan.key_type]
        columns = decoded_rows.columns
        matrix = np.zeros((layout.column_count, len(where)), dtype=np.int64)
        matrix[TIME_ROW] = ts[where]
        matrix[MASK_ROW] = plan.mask(columns, len(where))
        if layout.ordered:
            matrix[TIE_ROW : TIE_ROW + 2] = tie_digest[where].view(np.int64).T
        if digests is not None:
            matrix[TARGET_ROW : TARGET_ROW + len(digests)] = digests
        for row, attribute in plan.integer_rows:
            matrix[row] = columns[attribute]
        for row, attribute in plan.token_rows:
            matrix[row], matrix[row + 1] = self._tokens.columns(columns[attribute])
        for row, first, second in plan.pair_rows:
            pairs = list(zip(columns[first], columns[second], strict=True))
            matrix[row], matrix[row + 1] = self._tokens.columns(pairs)
        for row, attribute in plan.text_rows:
            matrix[row : row + TEXT_WORDS] = words_of(columns[attribute])
        key_ids = columns[plan.attribute]
        if decoded_rows.lacks or decoded_rows.bad_keys:
            feeds, bits = plan.fed_bits(decoded_rows.lacks, len(where))
            feeds = (feeds if placed is None else placed) & ~decoded_rows.bad_keys[plan.key_type]
            matrix[MASK_ROW] &= bits
            kept_indices = np.flatnonzero(feeds)
            return TouchedKeys(
                where[kept_indices],
                [key_ids[place] for place in kept_indices.tolist()],
                np.ascontiguousarray(matrix[:, kept_indices]),
            )
        return TouchedKeys(where, key_ids, matrix)


@dataclass(frozen=True, eq=False)
class _Decoded:
    """Records of one event type, decoded: `indices` in the batch, attribute to values in the same order.

    Where some records are not whole: `lacks` has, per attribute that one of them lacks, bool[n] (the value there is a zero; and
    see `EventPlan.texts`), and `bad_keys`, per key type, which records have no key id of it.
    """

    indices: list[int]
    columns: dict[str, list[Any]]
    lacks: Mapping[str, Flags] = field(default_factory=dict)
    bad_keys: Mapping[str, Flags] = field(default_factory=dict)


def _understood(
    plan: EventPlan, event_type: str, indices: list[int], schema_versions: Sequence[str], failures: list[ApplyFailure]
) -> list[int]:
    """The records whose schema version the pack understands; a failure for each other."""
    versions = plan.schema_versions
    is_whole_batch = len(indices) == len(schema_versions)
    if versions.issuperset(schema_versions if is_whole_batch else map(schema_versions.__getitem__, indices)):
        return indices
    known = ", ".join(sorted(versions))
    for index in indices:
        if schema_versions[index] not in versions:
            detail = f"schema version {schema_versions[index]!r}; of {event_type} the pack understands {known}"
            failures.append(ApplyFailure(index, ApplyFailureReason.UNKNOWN_SCHEMA_VERSION, detail))
    return [index for index in indices if schema_versions[index] in versions]


def _feeding(plan: EventPlan, decoded_rows: _Decoded) -> Flags:
    """Which records feed a group by any of their keys."""
    count = len(decoded_rows.indices)
    if not decoded_rows.lacks and not decoded_rows.bad_keys:
        return np.ones(count, np.bool_)
    feeding = np.zeros(count, np.bool_)
    for key_plan in plan.key_plans:
        feeding |= key_plan.fed_bits(decoded_rows.lacks, count)[0] & ~decoded_rows.bad_keys[key_plan.key_type]
    return feeding


def _are(value: object, values: list[Any]) -> Flags:
    return np.fromiter((item is value for item in values), np.bool_, len(values))


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
