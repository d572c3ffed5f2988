"""The aggregations, one row each: what is true of an aggregation is said here and read everywhere else.

Validation, the compiler, the kernel's two paths and the table in docs/semantics.md read `RULES`. The kernel has the arithmetic
of every `Finish`; an aggregation without a row, or with a finish that the kernel has no arithmetic for, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntFlag, StrEnum, auto


class Aggregation(StrEnum):
    """The aggregations (`ratio` is of two of the others)."""

    COUNT = "count"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"
    STDDEV = "stddev"
    DISTINCT_COUNT = "distinct_count"
    LAST = "last"
    FIRST = "first"
    SECONDS_SINCE_LAST = "seconds_since_last"
    SECONDS_SINCE_FIRST = "seconds_since_first"
    QUANTILE = "quantile"
    MEDIAN = "median"
    SECONDS_SINCE_CHANGE = "seconds_since_change"
    LAST_N = "last_n"
    TOP_K = "top_k"
    COUNT_BY = "count_by"
    SUM_BY = "sum_by"
    RATIO = "ratio"


class Reads(Enum):
    """The part of an event that an aggregation reads besides its time and its condition."""

    NOTHING = auto()
    INTEGER = auto()
    VALUE = auto()  # an integer, a boolean or a text, which have an order
    TOKEN = auto()  # a string or an integer, told apart from others only
    OPERANDS = auto()  # nothing of its own: two other aggregations do


class Parts(IntFlag):
    """The parts of an accumulator row besides the count."""

    NONE = 0
    SUM = 1
    SQUARES = 2
    EXTREMES = 4
    ENDS = 8
    TIMES = 16


P_DIGITS = 6
"""The digits behind the point of a quantile's p."""
P_UNITS = 10**P_DIGITS
MEDIAN_P = "0.5"
MOST_ITEMS = 20
"""The items of the longest list that is the value of a feature."""
ALL_PARTS = Parts.SUM | Parts.SQUARES | Parts.EXTREMES | Parts.ENDS | Parts.TIMES


class Finish(Enum):
    """The arithmetic that turns a window's accumulator into the value; it stands in kernel/finalise.py and column_values.py.

    `parts`: what the arithmetic reads of the accumulator besides the count. `whole_events`: it reads the events themselves, which
    no summary of a chunk replaces.
    """

    COUNT = "count", Parts.NONE
    DISTINCT = "distinct", Parts.NONE, True
    SUM = "sum", Parts.SUM
    MIN = "min", Parts.EXTREMES
    MAX = "max", Parts.EXTREMES
    FIRST = "first", Parts.ENDS
    LAST = "last", Parts.ENDS
    SECONDS_SINCE_FIRST = "seconds since first", Parts.TIMES
    SECONDS_SINCE_LAST = "seconds since last", Parts.TIMES
    MEAN = "mean", Parts.SUM
    STDDEV = "stddev", Parts.SUM | Parts.SQUARES
    QUANTILE = "quantile", Parts.NONE, True
    SECONDS_SINCE_CHANGE = "seconds since change", Parts.NONE, True
    LAST_N = "last n", Parts.NONE, True
    TOP_K = "top k", Parts.NONE, True
    COUNT_BY = "count by", Parts.NONE, True
    SUM_BY = "sum by", Parts.NONE, True
    QUOTIENT = "quotient", Parts.NONE

    def __init__(self, label: str, parts: Parts, whole_events: bool = False) -> None:
        self.label = label
        self.parts = parts
        self.whole_events = whole_events


class ValueType(StrEnum):
    """The type of the served value, in the words of the documentation."""

    INTEGER = "integer"
    SECONDS = "integer, whole seconds"
    FIELD = "as the field"
    DECIMAL = "decimal"
    FIELDS = "list, each as the field"
    CATEGORIES = "list, each as the category"
    PAIRS = "list of category and integer"


@dataclass(frozen=True)
class Rule:
    """One aggregation.

    `ordered`: of several events at one time it matters which comes first. `empty`: the value of a window without events (None:
    null). `line`: its line of documentation. `takes`: fields of a feature that it cannot do without, besides a value; `may_take`:
    those that it can.
    """

    value_type: ValueType
    reads: Reads
    finish: Finish
    line: str
    ordered: bool = False
    empty: int | None = None
    takes: tuple[str, ...] = ()
    may_take: tuple[str, ...] = ()

    @property
    def decimal(self) -> bool:
        """Whether the value is a decimal and has a scale."""
        return self.value_type is ValueType.DECIMAL

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return self.value_type in (ValueType.FIELDS, ValueType.CATEGORIES, ValueType.PAIRS)


class UnknownAggregation(ValueError):
    """An aggregation, or the finish of one, that some part of the program has nothing for."""


RULES: dict[Aggregation, Rule] = {
    Aggregation.COUNT: Rule(ValueType.INTEGER, Reads.NOTHING, Finish.COUNT, "number of events", empty=0),
    Aggregation.SUM: Rule(ValueType.INTEGER, Reads.INTEGER, Finish.SUM, "sum of the field", empty=0),
    Aggregation.DISTINCT_COUNT: Rule(
        ValueType.INTEGER,
        Reads.TOKEN,
        Finish.DISTINCT,
        "number of different values of the field, or of the pair of fields",
        empty=0,
        may_take=("paired_with",),
    ),
    Aggregation.MIN: Rule(ValueType.FIELD, Reads.VALUE, Finish.MIN, "least value of the field"),
    Aggregation.MAX: Rule(ValueType.FIELD, Reads.VALUE, Finish.MAX, "greatest value of the field"),
    Aggregation.FIRST: Rule(ValueType.FIELD, Reads.VALUE, Finish.FIRST, "value of the earliest event", ordered=True),
    Aggregation.LAST: Rule(ValueType.FIELD, Reads.VALUE, Finish.LAST, "value of the latest event", ordered=True),
    Aggregation.SECONDS_SINCE_FIRST: Rule(
        ValueType.SECONDS, Reads.NOTHING, Finish.SECONDS_SINCE_FIRST, "from the earliest event to T"
    ),
    Aggregation.SECONDS_SINCE_LAST: Rule(
        ValueType.SECONDS, Reads.NOTHING, Finish.SECONDS_SINCE_LAST, "from the latest event to T"
    ),
    Aggregation.QUANTILE: Rule(
        ValueType.INTEGER, Reads.INTEGER, Finish.QUANTILE, "value of the field at rank ceil(p*n) of n", takes=("p",)
    ),
    Aggregation.MEDIAN: Rule(ValueType.INTEGER, Reads.INTEGER, Finish.QUANTILE, "the quantile of p = 0.5"),
    Aggregation.SECONDS_SINCE_CHANGE: Rule(
        ValueType.SECONDS,
        Reads.NOTHING,
        Finish.SECONDS_SINCE_CHANGE,
        "from the latest event of which the condition is another than of the event before it, to T; null, too, if there is none",
        ordered=True,
        takes=("condition",),
    ),
    Aggregation.LAST_N: Rule(
        ValueType.FIELDS,
        Reads.VALUE,
        Finish.LAST_N,
        "values of the n latest events, the latest first",
        ordered=True,
        takes=("n",),
    ),
    Aggregation.TOP_K: Rule(
        ValueType.CATEGORIES, Reads.NOTHING, Finish.TOP_K, "the k categories with most events", takes=("category", "k")
    ),
    Aggregation.COUNT_BY: Rule(
        ValueType.PAIRS,
        Reads.NOTHING,
        Finish.COUNT_BY,
        "the k categories with most events, each with their number",
        takes=("category", "k"),
    ),
    Aggregation.SUM_BY: Rule(
        ValueType.PAIRS,
        Reads.INTEGER,
        Finish.SUM_BY,
        "the k categories with the greatest sums of the field, each with its sum",
        takes=("category", "k"),
    ),
    Aggregation.MEAN: Rule(ValueType.DECIMAL, Reads.INTEGER, Finish.MEAN, "arithmetic mean of the field"),
    Aggregation.STDDEV: Rule(
        ValueType.DECIMAL, Reads.INTEGER, Finish.STDDEV, "standard deviation of the field (of the population)"
    ),
    Aggregation.RATIO: Rule(
        ValueType.DECIMAL,
        Reads.OPERANDS,
        Finish.QUOTIENT,
        "quotient of two of the others, each with its own events; null, too, where the divisor is 0",
    ),
}


def rule_of(aggregation: Aggregation) -> Rule:
    """The row of an aggregation.

    Raises:
        UnknownAggregation: it has none.
    """
    rule = RULES.get(aggregation)
    if rule is None:
        raise UnknownAggregation(f"aggregation {str(aggregation)!r} has no row in registry/aggregations.py")
    return rule


def documentation() -> list[str]:
    """The lines of the table in docs/semantics.md.

    Raises:
        UnknownAggregation: one of the aggregations has no row.
    """
    for aggregation in Aggregation:
        rule_of(aggregation)
    return [
        f"| `{aggregation}` | {rule.line} | {rule.value_type} | {'null' if rule.empty is None else rule.empty} |"
        for aggregation, rule in RULES.items()
    ]
