"""Rows to label assertions."""

from __future__ import annotations

from typing import Any

import pytest

from ofp_platform.tables.import_rules import LabelRules
from ofp_platform.tables.row_labels import LabelReader
from ofp_platform.tables.table_file import TableFault, TablePart

BASE: dict[str, Any] = {
    "event_type": "booking",
    "event_id": "tx",
    "label_type": "fraud",
    "value": 1,
    "observed": {"column": "reported", "zone": "+01:00"},
    "source": "history.chargebacks",
}


def reader(**changes: Any) -> LabelReader:
    return LabelReader(LabelRules.model_validate(BASE | changes), "booking")


def test_a_row_says_of_which_event_since_when() -> None:
    assertions, faults = reader(observed_after="1h").read(TablePart([2], {"tx": ["a"], "reported": ["2026-03-01"]}))
    assert faults == []
    (assertion,) = assertions
    assert (assertion.event_class, assertion.event_id, assertion.value) == ("booking", "a", 1)
    assert assertion.observed_time_utc == assertion.effective_time_utc == "2026-03-01T00:00:00Z"


def test_the_value_and_the_effective_time_may_have_columns() -> None:
    rows = TablePart([2, 3], {"tx": ["a", "b"], "reported": ["2026-03-01Z"] * 2, "is": ["N", "7"], "at": ["2026-02-01Z"] * 2})
    assertions, _ = reader(value=None, value_column="is", effective={"column": "at"}).read(rows)
    assert [assertion.value for assertion in assertions] == [0, 7]
    assert assertions[0].effective_time_utc == "2026-02-01T00:00:00Z"


def test_each_row_is_an_assertion_or_a_fault() -> None:
    rows = TablePart([2, 3, 4], {"tx": [None, "b", "4111111111111111"], "reported": ["2026-03-01", "soon", "2026-03-01"]})
    assertions, faults = reader().read(rows)
    assert assertions == []
    assert [(fault.place, fault.column) for fault in faults] == [(2, "tx"), (3, "reported"), (4, "tx")]
    assert not any("4111" in fault.message or "soon" in fault.message for fault in faults)


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(TableFault, match="no column 'reported'"):
        reader().read(TablePart([2], {"tx": ["a"], "when": ["2026-03-01"]}))
