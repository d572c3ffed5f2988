"""Key shards in a random world: how many there are, when their number changes, and where a sequencer is given up half-way.

They go in turns in one thread: whoever would wait for the others at the barrier runs them there.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from ofp_platform.online.projecting.epoch_barrier import EpochBarrier
from ofp_platform.online.projecting.epoch_sequencer import EpochSequencer
from ofp_platform.online.projecting.projector import ApplyReceipt, Projector
from ofp_platform.online.projecting.shard_projector import ShardProjector
from ofp_platform.online.state.key_shards import KeyShard, reshard
from ofp_platform.storage.postgres import Pool

COUNTS = (1, 2, 4)
_SHARE_WITH_SHARDS = 0.35
_SHARE_RESHARDED = 0.15
_SHARE_GIVEN_UP = 0.1
_SHARE_TOGETHER = 0.15


class GivenUp(Exception):
    """The sequencer ends here."""


class _Turns:
    """A barrier that nobody waits at. `others`: run before shard 0 commits."""

    def __init__(self, shard: KeyShard, others: Callable[[int], None] = lambda version: None) -> None:
        self.shard = shard
        self.await_others = others

    def demand_attendance(self, version: int) -> None:
        """All are there."""

    def await_ready(self, version: int) -> None:
        """All are ready."""

    def tell(self) -> None:
        """Nobody has to be told."""

    def leave(self) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """Nothing is held."""


class WorldShards:
    """The shards of one projection of a world. `projector` is the one to apply with, made anew when it is asked for."""

    def __init__(self, pool: Pool, projection_id: int, seed: str, counts: Counter[str]) -> None:
        self._pool = pool
        self._projection_id = projection_id
        self._rng = random.Random(f"shards {seed}")
        self._counts = counts
        self._is_sharded = self._rng.random() < _SHARE_WITH_SHARDS
        self._give_up_at: int | None = None
        self.count = 1
        if self._is_sharded:
            self._set(self._rng.choice(COUNTS[1:]))

    def _set(self, count: int) -> None:
        self.count = count
        with self._pool.connection() as connection:
            reshard(connection, self._projection_id, count)
        self._counts["key shards"] += count > 1

    def projector(self, *arguments: Any) -> Projector:
        """A projector with those arguments: of all keys, or that of shard 0, which runs the others."""
        if self.count == 1 or self._rng.random() < _SHARE_TOGETHER:
            return Projector(*arguments)
        shards = [
            ShardProjector(*arguments, barrier=_barrier(_Turns(KeyShard(number, self.count)))) for number in range(1, self.count)
        ]

        def run(version: int) -> None:
            for number, shard in enumerate(shards):
                if number == self._give_up_at:
                    raise GivenUp
                shard.apply_next()
            if self._give_up_at is not None:
                raise GivenUp

        return EpochSequencer(*arguments, barrier=_barrier(_Turns(KeyShard(0, self.count), run)))

    def changed(self) -> bool:
        """Change the number of shards now and then; whether that was done."""
        if not self._is_sharded or self._rng.random() >= _SHARE_RESHARDED:
            return False
        self._set(self._rng.choice([count for count in COUNTS if count != self.count]))
        self._counts["key shards of another number"] += 1
        return True

    def apply(self, projector: Projector, batches: Sequence[Any], other: Callable[[], Projector]) -> ApplyReceipt:
        """Apply batches; now and then the sequencer ends with some shards done, and `other` finishes the epoch."""
        self._give_up_at = None
        if isinstance(projector, EpochSequencer) and self._rng.random() < _SHARE_GIVEN_UP:
            self._give_up_at = self._rng.randrange(self.count)
            try:
                projector.apply(batches)
            except GivenUp:
                self._counts["epochs finished by another sequencer"] += 1
            self._give_up_at = None
            receipt = other().apply_available(max_records=1)
            assert receipt is not None
            return receipt
        return projector.apply(batches)


def _barrier(turns: _Turns) -> EpochBarrier:
    return cast(EpochBarrier, turns)
