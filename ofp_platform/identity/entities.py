"""Who belongs together at a time: the entity of an id, from links that count. Pure.

A link of a member to a canonical entity is in force at T if the greatest (effective time, identity) among the events about the
two, with effective times up to T, is a link. A member with links in force to several canonicals has none that counts, nor have
the members of a circle any that is part of it: both are conflicts. So each id has at most one link that counts, and following
these ends at the canonical id. All ids with one canonical id are one entity, whichever of them is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ofp_platform.vocabulary.serving import IdentityConflict

MOST_MEMBERS = 1_000
"""The most members of one entity: each of them is read where a resolved group is asked for."""


class LinkEvent(NamedTuple):
    """One link or unlink, times in microseconds; `identity`: SHA-256 over (event class, id, payload hash)."""

    key_type: str
    member: str
    canonical: str
    effective_ts: int
    identity: bytes
    is_link: bool


class LinkSource(Protocol):
    """Where the links of a version of the graph are read from."""

    def about(self, key_type: str, key_ids: Iterable[str]) -> Iterable[LinkEvent]:
        """The events in which any of these ids is the member or the canonical."""


class TooManyMembers(Exception):
    """An entity with more members than are read for a value."""


@dataclass(frozen=True)
class Entity:
    """`members`: sorted, the canonical id among them; `conflicts`: of links of any of these, in a fixed order."""

    canonical: str
    members: tuple[str, ...]
    conflicts: tuple[IdentityConflict, ...]


class _Links:
    """Canonicals and members of ids, by links in force at a time; read from the source as they are needed."""

    def __init__(self, source: LinkSource, key_type: str, time: int) -> None:
        self._source = source
        self._key_type = key_type
        self._time = time
        self._canonicals: dict[str, list[str]] = {}
        self._members: dict[str, list[str]] = {}

    def know(self, key_ids: Iterable[str]) -> None:
        """Read what is not known about these ids."""
        new_ids = sorted(set(key_ids) - self._canonicals.keys())
        if not new_ids:
            return
        links = links_in_force(self._source.about(self._key_type, new_ids), self._time)
        linked_pairs = [(link.member, link.canonical) for link in links]
        for key_id in new_ids:
            self._canonicals[key_id] = [canonical for member, canonical in linked_pairs if member == key_id]
            self._members[key_id] = [member for member, canonical in linked_pairs if canonical == key_id]

    def canonicals(self, key_id: str) -> list[str]:
        """The ids that the id is linked to."""
        self.know([key_id])
        return self._canonicals[key_id]

    def members(self, key_id: str) -> list[str]:
        """The ids that are linked to the id."""
        self.know([key_id])
        return self._members[key_id]


def _rank(event: LinkEvent) -> tuple[int, bytes]:
    return event.effective_ts, event.identity


def links_in_force(events: Iterable[LinkEvent], time: int) -> list[LinkEvent]:
    """The links of one key type in force at a time (microseconds), by member and canonical, whether they count or not."""
    newest: dict[tuple[str, str], LinkEvent] = {}
    for event in events:
        pair = event.member, event.canonical
        if event.effective_ts <= time and (pair not in newest or _rank(event) > _rank(newest[pair])):
            newest[pair] = event
    return [event for _, event in sorted(newest.items()) if event.is_link]


def entity_of(source: LinkSource, key_type: str, key_id: str, time: int, most: int = MOST_MEMBERS) -> Entity:
    """The entity that an id belongs to at a time (microseconds), by the links of one version of the graph.

    Raises:
        TooManyMembers: it has more than `most`, or the way to its canonical id is longer.
    """
    links = _Links(source, key_type, time)
    conflicts: dict[tuple[str, ...], IdentityConflict] = {}
    circle: frozenset[str] = frozenset()
    way = [key_id]
    while canonicals := links.canonicals(way[-1]):
        if len(canonicals) > 1:
            _note_claims(conflicts, way[-1], canonicals)
            break
        if canonicals[0] in way:
            circle = frozenset(way[way.index(canonicals[0]) :])
            _note(conflicts, IdentityConflict(kind="cycle", key_ids=tuple(sorted(circle))))
            way.append(canonicals[0])
            break
        if len(way) > most:
            raise TooManyMembers(_too_many(key_type, key_id, most))
        way.append(canonicals[0])
    root = way[-1]
    members, frontier = {root}, [root]
    while frontier:
        below = sorted({member for canonical in frontier for member in links.members(canonical)} - members)
        links.know(below)
        frontier = []
        for member in below:
            canonicals = links.canonicals(member)
            if len(canonicals) > 1:
                _note_claims(conflicts, member, canonicals)
            elif member not in circle:  # of a circle no link counts
                frontier.append(member)
        members.update(frontier)
        if len(members) > most:
            raise TooManyMembers(_too_many(key_type, key_id, most))
    return Entity(root, tuple(sorted(members)), tuple(conflicts[ids] for ids in sorted(conflicts)))


def _note_claims(conflicts: dict[tuple[str, ...], IdentityConflict], member: str, canonicals: Iterable[str]) -> None:
    _note(conflicts, IdentityConflict(kind="several_canonicals", key_ids=(member, *sorted(canonicals))))


def _note(conflicts: dict[tuple[str, ...], IdentityConflict], conflict: IdentityConflict) -> None:
    conflicts[conflict.kind, *conflict.key_ids] = conflict


def _too_many(key_type: str, key_id: str, most: int) -> str:
    return f"the entity of {key_type} {key_id} has more than {most:,} members"


class LinkSet:
    """Links in memory, as a source."""

    def __init__(self, events: Iterable[LinkEvent]) -> None:
        self._about: dict[tuple[str, str], list[LinkEvent]] = {}
        for event in events:
            for key_id in {event.member, event.canonical}:
                self._about.setdefault((event.key_type, key_id), []).append(event)

    def about(self, key_type: str, key_ids: Iterable[str]) -> Iterable[LinkEvent]:
        """See `LinkSource`; one about two of the ids comes twice."""
        return [event for key_id in key_ids for event in self._about.get((key_type, key_id), ())]


def entities_of(
    source: LinkSource, keys: Iterable[tuple[str, str]], time: int, most: int = MOST_MEMBERS
) -> Mapping[tuple[str, str], Entity]:
    """The entity of each key (key type, key id)."""
    return {key: entity_of(source, *key, time, most) for key in keys}
