"""The engines that compute the features of a build: how it is run, and no part of what it is."""

from enum import StrEnum


class FeatureEngine(StrEnum):
    """`processes`: on this machine. `spark`: the shards on executors. Every engine gives the same bytes."""

    PROCESSES = "processes"
    SPARK = "spark"
