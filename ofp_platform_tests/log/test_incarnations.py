"""Incarnations: which record a place has, in any number of histories, against a naive one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.log.incarnations import ONE_HISTORY, IncarnationStart, LogHistory
from ofp_platform.vocabulary.position import DENSE, Position, place

STEPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), max_size=5)


def name(number: int) -> str | None:
    return f"{number:012x}" if number else None


@given(STEPS)
def test_a_place_has_the_incarnation_of_the_record_that_stands_there(steps: list[tuple[int, int]]) -> None:
    """Each step appends some records, loses some of the newest, and begins another incarnation."""
    records: list[str | None] = []
    everything: set[tuple[int, str | None]] = set()
    later: list[IncarnationStart] = []
    for number, (appended, lost) in enumerate(steps):
        records += [name(number)] * appended
        everything |= set(enumerate(records))
        records = records[: max(len(records) - lost, 0)]
        later.append(IncarnationStart(str(name(number + 1)), {"0000": len(records)}))
    records += [name(len(steps))] * 3
    history = LogHistory(tuple(later))
    assert history.current == name(len(steps))
    for offset, incarnation in everything | set(enumerate(records)):
        position = Position(stream_name="s", partition_id="0000", offset=offset, incarnation=incarnation)
        assert history.has_lost(position) is (records[offset : offset + 1] != [incarnation])
    for offset in range(len(records) + 1):
        part = history.with_incarnation(DENSE.basis("0000", offset))
        assert part.incarnation == (records[offset - 1] if offset else None)
        assert history.is_of(part)
        assert place(part) == offset - 1
        following = history.next_start("0000", offset)
        inside = records[offset : len(records) if following is None else following]
        assert len(set(inside)) <= 1


def test_a_log_of_one_history_names_nothing() -> None:
    part = DENSE.basis("0000", 3)
    assert ONE_HISTORY.with_incarnation(part) is part
    assert ONE_HISTORY.next_start("0000", 0) is None
    assert not ONE_HISTORY.is_of(part.model_copy(update={"incarnation": name(1)}))
    assert ONE_HISTORY.has_lost(Position(stream_name="s", partition_id="0000", offset=0, incarnation=name(1)))
