"""The results of whole windows over the values of a few slots, as a query has them, the naive way.

The operands are those without a parameter or a condition of their own: a quantile is the median, and a change is another value.
"""

from __future__ import annotations

from collections.abc import Sequence

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.kernel.query import result_key
from ofp_platform.registry.aggregations import Aggregation
from ofp_platform.registry.layout import CompiledOperand
from ofp_platform_tests.oracle.aggregate import Item, aggregate

_OTHERS = (Aggregation.QUANTILE, Aggregation.SECONDS_SINCE_CHANGE)


def result_index(slots: int) -> dict[tuple[int, ...], int]:
    """The index of the results: distinct counts of all slots by their token 0, then the others."""
    keys = [(slot, 0) for slot in range(slots)]
    keys += [result_key(CompiledOperand(one, slot, 0, 0)) for one in _OTHERS for slot in range(slots)]
    return {key: place for place, key in enumerate(keys)}


def whole_results(items_of_slots: Sequence[Sequence[Item]]) -> list[int]:
    """The results, in the order of `result_index`."""
    results = [len({item.value for item in items}) for items in items_of_slots]
    for items in items_of_slots:
        median = aggregate("median", items, 0, 0)
        results.append(EARLIEST if median is None else int(median))
    for items in items_of_slots:
        changes = [later.ts for later, earlier in zip(items[1:], items, strict=False) if later.value != earlier.value]
        results.append(max(changes, default=EARLIEST))
    return results
