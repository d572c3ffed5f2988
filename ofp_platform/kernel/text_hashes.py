"""Hashes of many texts, from the bytes of a column, without an object for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from ofp_platform.kernel.native import IN1, NOTHING, native

_BYTES = types.Array(types.uint8, 1, "C", readonly=True)
_HASHES = types.Array(types.uint64, 1, "C")
# FNV-1a, then the last steps of MurmurHash3: FNV alone leaves the high bits of short texts alike
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_MIX_1, _MIX_2, _SHIFT = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53), np.uint64(33)


@native(NOTHING(IN1, _BYTES, _HASHES))
def write_text_hashes(offsets: Any, text_bytes: Any, hashes: Any) -> None:
    """Write the hash of each of n texts. Text i is text_bytes[offsets[i] : offsets[i + 1]]; hashes: uint64[n]."""
    for i in range(hashes.shape[0]):
        hash_state = _BASIS
        for place in range(offsets[i], offsets[i + 1]):
            hash_state = (hash_state ^ np.uint64(text_bytes[place])) * _PRIME
        hash_state = (hash_state ^ (hash_state >> _SHIFT)) * _MIX_1
        hash_state = (hash_state ^ (hash_state >> _SHIFT)) * _MIX_2
        hashes[i] = hash_state ^ (hash_state >> _SHIFT)
