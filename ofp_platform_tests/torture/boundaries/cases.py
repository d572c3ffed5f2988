"""Cases for the boundaries: the events of one key, at crowded times, and questions at the edges of their windows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import orjson

from ofp_platform.kernel.native import Int64Array
from ofp_platform.registry.routing import Router
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.fold import LIMIT
from ofp_platform_tests.oracle.strategies import PINS, SKEW, START
from ofp_platform_tests.torture.random_worlds.packs import WorldPack, pack_count, selections, world_pack
from ofp_platform_tests.torture.random_worlds.world import payload_of

KEY = "k"
LEVELS = 3
"""A key's events become known in so many steps; a question is asked at one of them."""
_MOMENTS = 16
_MOST_EVENTS = 16
Group = Mapping[str, Any]


@dataclass(frozen=True)
class Moment:
    """One question: as-of in microseconds, and how much is known: events of levels up to this one."""

    as_of: int
    level: int


@dataclass(frozen=True)
class Case:
    """One key under a pack. `events[i]` is known from `levels[i]` on; column i of `matrix` int64[C, n] is that event, by time
    and tie. `moments` ascend; `groups` are those of the key's type, as the oracle reads them."""

    seed: int
    pack: WorldPack
    key_type: str
    events: tuple[fold.Event, ...]
    levels: tuple[int, ...]
    matrix: Int64Array
    moments: tuple[Moment, ...]
    groups: tuple[Group, ...]
    context: Mapping[str, int | str]

    def known(self, level: int) -> list[fold.Event]:
        """The events that are known at a level."""
        return [event for event, own in zip(self.events, self.levels, strict=True) if own <= level]

    @cached_property
    def selected(self) -> list[list[tuple[Mapping[str, Any], list[tuple[int, int]]]]]:
        """Per group and window: its selection, and (time, level) of every event that it selects, by time."""
        return [
            [
                (part, [(e.ts, own) for e, own in zip(self.events, self.levels, strict=True) if fold._satisfies(e, part)])
                for part in selections(dict(group))
            ]
            for group in self.groups
        ]


def make_case(seed: int) -> Case:
    """The case of that seed."""
    rng = random.Random(f"boundaries {seed}")
    pack = world_pack(rng.randrange(pack_count()))
    key_type = rng.choice(sorted({group["key_type"] for group in pack.content["groups"]}))
    groups = tuple(group for group in pack.content["groups"] if group["key_type"] == key_type)
    unit = rng.choice([span for span in pack.spans if span >= 1_000])
    known = _events(rng, pack, key_type, unit)
    matrix, order = _matrix(pack, key_type, known)
    identities = list(known.events)
    events = tuple(known.events[identities[place]] for place in order)
    return Case(
        seed=seed,
        pack=pack,
        key_type=key_type,
        events=events,
        levels=tuple(rng.choice((0, 0, 1, 2)) for _ in events),
        matrix=matrix,
        moments=tuple(sorted(_moments(rng, groups, events, unit), key=lambda one: one.as_of)),
        groups=groups,
        context={
            name: rng.randrange(10**6) if kind == "integer" else f"{rng.randrange(10**6)}.25"
            for group in groups
            for name, kind in group["request"].items()
        },
    )


def _events(rng: random.Random, pack: WorldPack, key_type: str, unit: int) -> fold.Known:
    content = pack.content
    able = [name for name, one in content["events"].items() if key_type in one["keys"]]
    kinds = ("account", "card", "customer", "device", "merchant")
    keys = {kind: [KEY] if kind == key_type else ["other"] for kind in kinds}
    extreme = rng.random() < 0.05
    records = []
    for place in range(rng.randint(0, _MOST_EVENTS)):
        event_type = rng.choices(able, [4, *[1] * (len(able) - 1)])[0]
        payload = payload_of(rng, content, event_type, keys)
        if extreme:
            integers = [name for name, kind in content["events"][event_type]["fields"].items() if kind == "integer"]
            payload |= {name: rng.choice((LIMIT, -LIMIT, LIMIT - 1)) for name in integers if rng.random() < 0.5}
        ts = START + rng.randrange(7) * unit + rng.choice((-1, 0, 0, 0, 0, 1))
        envelope = {
            "event_id": f"e-{place}",
            "event_type": event_type,
            "schema_version": "1",
            "ts_utc": fold.time_text(ts),
            **PINS,
            "payload": payload,
        }
        records.append(fold.Record("0000", place, ts, envelope))
    return fold.known_events(records, {"0000": len(records)}, PINS, content, SKEW)


def _matrix(pack: WorldPack, key_type: str, known: fold.Known) -> tuple[Int64Array, list[int]]:
    """The key's event matrix by way of the router, sorted, and which event each column is."""
    layout = pack.registry.layouts[key_type]
    events = list(known.events.items())
    routed = Router(pack.registry).route(
        event_types=[event.event_type for _, event in events],
        event_ids=[identity[1] for identity, _ in events],
        schema_versions=["1"] * len(events),
        ts=np.array([event.ts for _, event in events], np.int64),
        payload_hashes=[identity[2] for identity, _ in events],
        payloads=[orjson.dumps(event.payload) for _, event in events],
        amends=[None] * len(events),
    )
    touched = routed.touched.get(key_type)
    if touched is None:
        return np.empty((layout.column_count, 0), np.int64), []
    ties = touched.matrix[2:4].view(np.uint64) if layout.ties else np.zeros((2, touched.matrix.shape[1]), np.uint64)
    order = np.lexsort((ties[1], ties[0], touched.matrix[0]))
    return np.ascontiguousarray(touched.matrix[:, order]), np.asarray(touched.record_index)[order].tolist()


def _moments(rng: random.Random, groups: Sequence[Group], events: Sequence[fold.Event], unit: int) -> list[Moment]:
    """Mostly where a window begins or ends at an event; some a microsecond beside, some anywhere."""
    spans = [
        span for group in groups for part in selections(dict(group)) for span in (part["delay"], part["delay"] + part["window"])
    ]
    found = []
    for _ in range(_MOMENTS):
        as_of = (rng.choice(events).ts if events else START) + rng.choice((0, *spans))
        kind = rng.random()
        as_of += 0 if kind < 0.55 else rng.choice((-1, 1)) if kind < 0.8 else rng.randrange(-3 * unit, 3 * unit)
        found.append(Moment(as_of, rng.randrange(LEVELS)))
    return found


def boundary_of(case: Case, group: int, moment: Moment) -> Counter[str]:
    """On what boundary a question to one group lies: each word 1 or 0.

    `left`: a selected event at exactly T - delay - window, `right`: at exactly T - delay; `beside`: one a microsecond beside
    either; `tie`: selected events of equal times inside a window; `decides`: of which a first or last must choose one.
    """
    found: Counter[str] = Counter()
    for part, times in case.selected[group]:
        high = moment.as_of - part["delay"]
        low = high - part["window"]
        inside: list[int] = []
        for ts, level in times:
            if level > moment.level:
                continue
            if ts == low:
                found["left"] = 1
            elif ts == high:
                found["right"] = 1
            elif ts in (low - 1, low + 1, high - 1, high + 1):
                found["beside"] = 1
            if low < ts <= high:
                inside.append(ts)
        if len(set(inside)) < len(inside):
            found["tie"] = 1
            if part["aggregation"] == "first" and inside.count(inside[0]) > 1:
                found["decides"] = 1
            if part["aggregation"] == "last" and inside.count(inside[-1]) > 1:
                found["decides"] = 1
    found["boundary"] = int(bool(found["left"] or found["right"] or found["tie"]))
    return found
