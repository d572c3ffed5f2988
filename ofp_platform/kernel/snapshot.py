"""From what the kernel found to the bytes of a snapshot: values, freshness, warnings, hash. Both planes answer with this.

Pure: evaluations, question, basis and posture come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.kernel.finalise import Value, ValueOutOfRange, group_values, wire
from ofp_platform.kernel.plan import KernelPlan, Query, query_of
from ofp_platform.kernel.windows import NEVER, Evaluation
from ofp_platform.registry import on_demand
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import GroupPlan, OnDemandPlan
from ofp_platform.registry.question import Question
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.decimals import format_decimal
from ofp_platform.vocabulary.errors import Reason, invalid
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.serving import CONTRACT_VERSION
from ofp_platform.vocabulary.snapshot_hash import hashed_object
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time, parse_time

_FIRST_TIME = parse_time("0001-01-01T00:00:00Z")


@dataclass(frozen=True)
class Answer:
    """A whole answer. `body`: canonical bytes of the response; `hashed`: the bytes that `hash` is the SHA-256 of.

    `missing` counts the groups that were served for a key without data.
    """

    body: bytes
    hash: str
    hashed: bytes
    missing: int


class SnapshotMaker:
    """Makes answers under one registry, run and policy; everything derived from them is derived once."""

    def __init__(self, registry: CompiledRegistry, pins: ContextPins, run_config_digest: str, allowed_lateness_us: int) -> None:
        self.registry = registry
        self.pins = pins
        self.run_config_digest = run_config_digest
        self.retained = registry.reach + allowed_lateness_us
        self._plans = {key_type: KernelPlan.of(layout) for key_type, layout in registry.layouts.items()}
        self._queries: dict[tuple[tuple[str, str], ...], Query] = {}
        self._pins = orjson.Fragment(canonical_bytes(pins.wire()))
        self._definitions = orjson.Fragment(
            canonical_bytes({"pack_id": registry.pack.pack_id, "revision": registry.pack.revision, "digest": registry.digest})
        )

    def query(self, groups: tuple[GroupPlan, ...]) -> Query:
        """The kernel's query for groups of one key type (kept: there are few combinations)."""
        key = tuple((group.name, group.version) for group in groups)
        query = self._queries.get(key)
        if query is None:
            if len(self._queries) > 4096:
                self._queries.clear()
            query = self._queries[key] = query_of(self._plans[groups[0].key_type], groups)
        return query

    def horizon(self, watermark: int | None) -> int:
        """What lies at or before this time is no longer known to serving, microseconds."""
        return EARLIEST if watermark is None else watermark - self.retained

    def snapshot(
        self,
        question: Question,
        basis: str,
        watermark: int | None,
        evaluation_of: Callable[[int, Query, int], Evaluation],
        posture: Mapping[str, Any],
    ) -> Answer:
        """Evaluate and encode. `evaluation_of(place, query, horizon)` is the query's evaluation for `question.keys[place]`.

        `basis` is the canonical text of the input basis.

        Raises:
            ContractError: AS_OF_BEFORE_HORIZON, VALUE_OUT_OF_RANGE, or the request context does not fit.
        """
        horizon = self.horizon(watermark)
        as_of = question.as_of
        reach = max(group.reach for group in question.groups)
        if as_of - reach < horizon:
            raise invalid(
                Reason.AS_OF_BEFORE_HORIZON,
                f"a requested window begins {reach // MICROS_PER_SECOND} s before the as-of, behind the horizon"
                f" {_horizon_text(horizon)};"
                " a forensic rebuild from the archive answers it",
                self.pins,
            )
        values: list[dict[str, Any]] = []
        freshness: list[dict[str, Any]] = []
        warnings: list[dict[str, str]] = []
        for place, (key_type, key_id) in enumerate(question.keys):
            groups = question.groups_of[key_type]
            query = self.query(groups)
            found = evaluation_of(place, query, horizon)
            by_group = []
            for group, touched in zip(groups, found.touches.tolist(), strict=True):
                version = {"group_name": group.name, "group_version": group.version}
                features = self._features(group, query, found, as_of, question.context)
                by_group.append({**version, "features": features})
                where = {"key_type": key_type, "key_id": key_id, **version}
                freshness.append(_freshness(where, group.ttl_seconds, touched, as_of, warnings))
            values.append({"key_type": key_type, "key_id": key_id, "by_group": by_group})
        warnings.sort(key=lambda warn: (warn["code"], *_order(warn)))
        return self._encode(question, basis, watermark, values, freshness, warnings, posture)

    def _features(
        self, group: GroupPlan, query: Query, found: Evaluation, as_of: int, context: dict[str, int | str] | None
    ) -> dict[str, Any]:
        try:
            computed = group_values(group, query, found, as_of)
        except ValueOutOfRange as error:
            raise invalid(Reason.VALUE_OUT_OF_RANGE, str(error), self.pins) from None
        features: dict[str, Any] = {name: wire(value) for name, value in computed.items()}
        for plan in group.on_demand:
            features[plan.name] = _on_demand(plan, computed, context or {})
        return features

    def _encode(
        self,
        question: Question,
        input_basis: str,
        watermark: int | None,
        values: list[dict[str, Any]],
        freshness: list[dict[str, Any]],
        warnings: list[dict[str, str]],
        posture: Mapping[str, Any],
    ) -> Answer:
        basis = orjson.Fragment(input_basis.encode())
        by_key = orjson.Fragment(canonical_bytes(values))
        fresh = orjson.Fragment(canonical_bytes(freshness))
        warned = orjson.Fragment(canonical_bytes(warnings))
        keys = orjson.Fragment(canonical_bytes([{"key_type": kind, "key_id": name} for kind, name in question.keys]))
        groups = orjson.Fragment(
            canonical_bytes([{"group_name": plan.name, "group_version": plan.version} for plan in question.groups])
        )
        as_of = question.request.as_of_time_utc
        hashed = canonical_bytes(
            hashed_object(
                context_pins=self._pins,
                as_of_time_utc=as_of,
                feature_keys=keys,
                feature_groups=groups,
                registry_digest=self.registry.digest,
                run_config_digest=self.run_config_digest,
                values=by_key,
                freshness=fresh,
                warnings=warned,
                input_basis=basis,
                request_context=question.context,
            )
        )
        digest = sha256_hex(hashed)
        age = None if watermark is None else (question.as_of - watermark) // MICROS_PER_SECOND
        body = canonical_bytes(
            {
                "kind": "get_features_response",
                "contract_version": CONTRACT_VERSION,
                "snapshot": {
                    "kind": "ofp_snapshot",
                    "contract_version": CONTRACT_VERSION,
                    "as_of_time_utc": as_of,
                    "by_key": by_key,
                },
                "provenance": {
                    "kind": "ofp_provenance",
                    "contract_version": CONTRACT_VERSION,
                    "context_pins": self._pins,
                    "feature_snapshot_hash": digest,
                    "requested": {
                        "as_of_time_utc": as_of,
                        "feature_keys": keys,
                        "feature_groups": groups,
                        "request_context": question.context,
                    },
                    "group_versions_used": groups,
                    "freshness": fresh,
                    "input_basis": basis,
                    "graph_version": None,
                    "feature_definition_set": self._definitions,
                    "run_config_digest": self.run_config_digest,
                    "warnings": warned,
                    "posture": {
                        **posture,
                        "watermark_utc": None if watermark is None else format_time(watermark),
                        "watermark_age_seconds": age,
                    },
                    "request_id": question.request.request_id,
                },
            }
        )
        missing = sum(1 for warning in warnings if warning["code"] == "NO_DATA")
        return Answer(body=body, hash=digest, hashed=hashed, missing=missing)


def _horizon_text(horizon: int) -> str:
    """The horizon as text; state kept behind year 1 has no calendar time."""
    return format_time(horizon) if horizon >= _FIRST_TIME else "before year 1"


def _order(where: Mapping[str, str]) -> tuple[str, ...]:
    return where["key_type"], where["key_id"], where["group_name"], where["group_version"]


def _freshness(
    where: dict[str, str], ttl_seconds: int, touched: int, as_of: int, warnings: list[dict[str, str]]
) -> dict[str, Any]:
    age = None if touched == NEVER else (as_of - touched) // MICROS_PER_SECOND
    stale = age is None or age > ttl_seconds
    if touched == NEVER:
        warnings.append({"code": "NO_DATA", **where})
    if stale:
        warnings.append({"code": "STALE_GROUP", **where})
    return {
        **where,
        "ttl_seconds": ttl_seconds,
        "last_update_event_time": None if touched == NEVER else format_time(touched),
        "age_seconds": age,
        "stale": stale,
    }


def _on_demand(plan: OnDemandPlan, values: Mapping[str, Value], context: Mapping[str, int | str]) -> str | int | None:
    unscaled = on_demand.evaluate(plan, values, context)
    return None if unscaled is None else format_decimal(unscaled, plan.scale)
