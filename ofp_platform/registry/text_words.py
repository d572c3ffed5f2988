"""A text as words of the event matrix: of a fixed width, exact, and with an order that is the order of its UTF-8 bytes.

Each byte is raised by one, which has room because no byte of UTF-8 is 0xFF; what is left of the width is filled with zeros. So a
text that ends, and one that goes on with U+0000, stay different, and the shorter of two that begin alike comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

TEXT_WORDS = 8
MAX_TEXT_BYTES = 8 * TEXT_WORDS
"""The longest text that is kept of an event, in bytes of UTF-8."""

Int64s = npt.NDArray[np.int64]
EncodedTexts = npt.NDArray[np.bytes_]
_KIND = np.dtype(f"S{MAX_TEXT_BYTES}")
_WORD = np.dtype("<i8")
_MANY, _BLOCK = 512, 65_536
_SHIFT, _FACTOR = np.uint64(29), np.uint64(0x9E3779B97F4A7C15)
_RAISED = bytes(min(byte + 1, 255) for byte in range(256))
_LOWERED = bytes(max(byte - 1, 0) for byte in range(256))


def is_long(text: str) -> bool:
    """Whether the text is longer than what is kept."""
    return len(text) > MAX_TEXT_BYTES or len(text.encode()) > MAX_TEXT_BYTES


def words_of(texts: Sequence[str]) -> Int64s:
    """int64[8, n]: the words of n texts; those of a text that is too long are the empty text's."""
    cells = np.array([b"" if is_long(text) else text.encode().translate(_RAISED) for text in texts], _KIND)
    return np.ascontiguousarray(cells.view(_WORD).reshape(len(texts), TEXT_WORDS).T.astype(np.int64))


def rank_words(words: Int64s) -> tuple[Int64s, EncodedTexts]:
    """The rank of each of n texts (int64[8, n]) among the different ones, and those in their order."""
    cells = np.ascontiguousarray(words.T.astype(_WORD)).view(_KIND).reshape(words.shape[1])
    if len(cells) >= _MANY:
        # integers sort many times faster than texts; then only the different texts are sorted
        _, first, codes = np.unique(_hashes(words), return_index=True, return_inverse=True)
        if _are_told_apart(cells, cells[first], codes):
            order = np.argsort(cells[first], kind="stable")
            ranks_of_codes = np.empty(len(order), np.int64)
            ranks_of_codes[order] = np.arange(len(order))
            return ranks_of_codes[codes], cells[first][order]
    different, ranks = np.unique(cells, return_inverse=True)
    return ranks.astype(np.int64), different


def _hashes(words: Int64s) -> npt.NDArray[np.uint64]:
    """uint64[n]: equal for equal texts."""
    hashes: npt.NDArray[np.uint64] = words[0].astype(np.uint64)
    for row in words[1:]:
        if row.any():
            hashes = (hashes ^ (hashes >> _SHIFT)) * _FACTOR ^ row.astype(np.uint64)
    return hashes


def _are_told_apart(cells: EncodedTexts, different: EncodedTexts, codes: npt.NDArray[np.intp]) -> bool:
    """Whether each of the texts is the one of its code: no two different texts had one hash."""
    return all(
        np.array_equal(different[codes[start : start + _BLOCK]], cells[start : start + _BLOCK])
        for start in range(0, len(cells), _BLOCK)
    )


def text_of(cell: bytes) -> str:
    """The text of an encoded one."""
    return cell.translate(_LOWERED).decode()
