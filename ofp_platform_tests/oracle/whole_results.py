"""The results of whole windows over the values of a few slots, as a query has them, the naive way.

The operands are without a parameter or a condition of their own: a quantile is the median, a change is another value, and a list
has room for all of its items. Those of categories are not among them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.kernel.query import result_key
from ofp_platform.registry.aggregations import MOST_ITEMS, RULES, Aggregation
from ofp_platform.registry.layout import CompiledOperand
from ofp_platform_tests.oracle.aggregate import Item, aggregate

_OTHERS = (Aggregation.QUANTILE, Aggregation.SECONDS_SINCE_CHANGE, Aggregation.LAST_N)


def operand_of(aggregation: Aggregation, slot: int, scale: int = 0) -> CompiledOperand:
    """The operand of an aggregation over the values of a slot."""
    return CompiledOperand(aggregation, slot, scale, 0, parameter=MOST_ITEMS if RULES[aggregation].is_list else 0)


def result_index(slots: int) -> dict[tuple[int, ...], int]:
    """The index of the results: distinct counts of all slots by their token 0, then the others."""
    index: dict[tuple[int, ...], int] = {(slot, 0): slot for slot in range(slots)}
    count = slots
    for one in _OTHERS:
        for slot in range(slots):
            index[result_key(operand_of(one, slot))] = count
            count += 1 + MOST_ITEMS if RULES[one].is_list else 1
    return index


def whole_results(items_of_slots: Sequence[Sequence[Item]]) -> list[int]:
    """The results, in the order of `result_index`."""
    results = [len({item.value for item in items}) for items in items_of_slots]
    for items in items_of_slots:
        median = aggregate("median", items, 0, 0)
        assert median is None or isinstance(median, int)
        results.append(EARLIEST if median is None else median)
    for items in items_of_slots:
        changes = [later.ts for later, earlier in zip(items[1:], items, strict=False) if later.value != earlier.value]
        results.append(max(changes, default=EARLIEST))
    for items in items_of_slots:
        newest = [item.value for item in items][::-1][:MOST_ITEMS]
        results += [len(newest), *newest, *[0] * (MOST_ITEMS - len(newest))]
    return results
