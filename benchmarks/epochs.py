"""A simulation of epochs: shards apply the same cuts of the log, and an answer reads the newest epoch that all of them have.

Seeded, without a clock of the machine. Durations are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Pauses:
    """Pauses that a commit meets with some chance: exponential with that mean, at most `most`."""

    name: str
    chance: float
    mean: float
    most: float = 60_000.0


@dataclass(frozen=True)
class EpochWorld:
    """`shards` apply epochs of `cadence`, busy for the part `load` of it, and commit in `commit` (log-normal around it).

    `copies` of each shard apply the same epochs to the same bytes; whichever is first counts. With `barrier` no shard begins an
    epoch before all have the one before.
    """

    shards: int
    cadence: float = 50.0
    load: float = 0.4
    commit: float = 5.0
    pauses: Pauses = Pauses("none", 0.0, 0.0)
    copies: int = 1
    barrier: bool = False


@dataclass(frozen=True)
class Freshness:
    """From the arrival of an event until an answer can hold it; `own_shard`: if answers did not wait for the other shards.

    `falls_behind`: it grows from epoch to epoch, and the quantiles say nothing but how long was looked at.
    """

    p50: float
    p99: float
    p999: float
    own_shard_p99: float
    falls_behind: bool


def simulate(world: EpochWorld, *, epochs: int = 20_000, seed: int = 1) -> Freshness:
    """The freshness of events that arrive evenly over all epochs and shards."""
    rng = np.random.default_rng([seed, world.shards, world.copies])
    processes = (world.copies, world.shards)
    free = np.zeros(processes)
    servable = np.empty(epochs)
    own = np.empty(epochs)
    for epoch in range(epochs):
        cut = (epoch + 1) * world.cadence
        begin = np.maximum(free, cut)
        if world.barrier and epoch:
            begin = np.maximum(begin, servable[epoch - 1])
        free = begin + _duration(world, rng, processes)
        first_copies = free.min(axis=0)
        servable[epoch] = first_copies.max() - cut
        own[epoch] = first_copies[epoch % world.shards] - cut
        if world.barrier:
            servable[epoch] += cut  # as a moment, for the next epoch to wait for
    if world.barrier:
        servable -= (np.arange(epochs) + 1) * world.cadence
    waited = rng.uniform(0.0, world.cadence, epochs)  # of an event, for the end of its epoch
    p50, p99, p999 = np.quantile(servable + waited, [0.5, 0.99, 0.999])
    # later epochs of a world that keeps up wait no longer than earlier ones, but for the size of a pause
    half = epochs // 2
    falls_behind = bool(np.median(servable[half:]) > 2 * np.median(servable[:half]) + world.pauses.mean)
    return Freshness(float(p50), float(p99), float(p999), float(np.quantile(own + waited, 0.99)), falls_behind)


def _duration(world: EpochWorld, rng: np.random.Generator, processes: tuple[int, int]) -> Float64:
    """Of applying and committing one epoch, by copy and shard."""
    duration = world.load * world.cadence + world.commit * rng.lognormal(0.0, 0.3, processes)
    pauses = world.pauses
    if pauses.chance:
        paused = rng.random(processes) < pauses.chance
        duration += paused * np.minimum(rng.exponential(pauses.mean, processes), pauses.most)
    return duration
