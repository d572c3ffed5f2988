"""Texts in the compiled loops: each text field of a matrix becomes one row of ranks, which are compared and picked like integers.

Ranks are those of one matrix. They leave the kernel as texts, or beside the table that they are ranks in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofp_platform.kernel.accumulate import COUNT, FIRST, LAST, MAX, MIN, SQUARE_LOW, SUM_HIGH
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.query import Query
from ofp_platform.registry.text_words import TEXT_WORDS, EncodedTexts, rank_words, text_of


@dataclass(frozen=True, eq=False)
class TextTables:
    """Of each slot whose values are texts: the different texts of its field in their order, encoded.

    `lists`: of each list of texts, by its first result, the number of its items, behind which these are: likewise, or a sequence
    of the texts by their names.
    """

    tables: Mapping[int, EncodedTexts]
    lists: Mapping[int, Any]

    def __bool__(self) -> bool:
        return bool(self.tables or self.lists)

    def put_in(self, rows: list[list[Any]], results: list[Any]) -> None:
        """Put the texts in the place of their ranks, in accumulator rows of all slots, which have no sum then, and in results."""
        for first, table in self.lists.items():
            items = slice(first + 1, first + 1 + results[first])
            results[items] = [text_of(table[rank]) for rank in results[items]]
        for slot, table in self.tables.items():
            row = rows[slot]
            row[SUM_HIGH : SQUARE_LOW + 1] = [0] * (SQUARE_LOW + 1 - SUM_HIGH)
            for place in (MIN, MAX, FIRST, LAST) if row[COUNT] else ():
                row[place] = text_of(table[row[place]])


NO_TEXTS = TextTables({}, {})


def with_ranks(
    query: Query, matrix: Int64Array, tables_of_lists: Mapping[int, Sequence[Any]] | None = None
) -> tuple[Int64Array, TextTables]:
    """The matrix int64[C, n] with ranks as the query's slots read them, and their texts; it itself where no value is a text.

    `tables_of_lists`: the texts of lists whose items are no ranks of this matrix.
    """
    if not query.has_texts:
        return matrix, NO_TEXTS
    if tables_of_lists is not None and not len(query.text_slots):
        return matrix, TextTables({}, tables_of_lists)
    layout = query.arrays.layout
    ranked_matrix = np.zeros((layout.first_text_row + len(layout.text_fields), matrix.shape[1]), np.int64)
    ranked_matrix[: layout.first_text_row] = matrix[: layout.first_text_row]
    text_of_slot = {slot: layout.slots[slot].text for slot in query.text_slots.tolist()}
    tables: dict[int, EncodedTexts] = {}
    ranked_lists = query.text_lists if tables_of_lists is None else ()
    for text in sorted({*text_of_slot.values(), *(text for _, text in ranked_lists)}):
        row = layout.first_text_row + TEXT_WORDS * text
        ranked_matrix[layout.first_text_row + text], tables[text] = rank_words(matrix[row : row + TEXT_WORDS])
    return ranked_matrix, TextTables(
        {slot: tables[text] for slot, text in text_of_slot.items()},
        {first: tables[text] for first, text in ranked_lists} if tables_of_lists is None else tables_of_lists,
    )
