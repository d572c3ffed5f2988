"""The engines of a build: how it is run, and no part of what it is."""

from enum import StrEnum


class FeatureEngine(StrEnum):
    """`processes`: on this machine. `spark`: on executors, from the archive on. Every engine gives the same bytes."""

    PROCESSES = "processes"
    SPARK = "spark"
