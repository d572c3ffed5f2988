"""POST /get-online-features: the shape of Feast's feature server (feast_answers.json was recorded from one)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from ofp_platform.api import examples
from ofp_platform.api.app import Application
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.serving import FeatureGroups
from ofp_platform_tests.api.fake_port import (
    HASH,
    FakeBuilds,
    FakeOperators,
    FakeOverviews,
    FakePort,
    FakePosture,
    FakeRecords,
    FixedAnswer,
)
from ofp_platform_tests.api.keys import BEARER, authentication

RECORDED = json.loads(Path(__file__).with_name("feast_answers.json").read_text(encoding="utf-8"))["exchanges"]
ARRIVED = "2026-03-31T12:00:00.25Z"
GROUP = {"group_name": "merchant_stats", "group_version": "v1", "key_type": "merchant", "ttl_seconds": 60}


@dataclass
class ShopPort(FakePort):
    """Serves the group that the recorded server had: m1 and m2 are known, m2 has no rating."""

    versions: tuple[str, ...] = ("v1",)

    async def feature_groups(self) -> bytes:
        catalogue = examples.feature_groups_example()
        groups = [
            {**GROUP, "group_version": version, "features": ["rating", "visits"], "request_context": {}}
            for version in self.versions
        ]
        body = FeatureGroups.model_validate({**catalogue, "groups": groups}).model_dump(mode="json")
        return canonical_bytes({**body, "context_pins": catalogue["context_pins"]})

    async def answer(self, body: bytes) -> FixedAnswer:
        await super().answer(body)
        request = orjson.loads(body)
        known: dict[str, dict[str, Any]] = {"m1": {"rating": "4.5", "visits": 3}, "m2": {"rating": None, "visits": 4}}
        nothing = {"rating": None, "visits": None}
        by_key = [
            {**key, "by_group": [{**group, "features": known.get(key["key_id"], nothing)} for group in request["feature_groups"]]}
            for key in request["feature_keys"]
        ]
        freshness = [
            {
                **key,
                **group,
                "stale": key["key_id"] == "m2" and group["group_version"] == "v2",
                "last_update_event_time": "2026-01-01T00:00:00Z" if key["key_id"] in known else None,
            }
            for key in request["feature_keys"]
            for group in request["feature_groups"]
        ]
        as_of = request["as_of_time_utc"]
        snapshot = {"by_key": by_key, "feature_snapshot_hash": HASH, "as_of_time_utc": as_of}
        return FixedAnswer(orjson.dumps({"snapshot": snapshot, "provenance": {"freshness": freshness}}))


def client_of(port: FakePort) -> httpx.AsyncClient:
    application = Application(
        port,
        FakeBuilds(),
        FakeOperators(),
        FakeRecords(),
        FakeOverviews(),
        posture=FakePosture(),
        authentication=authentication(),
        arrival=lambda: ARRIVED,
    )
    headers = BEARER | {"content-type": "application/json"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost", headers=headers)


def shape(value: Any) -> Any:
    """Names and nesting, and of what kind a value is; a decimal is a text with us."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(part) for part in value]
    return "a number" if value == "4.5" or isinstance(value, float) else value


@pytest.mark.parametrize("number", range(len(RECORDED)))
async def test_answers_have_the_shape_of_those_that_were_recorded(number: int) -> None:
    exchange = RECORDED[number]
    async with client_of(ShopPort()) as http:
        response = await http.post("/get-online-features", json=exchange["request"])
    if exchange["status"] != 200:
        assert response.status_code == {404: 404, 422: 400}[exchange["status"]]
        assert response.json()["kind"] == "error_response"
        return
    ours, theirs = response.json(), exchange["answer"]
    metadata = ours["metadata"]
    assert (metadata.pop("feature_snapshot_hash"), metadata.pop("as_of_time_utc")) == (HASH, ARRIVED)
    assert response.headers["ofp-snapshot-hash"] == HASH
    # theirs are in the order of the view, ours in that of the request
    by_name = dict(zip(theirs["metadata"]["feature_names"], theirs["results"], strict=True))
    assert sorted(metadata["feature_names"]) == sorted(by_name)
    assert [shape(column) for column in ours["results"]] == [shape(by_name[name]) for name in metadata["feature_names"]]
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize(
    ("request_body", "status", "words"),
    [
        ({"features": ["merchant_stats:visits"], "entities": {"merchant": []}}, 400, "at least one"),
        ({"features": ["merchant_stats:visits"], "entities": {"merchant": ["a"], "account": ["a", "b"]}}, 400, "all as many"),
        ({"features": ["merchant_stats:visits"], "entities": {"merchant": ["a"], "merchant_id": ["a"]}}, 400, "is there twice"),
        ({"features": ["merchant_stats:visits"], "entities": {"driver": ["a"]}}, 400, "a key type is one of"),
        ({"features": ["merchant_stats:visits"], "entities": {"account": ["a"]}}, 400, "no keys of type merchant"),
        ({"features": ["merchant_stats"], "entities": {"merchant": ["a"]}}, 400, "GROUP:FEATURE"),
        ({"features": ["merchant_stats@:visits"], "entities": {"merchant": ["a"]}}, 400, "GROUP:FEATURE"),
        ({"features": ["merchant_stats@v9:visits"], "entities": {"merchant": ["a"]}}, 404, "no group that is served"),
        ({"features": ["merchant_stats:none"], "entities": {"merchant": ["a"]}}, 404, "no group that is served"),
        ({"features": ["merchant_stats:visits"], "entities": {"merchant": ["4111111111111111"]}}, 400, "key"),
        (
            {"features": ["merchant_stats:visits"], "entities": {"merchant": ["a"]}, "as_of_time_utc": "now"},
            400,
            "as_of_time_utc",
        ),
        ({"feature_service": "fraud", "entities": {"merchant": ["a"]}}, 400, "Field required"),
        ([], 400, "the body"),
    ],
)
async def test_what_cannot_be_asked_is_refused_in_words(request_body: Any, status: int, words: str) -> None:
    async with client_of(ShopPort()) as http:
        response = await http.post("/get-online-features", json=request_body)
    assert response.status_code == status
    assert words in response.json()["message"]
    assert "4111" not in response.text


async def test_versions_are_named_where_there_are_several() -> None:
    async with client_of(ShopPort(versions=("v1", "v2"))) as http:
        asked = {"entities": {"merchant": ["m2", "m2", "x"]}, "as_of_time_utc": "2026-02-01T00:00:00Z"}
        ambiguous = await http.post("/get-online-features", json={**asked, "features": ["merchant_stats:visits"]})
        assert "merchant_stats@v1, merchant_stats@v2" in ambiguous.json()["message"]
        features = ["merchant_stats@v2:visits", "merchant_stats@v1:visits"]
        answer = (
            await http.post("/get-online-features", json={**asked, "features": features, "full_feature_names": True})
        ).json()
    assert answer["metadata"]["feature_names"] == ["merchant", "merchant_stats@v2__visits", "merchant_stats@v1__visits"]
    assert [column["statuses"] for column in answer["results"][1:]] == [
        ["OUTSIDE_MAX_AGE", "OUTSIDE_MAX_AGE", "NOT_FOUND"],
        ["PRESENT", "PRESENT", "NOT_FOUND"],
    ]
    assert answer["metadata"]["as_of_time_utc"] == "2026-02-01T00:00:00Z"
