"""How the rows of a file become events, and how those of another become labels: the file import.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.tables.cell_values import TimeFormat
from ofp_platform.vocabulary.envelope import EventType, SchemaVersion
from ofp_platform.vocabulary.model import Model, Name, SafeIdentifier
from ofp_platform.vocabulary.offline.label_assertion import LabelValue
from ofp_platform.vocabulary.raw_identifier import raw_identifier_in
from ofp_platform.vocabulary.times import parse_duration
from ofp_platform.vocabulary.yaml_file import YamlFault, model_of, read_yaml

_FIELD = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
_DURATION = r"^[0-9]+(us|ms|s|m|h|d)$"
Column = Annotated[str, Field(min_length=1, max_length=200, description="a column of the file, as its header writes it")]


class ImportRulesError(Exception):
    """The file import.yaml cannot be used; the text says what is wrong, and where."""


class FieldKind(StrEnum):
    """Kinds of payload field. `amount`: an integer of minor units; `key`: a text that can be a key."""

    KEY = "key"
    TEXT = "text"
    INTEGER = "integer"
    AMOUNT = "amount"
    BOOLEAN = "boolean"


class MomentColumn(Model):
    """A column with a time. `zone`: of times that name none."""

    column: Column
    format: TimeFormat = Field(default=TimeFormat.ISO, strict=False)
    zone: str | None = Field(default=None, pattern=r"^(Z|UTC|[+-][0-9]{2}:?[0-9]{2})$")


class PayloadField(Model):
    """A column that becomes a payload field; an empty cell leaves it out. `digits`: of an amount, those behind the point."""

    column: Column
    type: FieldKind = Field(strict=False)
    digits: int = Field(default=0, ge=0, le=12)

    @model_validator(mode="after")
    def _digits_of_amounts(self) -> Self:
        if self.digits and self.type is not FieldKind.AMOUNT:
            raise ValueError(f"digits are of an amount; this is of type {self.type}")
        return self


class EventRules(Model):
    """Rows to events of one type.

    `event_id`: the column with each event's own id; without it the id is a digest of the row, and two equal rows are one event.
    `admitted_after`: history has no admission, so each event counts as admitted so long after its time, by a simulated clock.
    """

    event_type: EventType
    schema_version: SchemaVersion = "v1"
    event_id: Column | None = None
    time: MomentColumn
    fields: Mapping[Annotated[str, Field(pattern=_FIELD)], PayloadField] = Field(min_length=1)
    admitted_after: str = Field(default="0s", pattern=_DURATION)
    absent: tuple[str, ...] = Field(default=("",), strict=False, description="cells that say nothing")

    @property
    def admitted_after_us(self) -> int:
        """The delay of admission, microseconds."""
        return parse_duration(self.admitted_after)


class LabelRules(Model):
    """Rows to label assertions about events of one type, which `event_id` names.

    `value`: one for all rows; `value_column`: the column that says 0 or 1, or another integer. `observed`: when it became known;
    `observed_after`: added to that time, as where the column is the event's own. `effective`: since when it holds; default: the
    observation.
    """

    event_type: EventType
    event_id: Column
    label_type: Name
    value: LabelValue | None = None
    value_column: Column | None = None
    observed: MomentColumn
    observed_after: str = Field(default="0s", pattern=_DURATION)
    effective: MomentColumn | None = None
    admitted: Literal["observed", "now"] = Field(
        default="now", description="history counts as admitted when it was observed, by a simulated clock; else now"
    )
    source: SafeIdentifier
    absent: tuple[str, ...] = Field(default=("",), strict=False)

    @model_validator(mode="after")
    def _one_value(self) -> Self:
        if (self.value is None) == (self.value_column is None):
            raise ValueError("say either value (one for all rows) or value_column")
        return self

    @property
    def observed_after_us(self) -> int:
        """The delay of the observation after the time of its column, microseconds."""
        return parse_duration(self.observed_after)


class ImportRules(Model):
    """The whole file."""

    events: EventRules
    labels: LabelRules | None = None


def load_import_rules(path: Path) -> ImportRules:
    """Read and validate the file.

    Raises:
        ImportRulesError: no such file, not YAML, or a field that is wrong; the text names file and field.
    """
    try:
        content = read_yaml(path, "; `ofp init --events FILE` proposes one")
        if raw_identifier_in(content) is not None:
            raise ImportRulesError(f"{path}: holds a raw identifier (a card number)")
        return model_of(path, content, ImportRules)
    except YamlFault as error:
        raise ImportRulesError(str(error)) from None
