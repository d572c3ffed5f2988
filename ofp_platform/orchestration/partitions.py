"""Partitions of the assets. Two dimensions, few and aligned keys: the UI reads them all, again and again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from ofp_platform.log.connect import listed_partition_ids
from ofp_platform.log.ranges import range_name, range_number
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.registry.models import Pack
from ofp_platform.vocabulary.offline.build_intent import DatasetBuild
from ofp_platform.vocabulary.offline.build_run import BuildRun
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.times import to_micros

HOUR_FORMAT = "%Y-%m-%d-%H:%M"
DAY_FORMAT = "%Y-%m-%d"
OFFSET_RANGE = dg.DynamicPartitionsDefinition(name="offset_range")
REGISTRY_DIGEST = dg.DynamicPartitionsDefinition(name="registry_digest")
BUILD_REQUEST = dg.DynamicPartitionsDefinition(name="build_request")
_SHOWN_DIGITS = 8


class TooManyPartitions(Exception):
    """A run was asked for more partitions of time than one run may take; the text says how many."""


def event_hours(profile: Profile) -> dg.HourlyPartitionsDefinition:
    """The hours of event time from the profile's first day on."""
    start, end = _days(profile)
    return dg.HourlyPartitionsDefinition(start_date=start, end_date=end, timezone="UTC", fmt=HOUR_FORMAT)


def decision_days(profile: Profile) -> dg.DailyPartitionsDefinition:
    """The days of decisions from the profile's first day on."""
    start, end = _days(profile)
    return dg.DailyPartitionsDefinition(start_date=start, end_date=end, timezone="UTC", fmt=DAY_FORMAT)


def _days(profile: Profile) -> tuple[datetime, datetime | None]:
    """The first day of a profile, and the day behind its last one."""
    if profile.first_day is None:
        start = datetime(datetime.now(UTC).year - 1, 1, 1, tzinfo=UTC)
    else:
        start = datetime.fromisoformat(profile.first_day).replace(tzinfo=UTC)
    if profile.last_day is None:
        return start, None
    return start, datetime.fromisoformat(profile.last_day).replace(tzinfo=UTC) + timedelta(days=1)


def demand_few(keys: Sequence[str], most: int, unit: str) -> None:
    """Refuse a run over more partitions than `most`: "materialise all" means everything since the first day.

    Raises:
        TooManyPartitions: see there.
    """
    if len(keys) > most:
        raise TooManyPartitions(f"{keys[0]} to {keys[-1]}: {too_many(len(keys), most, unit)}")


def too_many(count: int, most: int, unit: str) -> str:
    """Say that so many partitions are more than a run takes."""
    return (
        f"{count:,} {unit} were asked for; one run takes at most {most:,}. Nothing was done: choose a range of them in the"
        " dialog, instead of all"
    )


def request_key(run_key: str, name: str) -> str:
    """The partition of a build request: its name and the first digits of its key, as in `my_first.efd4b69b`."""
    return f"{name}.{run_key[:_SHOWN_DIGITS]}"


def request_key_of(run: BuildRun) -> str:
    """The same, of a run of the ledger; one that builds no dataset has the name of its intent."""
    return request_key(run.run_key, run.intent.dataset_name if isinstance(run.intent, DatasetBuild) else run.intent.intent)


def run_of_key(ledger: RunLedger, key: str) -> BuildRun:
    """The run of a partition; the whole key of a run, as earlier releases made partitions of it, is one too.

    Raises:
        UnknownRun: none begins so, or more than one.
    """
    return ledger.show(key.rpartition(".")[2])


def registry_key(pack: Pack, digest: str) -> str:
    """The partition of a registry: pack, revision and the first digits of its digest, as in `card_payments-2.efd4b69b`."""
    return f"{pack.pack_id}-{pack.revision}.{digest[:_SHOWN_DIGITS]}"


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
