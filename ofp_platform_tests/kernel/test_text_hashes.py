"""Hashes of texts: from a text's bytes and nothing else, spread over all bits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.text_hashes import write_text_hashes

M64 = (1 << 64) - 1


def plain_hash(text: bytes) -> int:
    mixed = 0xCBF29CE484222325
    for byte in text:
        mixed = ((mixed ^ byte) * 0x100000001B3) & M64
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        mixed = ((mixed ^ (mixed >> 33)) * factor) & M64
    return mixed ^ (mixed >> 33)


def hashes_of(texts: list[bytes], before: bytes = b"") -> list[int]:
    offsets = np.cumsum([len(before), *map(len, texts)]).astype(np.int64)
    hashes = np.empty(len(texts), np.uint64)
    write_text_hashes(offsets, np.frombuffer(before + b"".join(texts) + b"!", np.uint8), hashes)
    return [int(each) for each in hashes]


@given(st.lists(st.binary(max_size=40), max_size=12), st.binary(max_size=9))
def test_each_text_has_the_hash_of_its_own_bytes(texts: list[bytes], before: bytes) -> None:
    assert hashes_of(texts, before) == [plain_hash(text) for text in texts]


def test_numbered_ids_differ_in_every_part_of_their_hashes() -> None:
    hashes = np.array(hashes_of([b"payment e-%d" % number for number in range(4_096)]), np.uint64)
    assert len(set(hashes.tolist())) == 4_096
    for shift in range(0, 64, 8):  # 4,096 over 256 values: 16 each, and none without
        assert np.bincount((hashes >> np.uint64(shift)).astype(np.uint8), minlength=256).min() > 0
