"""Rows to label assertions, by the rules of import.yaml. Pure."""

from __future__ import annotations

from functools import partial

from pydantic import ValidationError

from ofp_platform.tables import cell_values
from ofp_platform.tables.import_rules import LabelRules
from ofp_platform.tables.row_events import RowFault, _Unreadable, identifier, require_columns, value_of
from ofp_platform.tables.table_file import TablePart
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.times import format_time


class LabelReader:
    """Reads rows as assertions about events of one class."""

    def __init__(self, rules: LabelRules, event_class: str) -> None:
        self._rules = rules
        self._class = event_class
        self._observation_reader = cell_values.moment_reader(rules.observed.format, rules.observed.zone)
        effective = rules.effective
        self._effective_reader = None if effective is None else cell_values.moment_reader(effective.format, effective.zone)

    def read(self, part: TablePart) -> tuple[list[LabelAssertion], list[RowFault]]:
        """The assertions of a part of a file, and the rows that are none.

        Raises:
            TableFault: the file lacks a column that the rules name.
        """
        rules = self._rules
        effective = rules.effective
        columns = (rules.event_id, rules.observed.column, rules.value_column, effective and effective.column)
        require_columns(part, [column for column in columns if column])
        assertions, faults = [], []
        for index, place in enumerate(part.places):
            try:
                assertions.append(self._assertion(part, index))
            except _Unreadable as unreadable:
                faults.append(RowFault(place, unreadable.column, unreadable.message))
            except ValidationError as error:
                faults.append(RowFault(place, rules.event_id, error.errors()[0]["msg"]))
        return assertions, faults

    def _assertion(self, part: TablePart, index: int) -> LabelAssertion:
        rules = self._rules
        observation = (
            value_of(part, index, rules.observed.column, self._observation_reader, is_needed=True) + rules.observed_after_us
        )
        since = observation
        if rules.effective is not None and self._effective_reader is not None:
            since = value_of(part, index, rules.effective.column, self._effective_reader, is_needed=True)
        value = rules.value
        if rules.value_column is not None:
            value = value_of(part, index, rules.value_column, _label_value, is_needed=True)
        assert value is not None  # the rules have one of the two
        return LabelAssertion(
            event_class=self._class,
            event_id=value_of(part, index, rules.event_id, identifier, is_needed=True),
            label_type=rules.label_type,
            value=value,
            effective_time_utc=format_time(since),
            observed_time_utc=format_time(observation),
            source=rules.source,
        )


def _label_value(cell: object) -> int:
    """An integer; yes is 1 and no is 0."""
    try:
        return int(cell_values.boolean(cell))  # type: ignore[arg-type]
    except ValueError:
        return partial(cell_values.minor_units, digits=0)(cell)  # type: ignore[arg-type]
