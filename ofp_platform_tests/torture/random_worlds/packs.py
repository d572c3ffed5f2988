"""Packs to torture with: the oracle's own, the shipped ones, and generated ones that use all that a registry can say.

A pack is named by its number: the same number is the same pack, everywhere and for good, so that a seed reproduces a world.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from ofp_platform.registry.aggregations import RULES, Aggregation, Reads
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.models import Pack
from ofp_platform.registry.pack import SHIPPED_PACKS, load_pack, pack_content, shipped_pack
from ofp_platform_tests.oracle.strategies import PACK

ADDED_FIELD = "added"
"""The field that extended packs read and others do not know."""
GENERATED = 20
"""How many packs are generated besides the written ones."""

_EVENTS: dict[str, Any] = {
    "payment": {
        "keys": {"account": "account_id", "merchant": "merchant_id", "card": "card_id"},
        "fields": {"amount": "integer", "units": "integer", "status": "string", "shop": "string", "online": "boolean"},
    },
    "refund": {
        "class": "payment",
        "keys": {"account": "account_id", "merchant": "shop"},
        "fields": {"amount": "integer", "status": "string", "shop": "string"},
    },
    "report": {"keys": {"account": "account_id", "merchant": "merchant_id", "card": "card_id"}},
    "declared": {"keys": {"account": "account_id"}, "fields": {"amount": "integer"}},
}
_WORDS: dict[str, tuple[str | int | bool, ...]] = {
    "status": ("ok", "odd", "no"),
    "shop": ("x", "y", "z"),
    "online": (True, False),
    "units": (0, 1, 7),
    "amount": (0, 1, 7, -1),
}
_ZONES = ("UTC", "Europe/London", "America/St_Johns", "Pacific/Apia", "Africa/Cairo")
_UNITS = ("ms", "s", "m", "h", "d")
_SIMPLE = tuple(one.value for one in Aggregation if one is not Aggregation.RATIO)
_WITHOUT_VALUE = tuple(one.value for one in Aggregation if RULES[one].reads is Reads.NOTHING)
_OF_SOME_FIELD = tuple(one.value for one in Aggregation if {"condition", "category"} & set(RULES[one].takes))
_DECIMAL = tuple(one.value for one in Aggregation if RULES[one].decimal and one is not Aggregation.RATIO)
_OF_ANY_TYPE = tuple(one.value for one in Aggregation if RULES[one].reads is Reads.VALUE)
_LISTS = tuple(one.value for one in Aggregation if RULES[one].is_list)
_OF_NUMBERS = tuple(one for one in _SIMPLE if one not in _LISTS)
_NUMBERS = ("amount", "amount", "units")
_VALUES = (*_NUMBERS, "status", "shop", "online")
Part = dict[str, Any]


@dataclass(frozen=True)
class WorldPack:
    """One compiled pack with its canonical content, which is all that the oracle reads of it."""

    registry: CompiledRegistry
    content: dict[str, Any]

    @classmethod
    def of(cls, pack: Pack) -> WorldPack:
        """Compiled."""
        return cls(compile_pack(pack), pack_content(pack))

    @cached_property
    def fields(self) -> frozenset[str]:
        """Every field that it reads of any event type."""
        return frozenset(name for routing in self.content["events"].values() for name in routing["fields"])

    @cached_property
    def spans(self) -> tuple[int, ...]:
        """Every window and delay and their sums, ascending, microseconds: how far before an as-of something begins or ends."""
        found: set[int] = set()
        for group in self.content["groups"]:
            for part in selections(group):
                found |= {part["delay"], part["window"], part["delay"] + part["window"]}
        return tuple(sorted(found - {0}))


def selections(group: dict[str, Any]) -> list[dict[str, Any]]:
    """The windows of a group's canonical content: its features, of a ratio both sides."""
    sides = ("numerator", "denominator")
    ratio = Aggregation.RATIO.value
    return [part for one in group["features"] for part in ([one[s] for s in sides] if one["aggregation"] == ratio else [one])]


@cache
def world_pack(number: int) -> WorldPack:
    """The pack of that number, 0 to `pack_count` - 1: revision 1."""
    return WorldPack.of(_pack(number))


@cache
def revised_pack(number: int) -> WorldPack:
    """Revision 2 of the same pack: some groups as they were, of at least one another version with other windows."""
    return WorldPack.of(Pack.model_validate(_revised(number)))


@cache
def extended_pack(number: int) -> WorldPack:
    """The next revision of the same pack with its groups as they were, and one more, of a field that was not read before."""
    return WorldPack.of(Pack.model_validate(_extended(number)))


def pack_count() -> int:
    """How many packs there are."""
    return 1 + len(SHIPPED_PACKS) + GENERATED


@cache
def _pack(number: int) -> Pack:
    if number == 0:
        return load_pack(PACK)
    names = sorted(SHIPPED_PACKS)
    if number > len(names):
        return Pack.model_validate(_generated(number))
    # a database publishes a group version once, and the shipped packs have names in common: here all packs share one
    name = names[number - 1]
    pack = _written(shipped_pack(name))
    return Pack.model_validate({**pack, "groups": [{**group, "name": f"{name}_{group['name']}"} for group in pack["groups"]]})


def _written(pack: Pack) -> Part:
    """The pack as it would be written."""
    return pack.model_dump(mode="json", by_alias=True, exclude_none=True)


def _generated(number: int) -> Part:
    rng = random.Random(f"pack {number}")
    resolving = random.Random(f"identity {number}") if number % 2 == 0 else None
    unit = _UNITS[number % len(_UNITS)]
    groups = []
    for key_type in ("account", "merchant", "card")[: 2 + number % 2]:
        for version in range(1, 1 + rng.choice((1, 1, 2))):
            names = [f"f{place}" for place in range(rng.randint(2, 7))]
            features = [{"name": name, **_feature(rng, key_type, unit)} for name in names]
            group: Part = {
                # a group version means one thing for good: its name has the pack's number in it
                "name": f"{key_type}_{number}",
                "version": f"v{version}",
                "key_type": key_type,
                "ttl_seconds": rng.choice((1, 5, 3_600)),
                "features": features,
            }
            numbers = [one["name"] for one in features if one["aggregation"] not in _LISTS and not _has_field_type(one)]
            if numbers and rng.random() < 0.4:
                group["request"] = {"amount": "integer"}
                group["on_demand"] = [
                    {"name": "z", "expression": f"(request.amount - 1) / {rng.choice(numbers)} + 0.5", "scale": 4}
                ]
            if resolving is not None and resolving.random() < 0.6:
                group["identity"] = "resolved"
            groups.append(group)
    return {"pack_id": f"generated_{number}", "revision": 1, "events": _events(number), "groups": groups}


def _events(number: int) -> dict[str, Any]:
    """The event types of a generated pack; of two in three packs some of them may be amended."""
    rng = random.Random(f"amendments {number}")
    if number % 3 == 0:
        return _EVENTS
    events = {**_EVENTS, "reversal": {"keys": {"account": "account_id"}}}
    for name in rng.choice((("payment",), ("payment", "refund"), ("payment", "report"))):
        fields = sorted(_EVENTS[name].get("fields", {}))
        may_change = rng.sample(fields, rng.randint(0, len(fields))) if name != "refund" else ["amount"]
        may_change = [field for field in may_change if field not in _EVENTS[name]["keys"].values()]
        events[name] = {
            **_EVENTS[name],
            "amendments": {"by": [name, "reversal"] if name != "refund" else ["refund"], "may_change": may_change},
        }
    return events


def _feature(rng: random.Random, key_type: str, unit: str) -> Part:
    window, delay = {"window": _window(rng, unit)}, {"delay": _delay(rng, unit)} if rng.random() < 0.4 else {}
    if rng.random() < 0.2:
        sides = {side: _selection(rng, key_type, aggregations=_OF_NUMBERS) for side in ("numerator", "denominator")}
        for side in sides.values():
            side.pop("scale", None)  # a ratio is of operands that are not rounded
            side |= {"window": _window(rng, unit)} if rng.random() < 0.4 else {}
            side |= {"delay": _delay(rng, unit)} if rng.random() < 0.3 else {}
        return {"aggregation": "ratio", "scale": rng.randrange(13), **window, **delay, **sides}
    return {**_selection(rng, key_type, _VALUES), **window, **delay}


def _window(rng: random.Random, unit: str) -> str:
    if unit in ("h", "d") and rng.random() < 0.2:
        return f"{rng.choice(('day', 'day', 'month'))} in {rng.choice(_ZONES)}"
    return "1us" if rng.random() < 0.1 else f"{rng.choice((1, 2, 3, 7, 10))}{unit}"


def _delay(rng: random.Random, unit: str) -> str:
    return rng.choice(("1us", f"1{unit}", f"1{unit}", f"3{unit}"))


def _has_field_type(feature: Part) -> bool:
    """Whether the value is a text or a boolean, which no expression reads."""
    return feature["aggregation"] in _OF_ANY_TYPE and feature["value"] not in _NUMBERS


def _selection(
    rng: random.Random, key_type: str, own_values: Sequence[str] = _NUMBERS, aggregations: Sequence[str] = _SIMPLE
) -> Part:
    """One aggregation of some event types, its value and its conditions among the fields that all of them have."""
    aggregation = rng.choice(aggregations)
    routed = [name for name, one in _EVENTS.items() if key_type in one["keys"] and name != "declared"]
    values: Sequence[str] = ()
    if aggregation not in _WITHOUT_VALUE:
        values = ("amount", "units", "shop") if aggregation == "distinct_count" else _NUMBERS
        if aggregation in _OF_ANY_TYPE:
            values = own_values
    value = rng.choice(values) if values else None
    able = [name for name in routed if value is None or value in _EVENTS[name].get("fields", {})]
    if aggregation in _OF_SOME_FIELD:
        able = [name for name in able if _EVENTS[name].get("fields")]
    events = sorted(rng.sample(able, rng.randint(1, len(able))))
    made: Part = {"aggregation": aggregation, "events": events, **({"value": value} if value else {})}
    shared = sorted(set.intersection(*(set(_EVENTS[name].get("fields", {})) for name in events)))
    if shared and rng.random() < 0.4:
        conditions = rng.sample(shared, min(len(shared), rng.choice((1, 1, 2))))
        made["where"] = {name: rng.sample(_WORDS[name], rng.randint(1, len(_WORDS[name]) - 1)) for name in conditions}
    if "category" in RULES[Aggregation(aggregation)].takes:
        made |= {"category": rng.choice(shared), "k": rng.choice((1, 2, 3, 20))}
    if aggregation == "last_n":
        made["n"] = rng.choice((1, 2, 3, 20))
    if aggregation == "quantile":
        made["p"] = rng.choice(("0.000001", "0.25", "0.5", "0.99", "1"))
    if aggregation == "distinct_count" and rng.random() < 0.5:
        others = [name for name in ("amount", "shop", "status") if name in shared and name != value]
        made |= {"paired_with": rng.choice(others)} if others else {}
    if aggregation == "seconds_since_change":
        name = rng.choice(shared)
        made["condition"] = {name: rng.sample(_WORDS[name], rng.randint(1, len(_WORDS[name]) - 1))}
    if aggregation in _DECIMAL and rng.random() < 0.6:
        made["scale"] = rng.randrange(13)
    return made


def _extended(number: int) -> Part:
    pack = _written(_pack(number))
    pack["revision"] += 1
    of_groups = {part for group in world_pack(number).content["groups"] for one in selections(group) for part in one["events"]}
    event_type = sorted(of_groups)[0]
    routing = pack["events"][event_type]
    routing["fields"] = {**routing.get("fields", {}), ADDED_FIELD: "integer"}
    key_type = sorted(routing["keys"])[0]
    windows = sorted({feature["window"] for group in pack["groups"] for feature in group["features"] if "window" in feature})
    feature = {"name": "total", "aggregation": "sum", "events": [event_type], "value": ADDED_FIELD, "window": windows[0]}
    name = f"added_{number}"
    group = {"name": name, "version": "v1", "key_type": key_type, "ttl_seconds": 5, "features": [feature]}
    pack["groups"].append(group)
    return pack


def _revised(number: int) -> Part:
    rng = random.Random(f"revision {number}")
    pack = _written(_pack(number))
    pack["revision"] += 1
    taken = {(group["name"], group["version"]) for group in pack["groups"]}
    chosen = rng.sample(range(len(pack["groups"])), rng.randint(1, len(pack["groups"])))
    for place in chosen:
        group = pack["groups"][place]
        later = next(version for version in (f"v{count}" for count in range(2, 100)) if (group["name"], version) not in taken)
        taken.add((group["name"], later))
        changed = rng.choice(group["features"])
        windows = sorted({one["window"] for one in group["features"] if "window" in one})
        changed["window"] = rng.choice([one for one in (*windows, "1us", "2s") if one != changed.get("window")])
        pack["groups"][place] = {**group, "version": later}
    return pack
