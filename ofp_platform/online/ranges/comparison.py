"""Two projections on one basis, compared by hash: the group versions that both have must serve the same.

What is hashed, per sampled key, as-of and group version, is what a caller would get: the values, and the time of the last
update where it lies in front of both horizons (a registry with a longer window remembers older updates, rightly).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from psycopg import Connection

from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.reader import Reader
from ofp_platform.online.state.buckets import KEY_TYPE_CODES
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
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


@dataclass(frozen=True)
class Comparison:
    """The outcome. `keys` and `moments` were sampled; hashes are over all that was compared, in one order.

    `only_live` and `only_beside` are group versions that the other one does not have: not compared, by nature.
    """

    keys: int
    moments: tuple[int, ...]
    common: tuple[str, ...]
    only_live: tuple[str, ...]
    only_beside: tuple[str, ...]
    live_hash: str
    beside_hash: str
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether everything compared is the same, to the byte."""
        return self.live_hash == self.beside_hash


def compare(
    plane: Plane, live: tuple[ProjectionRow, Pool], beside: tuple[ProjectionRow, Pool], *, keys_per_type: int = KEYS_PER_TYPE
) -> Comparison:
    """Compare two projections whose bases are equal, each read through the pool that shows it on that basis."""
    registries = plane.registry_of(live[0]), plane.registry_of(beside[0])
    common = sorted(set(registries[0].groups) & set(registries[1].groups))
    moments = _moments(plane, live[0], beside[0])
    horizon = max(_horizon(plane, row, registry) for (row, _), registry in zip((live, beside), registries, strict=True))
    texts: tuple[list[Any], list[Any]] = ([], [])
    differences: list[Difference] = []
    count = 0
    for key_type in sorted({registries[0].groups[ref].key_type for ref in common}):
        groups = [ref for ref in common if registries[0].groups[ref].key_type == key_type]
        plain = [ref for ref in groups if not registries[0].groups[ref].request_fields]
        if not plain:
            continue
        keys = sorted({*_sample(live, key_type, keys_per_type), *_sample(beside, key_type, keys_per_type)})
        count += len(keys)
        for as_of in moments:
            for start in range(0, len(keys), plane.profile.limits.max_keys):
                some = keys[start : start + plane.profile.limits.max_keys]
                served_sides = [_serve(plane, side, key_type, some, plain, as_of, horizon) for side in (live, beside)]
                texts[0].append(served_sides[0])
                texts[1].append(served_sides[1])
                if served_sides[0] != served_sides[1] and len(differences) < _SHOWN:
                    differences += _differences(served_sides[0], served_sides[1], key_type, as_of)
    return Comparison(
        keys=count,
        moments=tuple(moments),
        common=tuple(_text(ref) for ref in common),
        only_live=tuple(_text(ref) for ref in sorted(set(registries[0].groups) - set(common))),
        only_beside=tuple(_text(ref) for ref in sorted(set(registries[1].groups) - set(common))),
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
        "SELECT key_id FROM (SELECT DISTINCT key_id FROM ofp.chunk WHERE projection_id = %s AND key_type = %s) AS keys"
        " ORDER BY md5(key_id), key_id LIMIT %s",
        (projection_id, KEY_TYPE_CODES[key_type], count),
    ).fetchall()
    return [key_id for (key_id,) in rows]


def _serve(
    plane: Plane,
    side: tuple[ProjectionRow, Pool],
    key_type: str,
    keys: Sequence[str],
    groups: Sequence[tuple[str, str]],
    as_of: int,
    horizon: int,
) -> list[dict[str, Any]]:
    """Values and last updates of keys as they would be served, one entry per key and group, in canonical order."""
    row, pool = side
    limits = plane.profile.limits.model_copy(update={"max_groups": max(len(groups), plane.profile.limits.max_groups)})
    request = {
        "context_pins": row.pins.wire(),
        "feature_keys": [{"key_type": key_type, "key_id": key_id} for key_id in keys],
        "feature_groups": [{"group_name": name, "group_version": version} for name, version in groups],
        "as_of_time_utc": format_time(as_of),
    }
    body = canonical_bytes(request)
    limits = limits.model_copy(update={"max_body_bytes": max(len(body), limits.max_body_bytes)})
    answer = Reader(pool, row.projection_id, plane.evaluator(row), limits).answer(body)
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
