"""The queue of cases is what their entries say, whatever was appended how, and reads as much of closed cases as of none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofp_platform.storage.case_entries import (
    OfferedEntry,
    append_entries,
    count_cases,
    queue,
    read_timelines,
    straying_cases,
)
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.case import (
    CaseContent,
    CaseEvent,
    CaseTrigger,
    Closed,
    Note,
    Reopened,
    StatedEvidence,
    Triggered,
)
from ofp_platform.vocabulary.loop.case_standing import CaseState, standing_of
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.cases.conftest import SECOND, START, new_run
from ofp_platform_tests.oracle.rows_read import analyse, rows_read

TABLES = ("case_entry", "case_standing")
CONTENTS: dict[str, CaseContent] = {
    "manual": Triggered(trigger=CaseTrigger.MANUAL_ASSERTION, evidence=StatedEvidence(reason="a call")),
    "external": Triggered(trigger=CaseTrigger.EXTERNAL_SIGNAL, evidence=StatedEvidence(reason="reported lost")),
    "note": Note(text="looked at"),
    "close": Closed(reason="done"),
    "reopen": Reopened(reason="again"),
}
STEPS = st.lists(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(sorted(CONTENTS)), st.integers(0, 2)), min_size=1, max_size=8),
    max_size=6,
)


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn, max_size=1) as opened:
        yield opened


def offered(case: int, content: str, reference: int, at: int) -> OfferedEntry:
    event = CaseEvent(event_class="card_payment", event_id=f"payment-{case}")
    return OfferedEntry(event, f"{content}-{reference}", START + at * SECOND, "ann", CONTENTS[content])


def append(pool: Pool, pins: ContextPins, entries: list[OfferedEntry]) -> list[str]:
    """The ids of the cases."""
    with pool.connection() as connection, connection.transaction():
        return [appended.case_id for appended in append_entries(connection, pins, entries)]


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_the_queue_is_what_the_entries_say(pool: Pool, steps: list[list[tuple[int, str, int]]]) -> None:
    pins, ids = new_run(), set[str]()
    for at, step in enumerate(steps):
        ids |= set(append(pool, pins, [offered(*entry, at) for entry in step]))
        with pool.connection() as connection:
            standings = {one.case_id: standing_of(one.entries) for one in read_timelines(connection, pins, sorted(ids))}
            for state in CaseState:
                expected = sorted(
                    (one.priority, parse_time(one.opened_at_utc), name) for name, one in standings.items() if one.state is state
                )
                assert queue(connection, pins, state, 100) == expected
                assert count_cases(connection, pins).get(state, 0) == len(expected)
            assert straying_cases(connection, pins) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ofp.case_standing SET state = 'CLOSED' WHERE case_id = %s",
        "UPDATE ofp.case_standing SET sequence = sequence + 1 WHERE case_id = %s",
        "DELETE FROM ofp.case_standing WHERE case_id = %s",
        "UPDATE ofp.case_standing SET case_id = md5(case_id) WHERE case_id = %s",
    ],
)
def test_a_case_that_strays_is_told(pool: Pool, change: str) -> None:
    pins = new_run()
    names = append(pool, pins, [offered(case, "manual", 0, case) for case in range(3)])
    with pool.connection() as connection:
        assert straying_cases(connection, pins) == []
        connection.execute(change.encode(), (names[1],))
        assert names[1] in straying_cases(connection, pins)
        connection.execute("DELETE FROM ofp.case_standing WHERE pins_digest = %s", (pins_digest(pins),))
        assert straying_cases(connection, pins) == sorted(names)


@pytest.mark.parametrize("analysed", [False, True])
def test_the_queue_does_not_walk_past_what_is_closed(pool: Pool, analysed: bool) -> None:
    pins, many = new_run(), 500
    append(pool, pins, [offered(case, "manual", 0, case) for case in range(many)])
    append(pool, pins, [offered(case, "close", 0, case) for case in range(many - 1)])
    if analysed:
        analyse(pool, TABLES)
    before = rows_read(pool, TABLES)
    with pool.connection() as connection:
        for _ in range(7):  # from the sixth on the plan may be one for all arguments
            assert len(queue(connection, pins, CaseState.OPEN, 50)) == 1
    after = rows_read(pool, TABLES)
    assert {name: after[name] - before[name] for name in after if after[name] - before[name] > 7 * 60} == {}
