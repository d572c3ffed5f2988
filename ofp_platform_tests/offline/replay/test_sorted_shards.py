"""Sorted shards are kept as they were made, read-only, and read without a parser that threads share."""

import ast
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from ofp_platform.offline.replay.key_shards import EventShard
from ofp_platform.offline.replay.sorted_shards import sorted_shard


def shard(events: int) -> EventShard:
    numbers = np.arange(events, dtype=np.int64)
    one_key = np.arange(min(events, 1), dtype=np.int64)
    return EventShard(
        key_high=one_key,
        key_low=one_key,
        starts=one_key,
        ends=one_key + events,
        matrix=np.stack([numbers, numbers * 2]),
        admitted_at=numbers,
        copies=np.stack([numbers, numbers, numbers], axis=1),
        copy_offsets=np.arange(events + 1, dtype=np.int64),
    )


@pytest.mark.parametrize("events", [0, 3])
def test_a_shard_is_made_once_and_read_as_it_was_made(tmp_path: Path, events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("CPython 3.11 does not parse in two threads at once")

    monkeypatch.setattr(ast, "parse", refuse)
    monkeypatch.setattr(ast, "literal_eval", refuse)
    made = shard(events)
    sorted_shard(tmp_path / "shard", lambda: made)
    kept = sorted_shard(tmp_path / "shard", lambda: pytest.fail("it is there"))
    for field in fields(EventShard):
        array, expected = getattr(kept, field.name), getattr(made, field.name)
        assert (array.dtype, array.shape) == (np.dtype(np.int64), expected.shape)
        assert np.array_equal(array, expected)
        assert not array.flags.writeable
