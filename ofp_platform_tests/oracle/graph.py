"""Who belongs together, by brute force: every link of the whole graph is looked at, and nothing of it is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class SaidLink:
    """One link or unlink; `identity` orders those of one effective time."""

    key_type: str
    member: str
    canonical: str
    effective: int
    identity: bytes
    is_link: bool


def in_force(events: Iterable[SaidLink], key_type: str, time: int) -> set[tuple[str, str]]:
    """The pairs (member, canonical) that are linked at a time, whether they count or not."""
    pairs = {(event.member, event.canonical) for event in events if event.key_type == key_type}
    linked = set()
    for pair in pairs:
        about = [event for event in events if (event.member, event.canonical) == pair and event.key_type == key_type]
        early = sorted((event.effective, event.identity, event.is_link) for event in about if event.effective <= time)
        if early and early[-1][2]:
            linked.add(pair)
    return linked


def entity(
    events: Iterable[SaidLink], key_type: str, key_id: str, time: int
) -> tuple[str, list[str], set[tuple[str, tuple[str, ...]]]]:
    """The canonical id, the members and the conflicts that touch any of them: kind and ids."""
    linked = in_force(list(events), key_type, time)
    ids = {one for pair in linked for one in pair} | {key_id}
    claims = {one: sorted(canonical for member, canonical in linked if member == one) for one in ids}
    conflicts = {("several_canonicals", (one, *canonicals)) for one, canonicals in claims.items() if len(canonicals) > 1}
    counting = {one: canonicals[0] for one, canonicals in claims.items() if len(canonicals) == 1}
    circles = set()
    for start in counting:
        seen, at = [start], counting[start]
        while at in counting and at not in seen:
            seen.append(at)
            at = counting[at]
        if at == start:
            circles.add(tuple(sorted(seen)))
    on_circle = {one for circle in circles for one in circle}
    conflicts |= {("cycle", circle) for circle in circles}

    def root(one: str) -> str:
        while one in counting and one not in on_circle:
            one = counting[one]
        return one

    canonical = root(key_id)
    members = sorted(one for one in ids if root(one) == canonical)
    return canonical, members, {(kind, names) for kind, names in conflicts if set(names) & set(members)}
