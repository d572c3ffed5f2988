"""Two projections on one basis, compared by hash: the group versions that both have must serve the same.

Group versions that only the one beside has are compared with another fold of the same records, made for this alone from the
first one on. What was not compared is not equal: every group has its number of compared keys.

What is hashed, per sampled key, as-of and group version, is what a caller would get: the values, and the time of the last
update where it lies in front of both horizons (a registry with a longer window remembers older updates, rightly).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from psycopg import Connection

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.reader import Reader
from ofp_platform.online.state.buckets import KEY_TYPE_CODES
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.registry.models import RequestFieldType
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform.vocabulary.times import format_time, parse_time

KEYS_PER_TYPE = 200
MOMENTS = 3
_SHOWN = 20


@dataclass(frozen=True)
class Difference:
    """One feature (or `last_update_event_time`) that the two serve differently."""

    key_type: str
    key_id: str
    group: str
    as_of: int
    feature: str
    live: Any
    beside: Any


class HistoryFold(Protocol):
    """A fold of archive and log that shares no state with any projection."""

    def __call__(
        self, registry: CompiledRegistry, pins: ContextPins, basis: Basis, requests: Sequence[GetFeaturesRequest]
    ) -> list[str]:
        """The snapshot hash of each request's answer at the basis."""


@dataclass(frozen=True)
class Comparison:
    """The outcome. `keys` and `moments` were sampled; hashes are over all that was compared, in one order.

    `compared_keys` is how many keys each group version was compared for: `common` ones live against beside, `only_beside` ones
    against another fold of the records; `only_live` ones nobody serves afterwards. `without_keys` are key types of which neither
    projection holds a key: of their groups there is nothing to compare. `not_compared` are groups whose keys were not
    compared; `wrong` are new groups that serve something else than the records say.
    """

    keys: int
    moments: tuple[int, ...]
    common: tuple[str, ...]
    only_live: tuple[str, ...]
    only_beside: tuple[str, ...]
    compared_keys: Mapping[str, int]
    without_keys: tuple[str, ...]
    not_compared: tuple[str, ...]
    wrong: tuple[str, ...]
    live_hash: str
    beside_hash: str
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether everything there is was compared, and is the same, to the byte."""
        return self.live_hash == self.beside_hash and not self.not_compared and not self.wrong


def compare(
    plane: Plane,
    live: tuple[ProjectionRow, Pool],
    beside: tuple[ProjectionRow, Pool],
    fold: HistoryFold | None,
    *,
    keys_per_type: int = KEYS_PER_TYPE,
) -> Comparison:
    """Compare two projections whose bases are equal, each read through the pool that shows it on that basis.

    `fold` answers for group versions that are new; None: they stay uncompared, and a comparison that has some is not equal.
    """
    registries = plane.registry_of(live[0]), plane.registry_of(beside[0])
    groups = {**registries[0].groups, **registries[1].groups}
    common = sorted(set(registries[0].groups) & set(registries[1].groups))
    new = sorted(set(registries[1].groups) - set(common))
    moments = _moments(plane, live[0], beside[0])
    horizon = max(_horizon(plane, row, registry) for (row, _), registry in zip((live, beside), registries, strict=True))
    texts: tuple[list[Any], list[Any]] = ([], [])
    differences: list[Difference] = []
    compared_keys = dict.fromkeys((_text(ref) for ref in (*common, *new)), 0)
    without_keys, wrong = [], []
    count = 0
    for key_type in sorted({groups[ref].key_type for ref in (*common, *new)}):
        keys = sorted({*_sample(live, key_type, keys_per_type), *_sample(beside, key_type, keys_per_type)})
        if not keys:
            without_keys.append(key_type)
            continue
        count += len(keys)
        shared_groups = [ref for ref in common if groups[ref].key_type == key_type]
        new_groups = [ref for ref in new if groups[ref].key_type == key_type]
        batches = [
            keys[start : start + plane.profile.limits.max_keys] for start in range(0, len(keys), plane.profile.limits.max_keys)
        ]
        for as_of in moments if shared_groups else ():
            for some in batches:
                served_sides = [
                    _entries(_serve(plane, side, key_type, some, shared_groups, groups, as_of), horizon)
                    for side in (live, beside)
                ]
                texts[0].append(served_sides[0])
                texts[1].append(served_sides[1])
                if served_sides[0] != served_sides[1] and len(differences) < _SHOWN:
                    differences += _differences(served_sides[0], served_sides[1], key_type, as_of)
        if moments:
            compared_keys.update((_text(ref), len(keys)) for ref in shared_groups)
        if moments and new_groups and fold is not None:
            questions = [(as_of, some) for as_of in moments for some in batches]
            answers = [_serve(plane, beside, key_type, some, new_groups, groups, as_of).hash for as_of, some in questions]
            requests = [
                GetFeaturesRequest.model_validate(_request(beside[0], key_type, some, new_groups, groups, as_of))
                for as_of, some in questions
            ]
            if answers != fold(registries[1], beside[0].pins, beside[0].basis, requests):
                wrong += [_text(ref) for ref in new_groups]
            compared_keys.update((_text(ref), len(keys)) for ref in new_groups)
    empty = {_text(ref) for ref in (*common, *new) if groups[ref].key_type in without_keys}
    return Comparison(
        keys=count,
        moments=tuple(moments),
        common=tuple(_text(ref) for ref in common),
        only_live=tuple(_text(ref) for ref in sorted(set(registries[0].groups) - set(common))),
        only_beside=tuple(_text(ref) for ref in new),
        compared_keys=compared_keys,
        without_keys=tuple(without_keys),
        not_compared=tuple(name for name, keys_compared in compared_keys.items() if not keys_compared and name not in empty),
        wrong=tuple(wrong),
        live_hash=sha256_hex(canonical_bytes(texts[0])),
        beside_hash=sha256_hex(canonical_bytes(texts[1])),
        differences=tuple(differences[:_SHOWN]),
    )


def _text(ref: tuple[str, str]) -> str:
    return f"{ref[0]} {ref[1]}"


def _moments(plane: Plane, live: ProjectionRow, beside: ProjectionRow) -> list[int]:
    """As-of times that both can answer: from the later watermark back to what the allowed lateness keeps."""
    watermarks = [row.watermark for row in (live, beside) if row.watermark is not None]
    if not watermarks:
        return []
    step = plane.profile.allowed_lateness_us // MOMENTS
    return sorted({max(watermarks) - step * place for place in range(MOMENTS)})


def _horizon(plane: Plane, row: ProjectionRow, registry: CompiledRegistry) -> int:
    retained_us = registry.reach + plane.profile.allowed_lateness_us
    return (row.watermark or 0) - retained_us


def _sample(side: tuple[ProjectionRow, Pool], key_type: str, count: int) -> list[str]:
    """Keys spread over all of a type, the same for the same state: in the order of a digest of their ids."""
    row, pool = side
    with pool.connection() as connection:
        return keys_by_digest(connection, row.projection_id, key_type, count)


def keys_by_digest(connection: Connection[Any], projection_id: int, key_type: str, count: int) -> list[str]:
    """The first `count` keys of a type in the order of the MD5 of their ids."""
    rows = connection.execute(
        "SELECT key_id FROM ("
        " SELECT key_id FROM ofp.chunk WHERE projection_id = %(projection)s AND key_type = %(kind)s"
        " UNION SELECT key_id FROM ofp.tail"
        " WHERE projection_id = %(projection)s AND key_type = %(kind)s AND octet_length(block) > 0"
        ") AS keys ORDER BY md5(key_id), key_id LIMIT %(count)s",
        {"projection": projection_id, "kind": KEY_TYPE_CODES[key_type], "count": count},
    ).fetchall()
    return [key_id for (key_id,) in rows]


def _request(
    row: ProjectionRow,
    key_type: str,
    keys: Sequence[str],
    refs: Sequence[tuple[str, str]],
    groups: Mapping[tuple[str, str], CompiledGroup],
    as_of: int,
) -> dict[str, Any]:
    """A request for groups of keys; what they need of a request context is 1."""
    context = {name: 1 if kind == RequestFieldType.INTEGER else "1" for ref in refs for name, kind in groups[ref].request_fields}
    request = {
        "context_pins": row.pins.wire(),
        "feature_keys": [{"key_type": key_type, "key_id": key_id} for key_id in keys],
        "feature_groups": [{"group_name": name, "group_version": version} for name, version in refs],
        "as_of_time_utc": format_time(as_of),
    }
    return {**request, "request_context": context} if context else request


def _serve(
    plane: Plane,
    side: tuple[ProjectionRow, Pool],
    key_type: str,
    keys: Sequence[str],
    refs: Sequence[tuple[str, str]],
    groups: Mapping[tuple[str, str], CompiledGroup],
    as_of: int,
) -> Answer:
    """The answer that a caller would get, were no identity resolved: state is of keys, and what joins them changes none of it."""
    row, pool = side
    limits = plane.profile.limits
    body = canonical_bytes(_request(row, key_type, keys, refs, groups, as_of))
    enough = {
        "max_groups": max(len(refs), limits.max_groups),
        "max_body_bytes": max(len(body), limits.max_body_bytes),
        "max_request_context_fields": max(
            sum(len(groups[ref].request_fields) for ref in refs), limits.max_request_context_fields
        ),
    }
    return Reader(pool, row.projection_id, plane.evaluator(row, as_sent=True), limits.model_copy(update=enough)).answer(body)


def _entries(answer: Answer, horizon: int) -> list[dict[str, Any]]:
    """Values and last updates of keys as they would be served, one entry per key and group, in canonical order."""
    response = orjson.loads(answer.body)
    updates = {
        (part["key_id"], part["group_name"], part["group_version"]): part["last_update_event_time"]
        for part in response["provenance"]["freshness"]
    }
    entries = []
    for key in response["snapshot"]["by_key"]:
        for group in key["by_group"]:
            ref = (key["key_id"], group["group_name"], group["group_version"])
            update_time = updates[ref]
            if update_time is not None and parse_time(update_time) <= horizon:
                update_time = None
            entries.append({"ref": list(ref), "features": group["features"], "last_update_event_time": update_time})
    return entries


def _differences(live: list[dict[str, Any]], beside: list[dict[str, Any]], key_type: str, as_of: int) -> list[Difference]:
    differences = []
    for live_entry, beside_entry in zip(live, beside, strict=True):
        key_id, name, version = live_entry["ref"]
        live_values = {**live_entry["features"], "last_update_event_time": live_entry["last_update_event_time"]}
        beside_values = {**beside_entry["features"], "last_update_event_time": beside_entry["last_update_event_time"]}
        for feature, value in live_values.items():
            if value != beside_values[feature]:
                differences.append(
                    Difference(key_type, key_id, f"{name} {version}", as_of, feature, value, beside_values[feature])
                )
    return differences
