"""Items one ahead: all of them, in their order, and the error where it belongs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ofp_platform.offline.sources.read_ahead import read_ahead


def test_items_come_in_their_order_and_the_next_is_made_while_one_is_used() -> None:
    made = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for number in range(3):
            made[number].set()
            yield number

    for number in read_ahead(items()):
        if number < 2:
            assert made[number + 1].wait(timeout=60)
    assert list(read_ahead(iter(range(5)))) == list(range(5))
    assert list(read_ahead(iter(()))) == []


def test_an_error_comes_behind_the_items_in_front_of_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is full")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the disk is full"):
        next(ahead)
