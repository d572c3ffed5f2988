"""What Dagster's pages send when somebody chooses all partitions, or many, or few."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform.orchestration.online.snapshot_assets import MOST_HOURS
from ofp_platform.orchestration.partition_bounds import PartitionBounds
from ofp_platform.orchestration.partitions import event_hours
from ofp_platform.orchestration.webserver_guard import Guard
from ofp_platform_tests.orchestration.test_webserver_guard import LAUNCH, READ, SESSION, Behind

PROFILE = Environment(profile="handbook").load_profile()
HOURS = event_hours(PROFILE).get_partition_keys()
SNAPSHOTS = {"path": ["online", "snapshot_set"]}
DAYS = {"path": ["offline", "correction_ledger"]}


def run_over(first: str, last: str) -> dict[str, Any]:
    tags = [{"key": "dagster/asset_partition_range_start", "value": first}]
    tags.append({"key": "dagster/asset_partition_range_end", "value": last})
    return {"executionParams": {"selector": {"assetSelection": [SNAPSHOTS]}, "executionMetadata": {"tags": tags}}}


def by_range(first: str, last: str) -> dict[str, Any]:
    part = {"assetKey": SNAPSHOTS, "partitions": {"range": {"start": first, "end": last}}}
    return {"backfillParams": {"partitionsByAssets": [part]}}


def backfill(*assets: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"backfillParams": {"assetSelection": list(assets), **more}}


@pytest.mark.parametrize(
    "variables",
    [
        backfill(SNAPSHOTS, allPartitions=True),
        backfill({"path": ["offline", "manifest"]}, SNAPSHOTS, allPartitions=True),
        backfill(SNAPSHOTS, partitionNames=HOURS),
        backfill(SNAPSHOTS, partitionNames=HOURS[: MOST_HOURS + 1]),
        by_range(HOURS[0], HOURS[MOST_HOURS]),
        run_over(HOURS[0], HOURS[-1]),
        {"executionParamsList": [run_over(HOURS[0], HOURS[-1])["executionParams"]]},
    ],
)
def test_more_than_a_run_takes(variables: dict[str, Any]) -> None:
    words = PartitionBounds.of(PROFILE).refusal(variables)
    assert words is not None
    assert words.startswith("online/snapshot_set: ")
    assert words.endswith("one run takes at most 744. Nothing was done: choose a range of them in the dialog, instead of all")


@pytest.mark.parametrize(
    "variables",
    [
        None,
        {},
        backfill({"path": ["offline", "manifest"]}, allPartitions=True),  # as many as there are requests
        backfill(DAYS, allPartitions=True),  # the history of the handbook is shorter than a year
        backfill(SNAPSHOTS, partitionNames=HOURS[:MOST_HOURS]),
        by_range(HOURS[0], HOURS[MOST_HOURS - 1]),
        by_range("yesterday", "today"),
        run_over(HOURS[5], HOURS[5]),
    ],
)
def test_what_a_run_takes(variables: dict[str, Any] | None) -> None:
    assert PartitionBounds.of(PROFILE).refusal(variables) is None


async def test_the_dialog_is_told_in_words_and_no_run_is_made() -> None:
    behind = Behind()
    guard = Guard(behind, SESSION, may_launch=True, launch_refusal=PartitionBounds.of(PROFILE).refusal)
    headers = {"authorization": f"Bearer {SESSION}", "content-type": "application/json"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://localhost:3000", headers=headers) as http:
        body = {**json.loads(LAUNCH), "variables": backfill(SNAPSHOTS, allPartitions=True)}
        refused = await http.post("/graphql", json=body)
        assert refused.status_code == 200
        assert "4,584 hours were asked for" in refused.json()["errors"][0]["message"]
        assert behind.reached == 0
        body["variables"] = backfill(SNAPSHOTS, partitionNames=HOURS[:2])
        assert (await http.post("/graphql", json=body)).text == "secret"
        assert (await http.post("/graphql", json={**json.loads(READ), "variables": body["variables"]})).text == "secret"
