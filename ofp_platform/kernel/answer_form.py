"""The fixed text of the answers to one choice of groups: prepared once, filled per answer.

The texts come from the same objects that the contract names (`hashed_object` for what is hashed), encoded by the one canonical
encoder with places left open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from ofp_platform.kernel.amendments import in_force
from ofp_platform.kernel.answer_text import AGE, FEATURE, KEY_ID, NEXT_TEXT, STALE, TOUCHED, TextProgram
from ofp_platform.kernel.entity_events import ResolvedEvents
from ofp_platform.kernel.finalise import group_values
from ofp_platform.kernel.query import Query
from ofp_platform.kernel.windows import NEVER, Evaluation, KeyEvents, Segments, evaluate, evaluate_state
from ofp_platform.registry import on_demand
from ofp_platform.registry.exact_value import ExactValue, Unservable
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.canonical_form import form, placeholder
from ofp_platform.vocabulary.decimals import format_decimal
from ofp_platform.vocabulary.snapshot_hash import CONTRACT_VERSION, hashed_object
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time

Context = dict[str, int | str] | None
POWERS = tuple(10**scale for scale in range(19))


def value_text(value: ExactValue) -> str | int:
    """A value as canonical JSON: an integer as it is, a decimal with all digits of its scale, null where nothing is served."""
    if value is None or isinstance(value, Unservable):
        return "null"
    if isinstance(value, (bool, str, list)):
        return canonical_bytes(value).decode()
    if isinstance(value, int):
        return value
    number, scale = value
    if number >= 0 and 0 < scale < len(POWERS):
        whole, part = divmod(number, POWERS[scale])
        return f'"{whole}.{part:0{scale}d}"'
    return f'"{format_decimal(number, scale)}"'


class GroupForm:
    """One group's part of an answer: its values and its freshness."""

    def __init__(self, group: CompiledGroup) -> None:
        self.group = group
        self.ttl = group.ttl_seconds
        self.on_demand = group.on_demand
        self.features = sorted(group.features, key=lambda feature: feature.name)
        self.version = {"group_name": group.name, "group_version": group.version}
        self._order = sorted([*(feature.name for feature in group.features), *(feature.name for feature in group.on_demand)])
        features = {name: placeholder(name) for name in self._order}
        self.values_form = form({**self.version, "features": features}, *self._order)
        self.freshness_form = form(
            {
                **self.version,
                "key_type": group.key_type,
                "key_id": placeholder("key_id"),
                "ttl_seconds": group.ttl_seconds,
                "last_update_event_time": placeholder("touched"),
                "age_seconds": placeholder("age"),
                "stale": placeholder("stale"),
            },
            "age",
            "key_id",
            "touched",
            "stale",
        )

    def values(self, query: Query, evaluation: Evaluation, as_of: int, context: Context) -> tuple[str, list[str]]:
        """Canonical text of the group's values, and the features of which the value is beyond what is served.

        Raises:
            ContractError: the request context does not fit.
        """
        values = group_values(self.group, query, evaluation, as_of)
        if self.on_demand:
            computed = {feature.name: on_demand.evaluate(feature, values, context or {}) for feature in self.on_demand}
            every = {**values, **computed}
            values = {name: every[name] for name in self._order}
        beyond = [name for name, value in values.items() if isinstance(value, Unservable)]
        return self.values_form % tuple([value_text(value) for value in values.values()]), beyond

    def freshness(self, id_text: str, last_touch: int, as_of: int) -> str:
        """Canonical text of the group's freshness. `id_text` is the key's id as JSON."""
        if last_touch == NEVER:
            return self.freshness_form % ("null", id_text, "null", "true")
        age = (as_of - last_touch) // MICROS_PER_SECOND
        return self.freshness_form % (age, id_text, f'"{format_time(last_touch)}"', "true" if age > self.ttl else "false")

    def warnings(
        self, key_type: str, key_id: str, last_touch: int, as_of: int, beyond: Sequence[str] = ()
    ) -> list[dict[str, str]]:
        """The group's warnings. `beyond`: features of which the value is beyond what is served."""
        where = {"key_type": key_type, "key_id": key_id, **self.version}
        warnings = [{"code": "VALUE_OUT_OF_RANGE", **where, "feature": name} for name in beyond]
        if last_touch == NEVER:
            warnings.append({"code": "NO_DATA", **where})
        if last_touch == NEVER or (as_of - last_touch) // MICROS_PER_SECOND > self.ttl:
            warnings.append({"code": "STALE_GROUP", **where})
        return warnings


class KeyForm:
    """The part of one key of a type: the kernel's query, and each of its groups."""

    def __init__(self, key_type: str, query: Query, groups: Sequence[GroupForm]) -> None:
        key_fields = {"key_type": key_type, "key_id": placeholder("key_id")}
        self.query = query
        self.groups = tuple(groups)
        self._key_type = key_type
        self._values = form({**key_fields, "by_group": placeholder("by_group")}, "by_group", "key_id")
        self.key = form(key_fields, "key_id")
        features = [feature for group in groups for feature in group.features]
        can_compile = not any(group.on_demand for group in groups) and TextProgram.writes(features)
        ttls = [group.ttl for group in groups]
        self._program = TextProgram(query, features, ttls, self._steps()) if can_compile else None
        self._writes_whole = not len(query.whole) and not query.has_calendars

    def _steps(self) -> list[str | tuple[int, int]]:
        """The program of the two texts of `texts`."""
        number = 0
        by_group: list[str | tuple[int, int]] = []
        freshness: list[str | tuple[int, int]] = []
        for index, group in enumerate(self.groups):
            comma = "," if index else ""
            fields = [(FEATURE, number + count) for count in range(len(group.features))]
            number += len(fields)
            by_group += [comma, *_fill(group.values_form, fields)]
            freshness += [comma, *_fill(group.freshness_form, [(AGE, index), (KEY_ID, 0), (TOUCHED, index), (STALE, index)])]
        before, between, after = _literals(self._values)
        return [f"{before}[", *by_group, f"]{between}", (KEY_ID, 0), after, (NEXT_TEXT, 0), *freshness]

    def texts(
        self,
        key_id: str,
        id_text: str,
        events: KeyEvents | ResolvedEvents,
        as_of: int,
        horizon: int,
        context: Context,
        warnings: list[dict[str, Any]],
    ) -> tuple[str, str]:
        """Canonical texts of the key's values, and of its groups' freshness (separated by commas); adds its warnings.

        Touches at or behind `horizon` (microseconds) do not count; an evaluation has left them out already.

        Raises:
            EventsMissing: a segment that the query needs was not decoded.
            ContractError: the request context does not fit.
        """
        if isinstance(events, ResolvedEvents):
            own, entity = (self._evaluation(part, as_of, horizon) for part in events)
            evaluations = [entity if group.group.resolves else own for group in self.groups]
            return self._group_texts(key_id, id_text, evaluations, as_of, context, warnings)
        texts = None
        # evaluates and writes in one call
        if isinstance(events, np.ndarray) and self._writes_whole and self._program is not None:
            events_in_force = in_force(self.query.arrays.layout, events, as_of)
            texts = self._program.write_whole(events_in_force, as_of, horizon, id_text.encode())
            if texts is not None and not texts[2]:
                return texts[0], texts[1]
        evaluation = self._evaluation(events, as_of, horizon)
        if self._program is not None and not (self._writes_whole and isinstance(events, np.ndarray)):
            texts = self._program.write(evaluation, as_of, id_text.encode())
            if texts is not None and not texts[2]:
                return texts[0], texts[1]
        touches = evaluation.touches.tolist()
        if texts is not None:
            for group, last_touch in zip(self.groups, touches, strict=True):
                warnings += group.warnings(self._key_type, key_id, last_touch, as_of)
            return texts[0], texts[1]
        return self._group_texts(key_id, id_text, [evaluation] * len(self.groups), as_of, context, warnings)

    def _evaluation(self, events: KeyEvents, as_of: int, horizon: int) -> Evaluation:
        if isinstance(events, np.ndarray):
            return evaluate(self.query, events, as_of, horizon)
        return evaluate_state(self.query, events, as_of, horizon) if isinstance(events, Segments) else events

    def _group_texts(
        self,
        key_id: str,
        id_text: str,
        evaluations: Sequence[Evaluation],
        as_of: int,
        context: Context,
        warnings: list[dict[str, Any]],
    ) -> tuple[str, str]:
        """The same texts, group by group, each from its evaluation."""
        by_group, fresh = [], []
        for index, (group, evaluation) in enumerate(zip(self.groups, evaluations, strict=True)):
            last_touch = int(evaluation.touches[index])
            values_text, beyond = group.values(self.query, evaluation, as_of, context)
            by_group.append(values_text)
            fresh.append(group.freshness(id_text, last_touch, as_of))
            warnings += group.warnings(self._key_type, key_id, last_touch, as_of, beyond)
        return self._values % (f"[{','.join(by_group)}]", id_text), ",".join(fresh)


def _literals(text: str) -> list[str]:
    """The literal pieces around the places of a form."""
    return [piece.replace("%%", "%") for piece in text.split("%s")]


def _fill(text: str, fields: Sequence[tuple[int, int]]) -> list[str | tuple[int, int]]:
    """The steps of a form, with these fields in its places."""
    first, *others = _literals(text)
    steps: list[str | tuple[int, int]] = [first]
    for field, literal in zip(fields, others, strict=True):
        steps += [field, literal]
    return steps


@dataclass(frozen=True)
class AnswerConstants:
    """The parts that all answers of one projection share. `pins` and `definitions`: canonical bytes."""

    pins: orjson.Fragment
    definitions: orjson.Fragment
    registry_digest: str
    run_config_digest: str


class AnswerForm:
    """The whole of an answer to one choice of groups. `keys`: by key type; `reach`: how far back any window goes."""

    def __init__(self, constants: AnswerConstants, groups: Sequence[CompiledGroup], keys: Mapping[str, KeyForm]) -> None:
        self.keys = keys
        self.reach = max(group.reach for group in groups)
        group_names = orjson.Fragment(
            canonical_bytes([{"group_name": group.name, "group_version": group.version} for group in groups])
        )
        self._hash_forms = {
            (with_graph, with_context): _hash_form(constants, group_names, with_graph, with_context)
            for with_graph in (False, True)
            for with_context in (False, True)
        }
        self._body = _body_form(constants, group_names)

    def hash_input(
        self,
        as_of: str,
        keys: str,
        freshness: str,
        graph: str | None,
        basis: str,
        context: str | None,
        values: str,
        warnings: str,
    ) -> str:
        """The canonical text that the snapshot hash is over; all parts are canonical texts. `graph`: None, it was not asked."""
        form = self._hash_forms[graph is not None, context is not None]
        if graph is None and context is None:
            return form % (as_of, keys, freshness, basis, values, warnings)
        optional = [text for text in (graph, basis, context) if text is not None]
        return form % (as_of, keys, freshness, *optional, values, warnings)

    def body(
        self,
        as_of: str,
        keys: str,
        freshness: str,
        graph: str | None,
        basis: str,
        context: str | None,
        values: str,
        warnings: str,
        *,
        digest: str,
        posture: str,
        request_id: str,
        extensions: str,
    ) -> str:
        """The canonical text of the response."""
        context_text = "null" if context is None else context
        graph_text = "null" if graph is None else graph
        provenance = (extensions, digest, freshness, graph_text, basis, posture, request_id, as_of, keys, context_text, warnings)
        return self._body % (*provenance, as_of, values, digest)


def _hash_form(constants: AnswerConstants, groups: orjson.Fragment, uses_graph: bool, uses_context: bool) -> str:
    names = ["as_of", "keys", "freshness", *(["graph"] if uses_graph else []), "basis"]
    names += [*(["context"] if uses_context else []), "values", "warnings"]
    return form(
        hashed_object(
            context_pins=constants.pins,
            as_of_time_utc=placeholder("as_of"),
            feature_keys=placeholder("keys"),
            feature_groups=groups,
            registry_digest=constants.registry_digest,
            run_config_digest=constants.run_config_digest,
            values=placeholder("values"),
            freshness=placeholder("freshness"),
            warnings=placeholder("warnings"),
            input_basis=placeholder("basis"),
            graph_version=placeholder("graph") if uses_graph else None,
            request_context=placeholder("context") if uses_context else None,
        ),
        *names,
    )


def _body_form(constants: AnswerConstants, groups: orjson.Fragment) -> str:
    return form(
        {
            "kind": "get_features_response",
            "contract_version": CONTRACT_VERSION,
            "snapshot": {
                "kind": "feature_snapshot",
                "contract_version": CONTRACT_VERSION,
                "context_pins": constants.pins,
                "as_of_time_utc": placeholder("as_of"),
                "feature_snapshot_hash": placeholder("digest"),
                "by_key": placeholder("values"),
            },
            "provenance": {
                "kind": "feature_provenance",
                "contract_version": CONTRACT_VERSION,
                "context_pins": constants.pins,
                "feature_snapshot_hash": placeholder("digest"),
                "requested": {
                    "as_of_time_utc": placeholder("as_of"),
                    "feature_keys": placeholder("keys"),
                    "feature_groups": groups,
                    "request_context": placeholder("context"),
                },
                "group_versions_used": groups,
                "freshness": placeholder("freshness"),
                "input_basis": placeholder("basis"),
                "graph_version": placeholder("graph"),
                "feature_definition_set": constants.definitions,
                "run_config_digest": constants.run_config_digest,
                "warnings": placeholder("warnings"),
                "posture": placeholder("posture"),
                "request_id": placeholder("request_id"),
                "extensions": placeholder("extensions"),
            },
        },
        *("extensions", "digest", "freshness", "graph", "basis", "posture", "request_id", "as_of", "keys", "context", "warnings"),
        *("as_of", "values", "digest"),
    )
