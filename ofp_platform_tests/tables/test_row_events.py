"""Rows to events: each row is an event or a fault, and a history is in the order of its time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.tables.import_rules import EventRules
from ofp_platform.tables.row_events import History, RowEvents, RowReader, read_all
from ofp_platform.tables.table_file import Cell, TableFault, TablePart
from ofp_platform.vocabulary.identity import ContextPins

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="f", parameter_hash="p")
RULES = EventRules.model_validate(
    {
        "event_type": "booking",
        "event_id": "Ref",
        "time": {"column": "At", "zone": "UTC"},
        "admitted_after": "2m",
        "fields": {
            "wallet": {"column": "Wallet", "type": "key"},
            "amount_minor": {"column": "Amount", "type": "amount", "digits": 2},
            "is_web": {"column": "Web", "type": "boolean"},
        },
    }
)


def part(**cells: list[Cell]) -> TablePart:
    return TablePart(list(range(2, 2 + len(next(iter(cells.values()))))), dict(cells))


def test_rows_become_events_and_an_empty_cell_leaves_its_field_out() -> None:
    rows = part(
        Ref=["a", "b"], At=["2026-03-01 00:00:01", "2026-03-01"], Wallet=["W 1", "W2"], Amount=["1.50", None], Web=["y", None]
    )
    events = RowReader(RULES).read(rows)
    assert events.faults == []
    assert events.event_ids == ["a", "b"]
    assert [json.loads(payload) for payload in events.payloads] == [
        {"amount_minor": 150, "is_web": True, "wallet": "W%201"},
        {"wallet": "W2"},
    ]
    assert events.ts[0] - events.ts[1] == 1_000_000


def test_each_row_is_an_event_or_a_fault_that_shows_no_cell() -> None:
    rows = part(
        Ref=["a", None, "# 3", "d", "e"],
        At=["2026-03-01", "2026-03-01", "2026-03-01", "yesterday", "2026-03-01"],
        Wallet=["W1"] * 5,
        Amount=["secret", "1", "1", "1", "1"],
        Web=["n", "n", "n", "n", "n"],
    )
    events = RowReader(RULES).read(rows)
    assert events.event_ids == ["e"]
    assert [(fault.place, fault.column) for fault in events.faults] == [(2, "Amount"), (3, "Ref"), (4, "Ref"), (5, "At")]
    assert "says nothing" in events.faults[1].message
    assert not any("secret" in fault.message or "yesterday" in fault.message for fault in events.faults)


def test_a_column_that_is_not_there_is_named_with_the_nearest() -> None:
    rows = part(Ref=["a"], At=["2026-03-01"], Walet=["W1"], Amount=["1"], Web=["n"])
    with pytest.raises(TableFault, match="no column 'Wallet'; did you mean 'Walet'"):
        RowReader(RULES).read(rows)
    with pytest.raises(TableFault, match=r"no column 'At'; there are 'x'"):
        RowReader(RULES).read(part(x=["a"]))


def test_without_a_column_of_ids_equal_rows_are_one_event() -> None:
    rules = RULES.model_copy(update={"event_id": None})
    rows = part(At=["2026-03-01"] * 3, Wallet=["W1", "W1", "W2"], Amount=["1", "1.00", "1"], Web=["n"] * 3)
    first, same, other = RowReader(rules).read(rows).event_ids
    assert first == same != other
    again = RowReader(rules).read(part(At=["2026-03-01"], Wallet=["W1"], Amount=["1"], Web=["n"])).event_ids
    assert again == [first]


@given(times=st.lists(st.integers(0, 50), max_size=30), rows=st.integers(1, 7))
def test_a_history_is_in_the_order_of_its_time_and_loses_nothing(times: list[int], rows: int) -> None:
    count = len(times)
    events = RowEvents(list(range(count)), [f"e{i}" for i in range(count)], times, [b"{}"] * count)
    seen: list[tuple[int, int]] = []
    for places, columns, admitted_at in History(RULES, PINS, events).columns(rows):
        assert len(places) == len(columns) <= rows
        assert np.array_equal(admitted_at, columns.ts + 120_000_000)
        assert columns.event_ids == [f"e{place}" for place in places]
        seen += zip(columns.ts.tolist(), places, strict=True)
    assert seen == sorted(zip(times, range(count), strict=True)), "events of one time stay in the order of the file"


def test_parts_are_read_as_one_file() -> None:
    parts = [part(Ref=[name], At=["2026-03-01"], Wallet=["W"], Amount=["1"], Web=["n"]) for name in ("a", "b")]
    advanced: list[int] = []
    events = read_all(RowReader(RULES), parts, advanced.append)
    assert events.event_ids == ["a", "b"]
    assert advanced == [1, 1]
