"""The events behind one served value: those of the log that lie in its window, each with the position of its record.

They are looked for record by record, by the run, the skew and the router that decide for every fold. That the value itself is
what the log gives is proven by the forensic rebuild, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ofp_platform.kernel.amendments import counting_at, deciding, put_in_place
from ofp_platform.log.port import RecordBatch
from ofp_platform.registry.belonging import belonging
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW, CompiledFeature, CompiledOperand
from ofp_platform.registry.models import Feature
from ofp_platform.registry.pack import group_id
from ofp_platform.registry.routing import Router
from ofp_platform.registry.selection import Selection, feature_selections
from ofp_platform.vocabulary.identity import ContextPins


class NotExplained(Exception):
    """There is nothing of that name to explain; the text says what there is."""


@dataclass(frozen=True)
class FeatureName:
    """One windowed feature of one key, at T (`as_of`, microseconds). `members`: the ids of its entity, whose events count; ():
    those of the key alone do.
    """

    key_type: str
    key_id: str
    group_name: str
    group_version: str
    feature: str
    as_of: int
    members: tuple[str, ...] = ()


EventValue = int | str | bool | tuple[int | str | bool, int | str | bool] | None


@dataclass(frozen=True)
class WindowEvent:
    """One event in a window: the position of its first record, its times in microseconds, and how many more are copies of it.

    `value`: what the aggregation is of: the field's value, both values of a pair (by the order of their names), the category
    (with the value), whether the condition holds; None: of nothing.
    """

    partition_id: str
    offset: int | str
    event_id: str
    event_type: str
    ts: int
    admitted_at: int
    value: EventValue
    copies: int


@dataclass
class ExplainedWindow:
    """One aggregation of a feature over its window: after < time <= until, microseconds. `role`: value, or of a ratio numerator
    or denominator. `events` in the order of time, of one time in the order of identity.
    """

    role: str
    selection: Selection
    after: int
    until: int
    events: list[WindowEvent] = field(default_factory=list)


def windows_of(registry: CompiledRegistry, name: FeatureName) -> list[ExplainedWindow]:
    """The empty windows of a feature.

    Raises:
        NotExplained: the registry has no such feature, or it is computed on demand.
    """
    feature = _feature(registry, name)
    selections = feature_selections(feature)
    roles = ("value",) if len(selections) == 1 else ("numerator", "denominator")
    return [
        ExplainedWindow(role, selection, *selection.bounds(name.as_of)) for role, selection in zip(roles, selections, strict=True)
    ]


def explain(
    batches: Iterable[RecordBatch], registry: CompiledRegistry, pins: ContextPins, clock_skew_us: int, name: FeatureName
) -> list[ExplainedWindow]:
    """Find the events of each of the feature's windows in all records up to a basis, partition by partition in their order.

    Raises:
        NotExplained: as `windows_of`.
    """
    windows = windows_of(registry, name)
    operands = _operands(registry, name)
    layout = registry.layouts[name.key_type]
    bits = [1 << layout.measures[layout.slots[operand.slot].measure].predicate for operand in operands]
    condition_bits = [0 if operand.condition < 0 else 1 << operand.condition for operand in operands]
    touches: dict[tuple[int, int], _Touch] = {}
    for batch, index, tie, column in _touching(batches, Router(registry), pins, clock_skew_us, name):
        if tie in touches:
            touches[tie].copies += 1
        elif any(window.after < column[TIME_ROW] <= window.until for window in windows):
            touches[tie] = _Touch(column, _event(batch, index), batch.payloads[index])
    ordered_touches = [touch for _, touch in sorted(touches.items(), key=lambda item: (item[1].column[TIME_ROW], item[0]))]
    if not ordered_touches:
        return windows
    matrix = np.stack([touch.column for touch in ordered_touches], axis=1)
    payloads = [touch.payload for touch in ordered_touches]
    if layout.amendable:
        deciding_columns = deciding(matrix, counting_at(matrix, name.as_of))
        matrix = put_in_place(layout, matrix, deciding_columns)
        payloads = [payloads[by if by >= 0 else place] for place, by in enumerate(deciding_columns.tolist())]
    masks, times = matrix[MASK_ROW].tolist(), matrix[TIME_ROW].tolist()
    for window, bit, condition_bit in zip(windows, bits, condition_bits, strict=True):
        for touch, mask, ts, payload in zip(ordered_touches, masks, times, payloads, strict=True):
            if mask & bit and window.after < ts <= window.until:
                value = _value(window.selection, bool(mask & condition_bit), payload)
                window.events.append(replace(touch.event, value=value, copies=touch.copies))
    return windows


@dataclass
class _Touch:
    """An event that touches the key, or an amendment of one: its column of the matrix, int64[C], and how many copies it has."""

    column: npt.NDArray[np.int64]
    event: WindowEvent
    payload: bytes
    copies: int = 0


def _touching(
    batches: Iterable[RecordBatch], router: Router, pins: ContextPins, clock_skew_us: int, name: FeatureName
) -> Iterator[tuple[RecordBatch, int, tuple[int, int], npt.NDArray[np.int64]]]:
    """The records that touch the key: batch, index in it, identity (unsigned halves), column of the key's matrix."""
    for batch in batches:
        if not len(batch):
            continue
        own_indexes = np.flatnonzero(
            belonging(pins, batch.pins, batch.pins_index, batch.ts, batch.admitted_at, clock_skew_us).own
        )
        if not len(own_indexes):
            continue
        indices = own_indexes.tolist()
        routed_batch = router.route(
            [batch.event_types[index] for index in indices],
            [batch.event_ids[index] for index in indices],
            [batch.schema_versions[index] for index in indices],
            batch.ts[own_indexes],
            [batch.payload_hashes[index] for index in indices],
            [batch.payloads[index] for index in indices],
            [batch.amends[index] for index in indices],
        )
        touched_keys = routed_batch.touched.get(name.key_type)
        if touched_keys is None:
            continue
        key_ids = set(name.members or (name.key_id,))
        for place, key_id in enumerate(touched_keys.key_ids):
            if key_id in key_ids:
                record = int(touched_keys.record_index[place])
                high, low = routed_batch.tie_digest[record].tolist()
                yield batch, indices[record], (high, low), touched_keys.matrix[:, place].copy()


def _value(selection: Selection, condition_holds: bool, payload: bytes) -> EventValue:
    if selection.condition is not None:
        return condition_holds
    names = selection.fields
    if not names:
        return None
    fields: dict[str, Any] = orjson.loads(payload)
    value: int | str | bool = fields[names[0]]
    return value if len(names) == 1 else (value, fields[names[1]])


def _event(batch: RecordBatch, index: int) -> WindowEvent:
    return WindowEvent(
        batch.partition_id,
        batch.offsets[index],
        batch.event_ids[index],
        batch.event_types[index],
        int(batch.ts[index]),
        int(batch.admitted_at[index]),
        None,
        0,
    )


def _feature(registry: CompiledRegistry, name: FeatureName) -> Feature:
    for group in registry.pack.groups:
        if group_id(group) == (name.group_name, name.group_version) and group.key_type.value == name.key_type:
            for feature in group.features:
                if feature.name == name.feature:
                    return feature
            if any(one.name == name.feature for one in group.on_demand):
                raise NotExplained(
                    f"{name.feature} is computed on demand, from features of its group and the request: explain those"
                )
            names = ", ".join(feature.name for feature in group.features)
            raise NotExplained(f"group {name.group_name} {name.group_version} has no feature {name.feature}; it has {names}")
    raise NotExplained(f"the registry has no group {name.group_name} {name.group_version} of key type {name.key_type}")


def _operands(registry: CompiledRegistry, name: FeatureName) -> list[CompiledOperand]:
    compiled_feature: CompiledFeature = next(
        feature for feature in registry.groups[name.group_name, name.group_version].features if feature.name == name.feature
    )
    return (
        [compiled_feature.operand]
        if compiled_feature.denominator is None
        else [compiled_feature.operand, compiled_feature.denominator]
    )
