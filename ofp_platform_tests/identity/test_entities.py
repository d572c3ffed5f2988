"""Entities: those of the brute force, whichever member is asked, in whatever order the links are known."""

from __future__ import annotations

import random
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.identity.entities import Entity, LinkEvent, LinkSet, TooManyMembers, entities_of, entity_of
from ofp_platform_tests.oracle import graph

IDS = tuple("abcdefg")


@st.composite
def links(draw: st.DrawFn, most: int = 14) -> list[graph.SaidLink]:
    """Links and unlinks among few ids of two types, at few times: chains, circles, claims, ties."""
    made = []
    for number in range(draw(st.integers(0, most))):
        member, canonical = draw(st.lists(st.sampled_from(IDS), min_size=2, max_size=2, unique=True))
        key_type = draw(st.sampled_from(("account", "account", "account", "device")))
        identity = bytes([draw(st.integers(0, 3)), number])
        made.append(
            graph.SaidLink(
                key_type, member, canonical, draw(st.integers(0, 5)), identity, draw(st.sampled_from((True, True, False)))
            )
        )
    return made


def source(events: list[graph.SaidLink]) -> LinkSet:
    return LinkSet([LinkEvent(e.key_type, e.member, e.canonical, e.effective, e.identity, e.is_link) for e in events])


def facts(entity: Entity) -> tuple[str, list[str], set[tuple[str, tuple[str, ...]]]]:
    assert len(set(entity.conflicts)) == len(entity.conflicts)
    return entity.canonical, list(entity.members), {(one.kind, one.key_ids) for one in entity.conflicts}


@given(links(), st.integers(-1, 6), st.randoms(use_true_random=False))
def test_they_are_those_of_the_brute_force(events: list[graph.SaidLink], time: int, numbers: random.Random) -> None:
    for key_id in IDS:
        expected = graph.entity(events, "account", key_id, time)
        assert facts(entity_of(source(events), "account", key_id, time)) == expected
        shuffled = [*events, *events[: len(events) // 2]]  # copies, too
        numbers.shuffle(shuffled)
        entity = entity_of(source(shuffled), "account", key_id, time)
        assert facts(entity) == expected
        for member in entity.members:
            assert entity_of(source(events), "account", member, time) == entity


def said(*pairs: str, at: int = 0) -> list[graph.SaidLink]:
    """`b>a`: b is linked to a; `b/a`: it is not any more."""
    numbers = count()
    return [graph.SaidLink("account", pair[0], pair[2], at, bytes([next(numbers)]), pair[1] == ">") for pair in pairs]


@pytest.mark.parametrize(
    ("pairs", "asked", "members", "conflicts"),
    [
        ((), "a", "a", []),
        (("b>a",), "a", "ab", []),
        (("b>a", "c>b"), "c", "abc", []),
        (("b>a", "b/a"), "a", "a", []),
        (("b/a",), "a", "a", []),
        (("b/a", "b>a"), "a", "ab", []),
        (("b>a", "b>c"), "b", "b", [("several_canonicals", ("b", "a", "c"))]),
        (("b>a", "b>c", "d>b"), "a", "a", [("several_canonicals", ("b", "a", "c"))]),
        (("b>a", "b>c", "d>b"), "d", "bd", [("several_canonicals", ("b", "a", "c"))]),
        (("b>a", "b>c", "b/c"), "a", "ab", []),
        (("a>b", "b>a", "c>a"), "c", "ac", [("cycle", ("a", "b"))]),
        (("a>b", "b>c", "c>a", "d>b"), "b", "bd", [("cycle", ("a", "b", "c"))]),
    ],
)
def test_examples(pairs: tuple[str, ...], asked: str, members: str, conflicts: list[tuple[str, tuple[str, ...]]]) -> None:
    entity = entity_of(source(said(*pairs)), "account", asked, 0)
    assert (list(entity.members), [(one.kind, one.key_ids) for one in entity.conflicts]) == (list(members), conflicts)


def test_a_link_counts_from_its_effective_time_on() -> None:
    events = [*said("b>a", at=5), *said("b/a", at=8), *said("b>a", at=8)]
    assert [len(entity_of(source(events), "account", "a", time).members) for time in (4, 5, 7, 9)] == [1, 2, 2, 1]
    assert entities_of(source(events), [("account", "b"), ("device", "b")], 5)["device", "b"].members == ("b",)


def test_too_many_members_are_refused_by_name() -> None:
    fan = source([graph.SaidLink("account", f"m{number}", "a", 0, bytes([number]), True) for number in range(10)])
    assert len(entity_of(fan, "account", "m3", 0, most=11).members) == 11
    with pytest.raises(TooManyMembers, match="the entity of account m3 has more than 10 members"):
        entity_of(fan, "account", "m3", 0, most=10)
    chain = source([graph.SaidLink("account", f"m{number}", f"m{number + 1}", 0, bytes([number]), True) for number in range(40)])
    with pytest.raises(TooManyMembers):
        entity_of(chain, "account", "m0", 0, most=10)
