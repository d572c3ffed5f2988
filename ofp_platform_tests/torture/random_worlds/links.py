"""Links of a world: a context stream beside its log, folded a part at a time, and what the brute force makes of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.identity.entities import MOST_MEMBERS
from ofp_platform.identity.graph_projector import GraphProjector
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.serving.resolved_question import Graph
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.identity_link import graph_version_of
from ofp_platform_tests.oracle import fold, graph
from ofp_platform_tests.oracle.strategies import PINS, SECOND, SKEW, START
from ofp_platform_tests.torture.random_worlds.store import WorldStore
from ofp_platform_tests.torture.random_worlds.world import OTHER_RUN, World

_MOST_LINKS = 10
Key = tuple[str, str]
Told = tuple[list[str], list[dict[str, Any]]]


@dataclass(frozen=True)
class StatedLink:
    """A link as somebody stated it: of a run, some of them more than once."""

    link: graph.SaidLink
    pins: Mapping[str, Any]
    copies: int

    @property
    def envelope(self) -> dict[str, Any]:
        """The context event that states it."""
        return {
            "event_id": f"link-{self.link.identity.hex()}",
            "event_type": "identity_link" if self.link.is_link else "identity_unlink",
            "schema_version": "1",
            "ts_utc": fold.time_text(self.link.effective),
            **self.pins,
            "payload": {
                "key_type": self.link.key_type,
                "member": self.link.member,
                "canonical": self.link.canonical,
                "effective_time_utc": fold.time_text(self.link.effective),
            },
        }


def stated_links(world: World, key_types: Sequence[str]) -> list[StatedLink]:
    """Links of keys of these types in any order of their times, no two of one time: chains, circles, several canonicals."""
    rng = random.Random(f"links {world.seed}")
    made = []
    for number in range(rng.randint(0, _MOST_LINKS)):
        key_type = rng.choice(key_types)
        member, canonical = (f"{key_type[0]}-{place}" for place in rng.sample(range(4), 2))
        if made and rng.random() < 0.5:  # of two that something is said of already
            before = rng.choice(made).link
            key_type, member, canonical = before.key_type, before.member, before.canonical
        effective = START + rng.randrange(-1, rng.choice((3, 30, 100))) * world.unit + number
        link = graph.SaidLink(key_type, member, canonical, effective, rng.randbytes(4), rng.random() < 0.6)
        made.append(StatedLink(link, PINS if rng.random() < 0.9 else OTHER_RUN, rng.choice((1, 1, 2))))
    return made


class WorldGraph:
    """The identity graph of one projection of a world. `types`: the key types of which its pack resolves identities; none: it
    has no context stream, and nothing is resolved.
    """

    def __init__(self, store: WorldStore, world: World, number: int, content: Mapping[str, Any], counts: Counter[str]) -> None:
        view = world.views[number]
        self.resolving = {(one["name"], one["version"]) for one in content["groups"] if one.get("identity") == "resolved"}
        self.types = sorted({one["key_type"] for one in content["groups"] if (one["name"], one["version"]) in self.resolving})
        self.known: list[graph.SaidLink] = []
        self.reader_graph = Graph(None, MOST_MEMBERS)
        self._pins, self._counts = view.pins, counts
        self._left = stated_links(world, self.types) if self.types else []
        if self.types:
            self._log = PostgresLog.create(store.pool, f"{world.name}-{number}-context", 2, "event_id")
            self._projector = GraphProjector(store.pool, self._log, ContextPins(**view.pins), SKEW)
            self._projector.graph()
            self.reader_graph = Graph(self._log.stream_name, MOST_MEMBERS)

    def advance(self, rng: random.Random) -> None:
        """Append some of the links that are left, and fold them in commits of any size."""
        count = min(len(self._left), rng.choice((0, 1, 2, _MOST_LINKS)))
        stated, self._left = self._left[:count], self._left[count:]
        if not stated:
            return
        envelopes = [one.envelope for one in stated for _ in range(one.copies)]
        receipt = self._log.append(envelopes, lambda _: START + SECOND * 10**9)
        assert not receipt.refusals, receipt.refusals[0]
        while self._projector.apply_available(rng.choice((1, 2, 100))) is not None:
            self._counts["commits of links"] += 1
        own = [one.link for one in stated if one.pins == self._pins]
        self.known += own
        self._counts["links"] += len(own)

    def version(self, groups: Sequence[tuple[str, str]]) -> dict[str, Any] | None:
        """The version of the graph that a question of these groups is answered by, if it is asked."""
        if not self.resolving.intersection(groups):
            return None
        return graph_version_of(self._projector.graph().basis).model_dump(mode="json")

    def entities(self, keys: Sequence[Key], as_of: int) -> dict[Key, Told]:
        """Members and conflicts of keys, by the brute force."""
        told: dict[Key, Told] = {}
        for key in keys:
            if key[0] in self.types:
                _, members, conflicts = graph.entity(self.known, *key, as_of)
                told[key] = members, [{"kind": kind, "key_ids": list(ids)} for kind, ids in sorted(conflicts)]
                self._counts["entities of several keys"] += len(members) > 1
                self._counts["conflicts of links"] += bool(conflicts)
        return told

    def moments(self, groups: Sequence[tuple[str, str]]) -> list[int]:
        """The times at which something begins or ends to belong together, microseconds."""
        return [link.effective for link in self.known] if self.resolving.intersection(groups) else []

    def replay(self) -> ContextReplay | None:
        """All of the context stream, folded anew."""
        if not self.types:
            return None
        return ContextReplay.read(self._log, ContextPins(**self._pins), SKEW)
