"""The types of what rules and models read: features as the pack computes them, payload fields as it declares them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.models import EventRouting, FieldType
from ofp_platform.vocabulary.loop.bundle import Comparison
from ofp_platform.vocabulary.observed_keys import observed_type

_DECIMAL = re.compile(r"-?[0-9]{1,30}\.[0-9]{1,18}", re.ASCII)


class OperandKind(StrEnum):
    """The kinds of value."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    STRING = "string"
    LIST = "list"
    ANY = "of no declared type"


@dataclass(frozen=True)
class OperandType:
    """The type of an operand; `scale`: digits behind the point of a number."""

    kind: OperandKind
    scale: int = 0

    @property
    def is_numeric(self) -> bool:
        """Whether a model takes it; a flag counts as 0 and 1."""
        return self.kind in (OperandKind.NUMBER, OperandKind.BOOLEAN, OperandKind.ANY)


_OF_FIELD = {
    FieldType.INTEGER: OperandType(OperandKind.NUMBER),
    FieldType.BOOLEAN: OperandType(OperandKind.BOOLEAN),
    FieldType.STRING: OperandType(OperandKind.STRING),
}
UNDECLARED = OperandType(OperandKind.ANY)


def feature_type(registry: CompiledRegistry, group: tuple[str, str], feature: str) -> OperandType | None:
    """The type of a feature; None: the pack has no such feature, or no such group."""
    compiled_group = registry.groups.get(group)
    if compiled_group is None:
        return None
    for window_feature in compiled_group.features:
        if window_feature.name == feature:
            if window_feature.is_list:
                return OperandType(OperandKind.LIST)
            if window_feature.scale is not None:
                return OperandType(OperandKind.NUMBER, window_feature.scale)
            return _OF_FIELD[window_feature.value_type]
    for on_demand in compiled_group.on_demand:
        if on_demand.name == feature:
            return OperandType(OperandKind.NUMBER, on_demand.scale)
    return None


def field_type(routing: EventRouting, field: str) -> OperandType | None:
    """The type of a payload field, as the pack declares it; keys are strings. None: it does not."""
    if field in routing.fields:
        return _OF_FIELD[routing.fields[field]]
    key_fields = [source for source in routing.keys.values() if observed_type(source) is None]
    return OperandType(OperandKind.STRING) if field in key_fields else None


def comparison_fault(operand_type: OperandType, comparison: Comparison) -> str | None:
    """Why a comparison of a value of that type can never be made; None: it can."""
    if comparison.operator == "is_absent":
        return None
    value, kind = comparison.value, operand_type.kind
    is_number = (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and _DECIMAL.fullmatch(value) is not None
    )
    if kind is OperandKind.LIST:
        return "is a list, which has no order: only is_absent may be asked of it"
    if kind is OperandKind.NUMBER and not is_number:
        return "is a number: compare it with an integer, or with a decimal as a text, as in '0.50'"
    if kind is OperandKind.BOOLEAN and (comparison.operator != "equals" or not isinstance(value, bool)):
        return "is a boolean: it equals true or false"
    if kind is OperandKind.STRING and (comparison.operator != "equals" or not isinstance(value, str)):
        return "is a string: it equals a text, and has no order"
    if kind is OperandKind.ANY and comparison.operator != "equals" and not is_number:
        return "is compared by order: with an integer, or with a decimal as a text, as in '0.50'"
    return None
