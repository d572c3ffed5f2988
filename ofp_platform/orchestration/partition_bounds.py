"""How many hours or days a launch asks for, told before Dagster makes a run of it.

"Materialise all" means every partition since the profile's first day. A run refuses that by itself, but only after Dagster has
written an event for each of thousands of partitions, which takes minutes. The guard asks here first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ofp_platform.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from ofp_platform.orchestration.offline.parity_assets import CORRECTION_LEDGER, MOST_DAYS
from ofp_platform.orchestration.online.snapshot_assets import MOST_HOURS, SNAPSHOT_SET
from ofp_platform.orchestration.partitions import decision_days, event_hours, too_many
from ofp_platform.vocabulary.profile import Profile


@dataclass(frozen=True)
class PartitionBounds:
    """The partitions of the assets by time, and the most of each that one launch may ask for."""

    bounds: Mapping[str, tuple[dg.TimeWindowPartitionsDefinition, int, str]]

    @classmethod
    def of(cls, profile: Profile) -> PartitionBounds:
        """Those of a profile."""
        return cls(
            {
                SNAPSHOT_SET.to_user_string(): (event_hours(profile), MOST_HOURS, "hours"),
                CORRECTION_LEDGER.to_user_string(): (decision_days(profile), MOST_DAYS, "days"),
            }
        )

    def refusal(self, variables: object) -> str | None:
        """Why a launch with these GraphQL variables asks for too much; None where it does not."""
        for asked in _mappings(variables):
            for asset in _assets(asked):
                if asset not in self.bounds:
                    continue
                definition, most, unit = self.bounds[asset]
                count = _count(asked, asset, definition)
                if count > most:
                    return f"{asset}: {too_many(count, most, unit)}"
        return None


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    """Every object in the variables."""
    if isinstance(value, Mapping):
        yield value
        for part in value.values():
            yield from _mappings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _mappings(part)


def _assets(asked: Mapping[str, Any]) -> Iterator[str]:
    """The assets that an object of variables selects: for a backfill, for a run, or one by one."""
    selector = asked.get("selector")
    for selection in (asked, selector if isinstance(selector, Mapping) else {}):
        for key in selection.get("assetSelection") or ():
            yield _name(key)
    for part in asked.get("partitionsByAssets") or ():
        yield _name(part.get("assetKey"))


def _name(key: object) -> str:
    return "/".join(map(str, key.get("path") or ())) if isinstance(key, Mapping) else ""


def _count(asked: Mapping[str, Any], asset: str, definition: dg.TimeWindowPartitionsDefinition) -> int:
    """How many partitions of the asset are meant; 0 where the object names none in a way that is known."""
    if asked.get("allPartitions"):
        return definition.get_num_partitions()
    if names := asked.get("partitionNames"):
        return len(names)
    ranges = [
        (part.get("start"), part.get("end"))
        for entry in asked.get("partitionsByAssets") or ()
        if _name(entry.get("assetKey")) == asset
        for part in _ranges(entry.get("partitions"))
    ]
    tags = {tag["key"]: tag["value"] for tag in (asked.get("executionMetadata") or {}).get("tags") or ()}
    ranges.append((tags.get(ASSET_PARTITION_RANGE_START_TAG), tags.get(ASSET_PARTITION_RANGE_END_TAG)))
    return sum(_keys_between(definition, start, end) for start, end in ranges)


def _ranges(partitions: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(partitions, Mapping):
        yield from partitions.get("ranges") or ()
        if partitions.get("range"):
            yield partitions["range"]


def _keys_between(definition: dg.TimeWindowPartitionsDefinition, start: object, end: object) -> int:
    if start is None or end is None:
        return 0
    try:
        first, last = (definition.start_time_for_partition_key(str(key)) for key in (start, end))
    except ValueError:
        return 0  # Dagster says what is wrong with such a key
    return definition.get_num_partitions_in_window(dg.TimeWindow(first, last)) + 1
