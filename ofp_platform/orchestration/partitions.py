"""Partitions of the assets. Two dimensions, few and aligned keys: the UI reads them all, again and again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from ofp_platform.log.connect import listed_partition_ids
from ofp_platform.log.ranges import range_name, range_number
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.times import to_micros

HOURS_FROM = datetime(2018, 1, 1, tzinfo=UTC)
HOUR_FORMAT = "%Y-%m-%d-%H:%M"
DAY_FORMAT = "%Y-%m-%d"
OFFSET_RANGE = dg.DynamicPartitionsDefinition(name="offset_range")
REGISTRY_DIGEST = dg.DynamicPartitionsDefinition(name="registry_digest")
BUILD_REQUEST = dg.DynamicPartitionsDefinition(name="build_request")
DECISION_DAY = dg.DailyPartitionsDefinition(start_date=HOURS_FROM, timezone="UTC", fmt=DAY_FORMAT)
EVENT_HOUR = dg.HourlyPartitionsDefinition(start_date=HOURS_FROM, timezone="UTC", fmt=HOUR_FORMAT)


@dataclass(frozen=True)
class LogPartitions:
    """The partitions that depend on the profile: those of the log, alone and crossed with the offset ranges."""

    log_partition: dg.StaticPartitionsDefinition
    log_partition_range: dg.MultiPartitionsDefinition


def log_partitions(profile: Profile, dsn: str | None) -> LogPartitions:
    """The log's partitions as the log lists them now; those of a new stream where there is none yet, or it does not answer.

    Splits and merges come in when the code location is loaded again.
    """
    static = dg.StaticPartitionsDefinition(listed_partition_ids(profile, dsn))
    return LogPartitions(static, dg.MultiPartitionsDefinition({"log_partition": static, "offset_range": OFFSET_RANGE}))


def range_key(partition_id: str, number: int) -> dg.MultiPartitionKey:
    """The key of one range of one log partition."""
    return dg.MultiPartitionKey({"log_partition": partition_id, "offset_range": range_name(number)})


@dataclass(frozen=True)
class RangeSelection:
    """The ranges of a run: numbers, ascending, by log partition; `foreign`: why each other key names no range, by key."""

    numbers: dict[str, list[int]]
    foreign: dict[str, str]


def select_ranges(keys: Iterable[str]) -> RangeSelection:
    """Read partition keys. A key that names no range (anybody can add one in Dagster's dialog) is set aside with the reason."""
    numbers_by_partition: dict[str, list[int]] = {}
    foreign: dict[str, str] = {}
    for key in keys:
        partition_id, _, name = key.rpartition("|")
        try:
            number = range_number(name)
        except ValueError as error:
            foreign[key] = f"{error}. It was added by hand; the sensor commit_reporter removes it"
            continue
        numbers_by_partition.setdefault(partition_id, []).append(number)
    return RangeSelection({name: sorted(numbers) for name, numbers in sorted(numbers_by_partition.items())}, foreign)


def foreign_range_names(names: Iterable[str]) -> list[str]:
    """Dynamic partitions of `OFFSET_RANGE` that name no range."""
    return sorted(key.removeprefix("|") for key in select_ranges(f"|{name}" for name in names).foreign)


def hour_start(key: str) -> int:
    """The beginning of an hour partition, microseconds."""
    return to_micros(datetime.strptime(key, HOUR_FORMAT).replace(tzinfo=UTC))
