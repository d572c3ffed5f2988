"""A world: a log that a seed makes, with everything in it that may go wrong, and what is done with it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ofp_platform_tests.oracle.fold import LIMIT, Record, micros, time_text
from ofp_platform_tests.oracle.strategies import PINS, SECOND, SKEW, START
from ofp_platform_tests.torture.random_worlds.log import Shard
from ofp_platform_tests.torture.random_worlds.packs import (
    ADDED_FIELD,
    WorldPack,
    extended_pack,
    pack_count,
    revised_pack,
    world_pack,
)

OTHER_RUN: dict[str, Any] = {**PINS, "run_id": "run-2", "seed": 7}
WRONG_PINS: dict[str, Any] = {**PINS, "parameter_hash": "c" * 64}
"""The first run's id under other parameters: none of its records is an event of either run."""

_DAY = 86_400 * SECOND
_NUMBERS = (0, 1, 7, -1, 100, 12_345)
_ODD_VALUES: tuple[Any, ...] = (None, 1.5, "7", True, [], LIMIT)
Envelope = dict[str, Any]


@dataclass(frozen=True)
class View:
    """One projection of a world: a run under a pack. `revised`: another pack takes over from the first one, mid-way."""

    pins: Mapping[str, Any]
    pack: WorldPack
    revised: bool = False


@dataclass(frozen=True)
class World:
    """One world. `records` stand in the order of admission, offsets dense in each partition; `tokens` has a shard's sparse ones.

    `dense`: the log is a table of PostgreSQL, else shards that split and merge. `unit`: microseconds; the times of its events
    meet at multiples of it. `lateness`: allowed, microseconds. `chunk_events`, `span_chunks`, `tail_bytes`: how the
    state is cut; `known_events`: how many a projector keeps in memory; `pruning_step`: chunks and tails that a commit looks at
    for pruning.
    """

    seed: int
    dense: bool
    shards: tuple[Shard, ...]
    tokens: Mapping[str, Sequence[str]]
    records: tuple[Record, ...]
    views: tuple[View, ...]
    unit: int
    lateness: int
    chunk_events: int
    span_chunks: int
    known_events: int
    pruning_step: int
    tail_bytes: int
    resharded: int

    @property
    def name(self) -> str:
        """Its stream."""
        return f"world-{self.seed}"


def make_world(seed: int) -> World:
    """The world of that seed; the same for good as long as this code and the packs stay."""
    rng = random.Random(seed)
    number = rng.randrange(pack_count())
    pack = world_pack(number)
    unit = rng.choice([span for span in pack.spans if span >= 1_000])
    dense = rng.random() < 0.5
    envelopes = _envelopes(rng, pack, unit, rng.choice((5, 5, 6, 6, 8, 8, 10, 10, 12, 16, 24, 60)))
    extends = rng.random() < 0.06
    if extends:
        half = rng.randrange(len(envelopes) + 1)
        envelopes = [*envelopes[:half], *(_with_added_field(rng, envelope) for envelope in envelopes[half:])]
    shards, tokens, records, resharded = _laid_out(rng, dense, envelopes)
    views = [View(PINS, pack)]
    if extends:
        views.append(View(PINS, extended_pack(number), revised=True))
    elif rng.random() < 0.08:
        views.append(View(PINS, revised_pack(number), revised=True))
    if rng.random() < 0.12:
        views.append(View(OTHER_RUN, pack))
    return World(
        seed=seed,
        dense=dense,
        shards=shards,
        tokens=tokens,
        records=records,
        views=tuple(views),
        unit=unit,
        lateness=rng.choice((0, 7 * SECOND, pack.spans[len(pack.spans) // 2])),
        chunk_events=rng.choice((1, 2, 3, 5, 256)),
        span_chunks=rng.choice((1, 2, 3, 32)),
        known_events=rng.choice((1, 4, 20, 1_000)),
        pruning_step=rng.choice((1, 3, 256)),
        tail_bytes=rng.choice((0, 80, 200, 640)),
        resharded=resharded,
    )


def payload_of(rng: random.Random, content: Mapping[str, Any], event_type: str, keys: Mapping[str, Sequence[str]]) -> Envelope:
    """A payload that the pack can use; values that conditions name come up often."""
    routing = content["events"][event_type]
    payload: Envelope = {}
    for name, kind in routing["fields"].items():
        if kind == "integer":
            payload[name] = rng.choice(_NUMBERS) if rng.random() < 0.8 else rng.randint(-(10**6), 10**12)
        elif kind == "boolean":
            payload[name] = rng.random() < 0.5
        else:
            payload[name] = rng.choice(("ok", "odd", "no", "declined", "x", "y", "z"))
    for key_type, name in routing["keys"].items():
        payload[name] = rng.choice(keys[key_type])
    return payload


def _envelopes(rng: random.Random, pack: WorldPack, unit: int, count: int) -> list[Envelope]:
    """The log's envelopes in the order of their admission: copies, conflicts, disorder, other runs, what cannot be applied."""
    few = rng.random() < 0.5
    kinds = ("account", "card", "customer", "device", "merchant")
    keys = {kind: [f"{kind[0]}-{place}" for place in range(1 if few else 3)] for kind in kinds}
    ids = rng.choice((count, 2 * count, 1_000_000))
    length = rng.choice((3, 12, 30, 100))
    types = list(pack.content["events"])
    weights = [6, *[2] * (len(types) - 1)]
    made: list[Envelope] = []
    amendable = {name for name, one in pack.content["events"].items() if "amendments" in one}
    share = rng.choice((0.2, 0.5, 0.8)) if amendable else 0.0
    target: Envelope | None = None
    for _ in range(count):
        kind = rng.random()
        if made and kind < 0.12:
            made.append(rng.choice(made))  # a producer's retry
            continue
        if made and kind < 0.18:
            before = rng.choice(made)
            made.append({**before, "payload": {**before["payload"], "units": rng.randrange(100, 10**6)}})  # the same id, changed
            continue
        if rng.random() < share:
            able = [one for one in made if one["event_type"] in amendable and "amends" not in one]
            if made:
                if target is None or rng.random() < 0.5:
                    target = rng.choice(able if able and rng.random() < 0.9 else made)
                made.append(_amendment(rng, pack, target, rng.randrange(ids), unit, keys))
                continue
        event_type = rng.choices(types, weights)[0] if rng.random() < 0.95 else "unknown"
        payload = payload_of(rng, pack.content, event_type if event_type != "unknown" else types[0], keys)
        if payload and rng.random() < 0.06:
            _spoil(rng, payload)
        run = rng.random()
        jitter = rng.choice((-1, 0, 0, 0, 0, 1)) if rng.random() < 0.8 else rng.randrange(unit)
        ts = START + rng.randrange(length) * unit + jitter
        if made and rng.random() < 0.15:
            ts = micros(rng.choice(made)["ts_utc"])  # a tie
        made.append(
            {
                "event_id": f"e-{rng.randrange(ids)}",
                "event_type": event_type,
                "schema_version": "1",
                "ts_utc": time_text(ts),
                **(PINS if run < 0.8 else OTHER_RUN if run < 0.95 else WRONG_PINS),
                "payload": payload,
            }
        )
    if rng.random() < 0.3:
        made.sort(key=lambda one: micros(one["ts_utc"]) + rng.randrange(3 * unit))
    return made


def _amendment(
    rng: random.Random, pack: WorldPack, target: Envelope, number: int, unit: int, keys: Mapping[str, Sequence[str]]
) -> Envelope:
    """An amendment of an event, or of an amendment: mostly as the pack allows it, at any time, with all that it may get wrong."""
    content, event_type = pack.content["events"], target["event_type"]
    routing = content.get(event_type, {})
    rule = routing.get("amendments", {"by": list(content), "may_change": []})
    payload = dict(target["payload"])
    if event_type in content:
        other = payload_of(rng, pack.content, event_type, keys)
        changed = rule["may_change"] if rng.random() < 0.6 else list(other)
        payload |= {name: other[name] for name in changed if name in payload and rng.random() < 0.7}
    if payload and rng.random() < 0.06:
        _spoil(rng, payload)
    ts = micros(target["ts_utc"])
    return {
        **target,
        "event_id": f"a-{number}",
        "event_type": rng.choice(rule["by"]) if rng.random() < 0.95 else rng.choice(list(content)),
        "ts_utc": time_text(ts + rng.choice((0, 0, 1, 1, 2, 5)) * unit + rng.choice((-1, 0, 0, 1))),
        "amends": {
            "event_class": routing.get("class", event_type),
            "event_id": target["event_id"],
            "kind": rng.choice(("void", "replace", "replace")),
            "ts_utc": time_text(ts if rng.random() < 0.95 else ts + 1),
        },
        "payload": payload,
    }


def _with_added_field(rng: random.Random, envelope: Envelope) -> Envelope:
    """An envelope of a producer that knows the field which the extended pack reads; its values may be wrong as others are."""
    value = rng.choice(_NUMBERS) if rng.random() < 0.9 else rng.choice(_ODD_VALUES)
    return {**envelope, "payload": {**envelope["payload"], ADDED_FIELD: value}}


def _spoil(rng: random.Random, payload: Envelope) -> None:
    name = rng.choice(sorted(payload))
    if rng.random() < 0.4:
        del payload[name]
    else:
        payload[name] = rng.choice(_ODD_VALUES)


def _laid_out(
    rng: random.Random, dense: bool, envelopes: Sequence[Envelope]
) -> tuple[tuple[Shard, ...], dict[str, list[str]], tuple[Record, ...], int]:
    """Put envelopes into partitions, at times of admission that some of them are too far ahead of."""
    alive = [f"{place:04d}" if dense else f"shardId-{place:012d}" for place in range(rng.randint(1, 3))]
    shards = {name: Shard(name, (), False) for name in alive}
    reshards = 0 if dense else rng.choice((0, 1, 1, 2, 3))
    moments = sorted(rng.randrange(len(envelopes) + 1) for _ in range(reshards))
    step = rng.choice((1, 1_000_003, 10**19))
    tokens: dict[str, list[str]] = {name: [] for name in alive}
    records = []
    for place, envelope in enumerate(envelopes):
        while moments and moments[0] <= place:
            moments.pop(0)
            alive = _reshard(rng, shards, tokens, alive)
        name = rng.choice(alive)
        records.append(Record(name, len(tokens[name]), _admitted(rng, micros(envelope["ts_utc"])), envelope))
        tokens[name].append(str(9 + place * step + rng.randrange(step)))
    for _ in moments:
        alive = _reshard(rng, shards, tokens, alive)
    return tuple(shards.values()), tokens, tuple(records), reshards


def _reshard(rng: random.Random, shards: dict[str, Shard], tokens: dict[str, list[str]], alive: Sequence[str]) -> list[str]:
    """Split a shard into two, or merge two into one. The shards that are open after it."""
    parents = rng.sample(list(alive), 2 if len(alive) > 1 and rng.random() < 0.4 else 1)
    for name in parents:
        shards[name] = replace(shards[name], ended=True)
    born = [f"shardId-{len(shards) + place:012d}" for place in range(1 if len(parents) > 1 else 2)]
    for name in born:
        shards[name] = Shard(name, tuple(sorted(parents)), False)
        tokens[name] = []
    return [*(name for name in alive if name not in parents), *born]


def _admitted(rng: random.Random, ts: int) -> int:
    """A time of admission: mostly long after the event, sometimes as far before it as is allowed, or a microsecond further."""
    if rng.random() < 0.9:
        return ts + rng.randrange(_DAY)
    return ts - SKEW - rng.choice((0, 0, 1, SECOND))


def occurred(world: World) -> Counter[str]:
    """What is in a world, counted from its records alone (copies and conflicts are for the oracle to count).

    `disorder`: an event older than one of its run before it in the log; `future`: ahead of its admission by more than the
    skew; `runs`: that have records; `registry changes`; `reshards`.
    """
    found: Counter[str] = Counter(records=len(world.records), reshards=world.resharded)
    found["runs"] = len({(one.envelope["run_id"], one.envelope["parameter_hash"]) for one in world.records})
    found["registry changes"] = sum(view.revised for view in world.views)
    found["added groups"] = sum(view.revised and ADDED_FIELD in view.pack.fields for view in world.views)
    newest: dict[str, int] = {}
    for record in world.records:
        run, ts = record.envelope["run_id"], micros(record.envelope["ts_utc"])
        found["disorder"] += ts < newest.get(run, ts)
        newest[run] = max(ts, newest.get(run, ts))
        found["future"] += ts > record.admitted_at + SKEW
    return found
