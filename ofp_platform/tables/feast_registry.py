"""Feast's definitions as a pack: the output of `feast registry-dump`, as far as it means something here, and why not elsewhere.

Features here are computed of events. So stream feature views with aggregations fit; a view of values that were computed elsewhere
does not, nor does code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ofp_platform.tables.table_file import TableFault
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json
from ofp_platform.vocabulary.model import IDENTIFIER_PATTERN

FUNCTIONS = {
    "count": "count",
    "sum": "sum",
    "avg": "mean",
    "mean": "mean",
    "min": "min",
    "max": "max",
    "first": "first",
    "last": "last",
    "count_distinct": "distinct_count",
    "countDistinct": "distinct_count",
    "nunique": "distinct_count",
}
"""Feast's names of functions (those of its engines among them) to aggregations here."""
_TYPES = {"INT32": "integer", "INT64": "integer", "STRING": "string", "BOOL": "boolean"}
_OF_NUMBERS = frozenset({"sum", "mean"})
_SECONDS = re.compile(r"([0-9]+)s", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}@[A-Za-z0-9][A-Za-z0-9.-]{0,62}", re.ASCII)
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_MOST_SECONDS = 3_660 * 86_400
_NO_ENTITY = "__dummy"
_MOST_TAGS = 32


@dataclass
class FeastPack:
    """The content of a pack, as its file has it, and notes: what was not taken over, or means something else here, and why."""

    pack: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def read_registry(text: bytes | str, file: str, key_types: Mapping[str, str] | None = None) -> FeastPack:
    """The pack of a registry dump. `key_types`: entity to key type, of those that are called otherwise.

    Raises:
        TableFault: it is no dump, or nothing of it fits; the text says what and why.
    """
    try:
        dump = read_json(text.encode() if isinstance(text, str) else text)
    except (NotJson, NotIJson) as error:
        raise TableFault(f"{file}: not JSON: {error}; `feast registry-dump > FILE` writes it") from None
    if not isinstance(dump, dict) or not isinstance(dump.get("project"), str):
        raise TableFault(f"{file}: no dump of a Feast registry: it has no project; `feast registry-dump > FILE` writes one")
    importer = _Importer(dump, dict(key_types or {}))
    try:
        feast_pack = importer.pack()
    except (AttributeError, KeyError, TypeError) as error:
        raise TableFault(f"{file}: no dump of a Feast registry as Feast 0.40 and later write it: {error!r}") from None
    if not feast_pack.pack["groups"]:
        notes = "".join(f"\n  {note}" for note in feast_pack.notes)
        raise TableFault(f"{file}: no view has aggregations over events that fit, so there is no feature to make:{notes}")
    return feast_pack


class _Importer:
    def __init__(self, dump: dict[str, Any], key_types: dict[str, str]) -> None:
        self._dump = dump
        self._key_types = key_types
        self._notes: list[str] = []
        self._join_keys: dict[str, str] = {}
        self._events: dict[str, dict[str, Any]] = {}

    def pack(self) -> FeastPack:
        self._entities()
        services = dict(self._services())
        groups = [group for spec in self._specs("streamFeatureViews") if (group := self._group(spec, services)) is not None]
        for spec in self._specs("featureViews"):
            self._note(
                f"feature view {spec['name']}",
                "its values are computed elsewhere and loaded; a feature here is computed of events: append those behind them",
            )
        for spec in self._specs("onDemandFeatureViews"):
            self._note(
                f"on demand feature view {spec['name']}", "it is code: write it as an expression, under on_demand of its group"
            )
        project = _name(self._dump["project"])
        pack = {
            "pack_id": project,
            "revision": 1,
            "description": f"Imported from the Feast project {self._dump['project']}.",
            "events": {name: event for name, event in self._events.items() if event["keys"]},
            "groups": groups,
        }
        return FeastPack(pack, self._notes)

    def _note(self, part: str, why: str) -> None:
        self._notes.append(f"{part}: {why}")

    def _specs(self, kind: str) -> Iterator[dict[str, Any]]:
        for part in self._dump.get(kind, []):
            yield part["spec"]

    def _entities(self) -> None:
        known_types = [key_type.value for key_type in KeyType]
        for spec in self._specs("entities"):
            name, join_key = spec["name"], spec.get("joinKey", spec["name"])
            if name == _NO_ENTITY:
                continue
            guesses = (self._key_types.get(name), name, join_key.removesuffix("_id"))
            key_type = next((guess for guess in guesses if guess in known_types), None)
            if key_type is None:
                self._note(f"entity {name}", f"no key type is called so; say which one it is, as in --key {name}=customer")
                continue
            self._join_keys[name] = join_key
            self._key_types[name] = key_type

    def _services(self) -> Iterator[tuple[str, list[str]]]:
        """View to the names of the services that read it, as tags."""
        readers: dict[str, list[str]] = {}
        for spec in self._specs("featureServices"):
            for projection in spec.get("features", []):
                readers.setdefault(projection["featureViewName"], []).append(f"service_{_name(spec['name'])}")
            self._note(
                f"feature service {spec['name']}",
                "a caller names its groups here; those that fit have its name as a tag"
                f" (ofp catalog list --tag service_{_name(spec['name'])})",
            )
        yield from readers.items()

    def _group(self, spec: dict[str, Any], services: Mapping[str, list[str]]) -> dict[str, Any] | None:
        part = f"stream feature view {spec['name']}"
        entities = spec.get("entities", [])
        if len(entities) != 1:
            self._note(part, f"it is of {len(entities)} entities; a group here is of one key")
            return None
        if entities[0] not in self._join_keys:
            self._note(part, f"its entity {entities[0]} has no key type (above)")
            return None
        if not spec.get("aggregations"):
            self._note(part, "it has no aggregations: its values are those of the last event; write features with first or last")
            return None
        source = spec["streamSource"]
        event_type = source["name"]
        if re.fullmatch(IDENTIFIER_PATTERN, event_type) is None:
            self._note(part, f"its source {event_type!r} is no name of an event type; call it otherwise")
            return None
        event = self._events.setdefault(event_type, {"keys": {}, "fields": {}})
        types = {column["name"]: column.get("valueType", "") for column in spec.get("features", [])}
        features = [
            feature
            for aggregation in spec["aggregations"]
            if (feature := self._feature(part, aggregation, event_type, types, event["fields"])) is not None
        ]
        if not features:
            self._note(part, "none of its aggregations fits")
            return None
        entity = entities[0]
        event["keys"][self._key_types[entity]] = self._join_keys[entity]
        if spec.get("featureTransformation") or spec.get("userDefinedFunction"):
            self._note(part, "it runs code on the stream: run that before the events are appended")
        return {
            "name": _name(spec["name"]),
            "version": "v1",
            **self._words(part, spec, services.get(spec["name"], [])),
            "key_type": self._key_types[entity],
            "ttl_seconds": self._ttl(part, spec, features),
            "features": features,
        }

    def _feature(
        self, part: str, aggregation: dict[str, Any], event_type: str, types: Mapping[str, str], fields: dict[str, str]
    ) -> dict[str, Any] | None:
        function, column = aggregation.get("function", ""), aggregation.get("column", "")
        part = f"{part}, {function} of {column}"
        ours = FUNCTIONS.get(function)
        if ours is None:
            self._note(part, f"there is no such aggregation here; there are {', '.join(sorted(set(FUNCTIONS)))}")
            return None
        seconds = _seconds(aggregation.get("timeWindow", ""))
        if seconds is None or not 0 < seconds <= _MOST_SECONDS:
            self._note(part, "its window is not a whole number of seconds up to 3,660 days; a window here is one")
            return None
        feature: dict[str, Any] = {
            "name": _name(aggregation.get("name") or f"{function}_{column}_{seconds}s"),
            "aggregation": ours,
        }
        feature |= {"events": [event_type], "window": _duration(seconds)}
        if ours == "count":
            self._note(part, "counts all events, whether or not they have the column")
            return feature
        kind = _TYPES.get(types.get(column, ""))
        if kind is None or (ours in _OF_NUMBERS and kind != "integer") or (ours == "distinct_count" and kind == "boolean"):
            type_name = types.get(column) or "not said"
            self._note(
                part,
                f"the column's type is {type_name}; {ours} needs {'integers' if ours in _OF_NUMBERS else 'one of ' + _types()}",
            )
            return None
        if fields.setdefault(column, kind) != kind:
            self._note(part, f"another view reads the column as {fields[column]}")
            return None
        if (slide := aggregation.get("slideInterval")) not in (None, aggregation.get("timeWindow")):
            self._note(part, f"slides with every event here, not every {slide}")
        return {**feature, "value": column}

    def _ttl(self, part: str, spec: dict[str, Any], features: list[dict[str, Any]]) -> int:
        ttl = _seconds(spec.get("ttl", ""))
        if ttl:
            return ttl
        self._note(part, "it has no ttl; its values count as stale after a day")
        return 86_400

    def _words(self, part: str, spec: dict[str, Any], services: list[str]) -> dict[str, Any]:
        words: dict[str, Any] = {}
        if spec.get("description"):
            words["description"] = spec["description"][:1000]
        if owner := spec.get("owner"):
            if _OWNER.fullmatch(owner):
                words["owner"] = owner
            else:
                self._note(part, "its owner is no address; write team:NAME")
        tags = [_name(f"{name}_{value}") for name, value in sorted(spec.get("tags", {}).items())]
        if tags or services:
            words["tags"] = sorted({*tags, *services})[:_MOST_TAGS]
        return words


def _types() -> str:
    return ", ".join(sorted(set(_TYPES.values())))


def _seconds(text: str) -> int | None:
    match = _SECONDS.fullmatch(text)
    return None if match is None else int(match[1])


def _duration(seconds: int) -> str:
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    return f"{seconds // size}{unit}"


def _name(text: str) -> str:
    """A name here, as like the text as one can be."""
    name = re.sub(r"[^a-z0-9_]", "_", text.lower()).lstrip("_0123456789")[:63]
    return name if _NAME.fullmatch(name) else "unnamed"
