"""The kill switch over HTTP: who may, what it answers, and what it refuses."""

from __future__ import annotations

import httpx
import pytest

from ofp_platform.api.posture_examples import posture_hold_example, posture_release_example, posture_view_example
from ofp_platform.api.principals import Scope
from ofp_platform.vocabulary.errors import Reason, unavailable
from ofp_platform_tests.api.fake_port import FakePort, FakePosture
from ofp_platform_tests.api.keys import authentication, principal
from ofp_platform_tests.api.test_app import client_of

HOLD, RELEASE = "/v0/posture/hold", "/v0/posture/release"


@pytest.fixture
def posture() -> FakePosture:
    return FakePosture()


def asking(posture: FakePosture, **settings: object) -> httpx.AsyncClient:
    return client_of(FakePort(), posture=posture, **settings)


async def test_it_is_shown_held_and_released(posture: FakePosture) -> None:
    async with asking(posture) as http:
        shown = await http.get("/v0/posture")
        held = await http.post(HOLD, json=posture_hold_example())
        released = await http.post(RELEASE, json=posture_release_example())
    for response in (shown, held, released):
        assert (response.status_code, response.json()) == (200, posture_view_example())
        assert response.headers["cache-control"] == "no-store"
    assert posture.asked == [("view",), ("hold", "everything"), ("release", "everything")]


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        (HOLD, b"{", "MALFORMED_JSON"),
        (HOLD, b"{}", "MISSING_FIELD"),
        (HOLD, b'{"mode": "HOLD"}', "MISSING_FIELD"),
        (HOLD, b'{"mode": "PANIC", "reason": "x"}', "INVALID_FIELD"),
        (HOLD, b'{"mode": "HOLD", "reason": ""}', "INVALID_FIELD"),
        (HOLD, b'{"mode": "HOLD", "reason": "x", "actor": "me"}', "INVALID_FIELD"),
        (RELEASE, b"{}", "MISSING_FIELD"),
        (RELEASE, b'{"reason": 7}', "INVALID_FIELD"),
        (RELEASE, b'{"reason": "' + b"x" * 5_000 + b'"}', "BODY_TOO_LARGE"),
    ],
)
async def test_a_body_that_is_none_is_refused(posture: FakePosture, path: str, body: bytes, reason: str) -> None:
    async with asking(posture) as http:
        refused = await http.post(path, content=body)
    assert refused.status_code in (400, 413)
    assert refused.json()["reason"] == reason
    assert posture.asked == []


async def test_another_run_and_another_method_are_refused(posture: FakePosture) -> None:
    key, stranger = principal("stranger", [Scope.OPERATE], runs=[])
    headers = {"authorization": f"Bearer {key}"}
    async with asking(posture, authentication=authentication(stranger)) as http:
        for method, path in (("GET", "/v0/posture"), ("POST", HOLD), ("POST", RELEASE)):
            refused = await http.request(method, path, json=posture_hold_example(), headers=headers)
            assert refused.json()["reason"] == "UNKNOWN_RUN"
    async with asking(posture) as http:
        assert (await http.get(HOLD)).headers["allow"] == "POST"
        assert (await http.post("/v0/posture", json={})).headers["allow"] == "GET, HEAD"
    assert posture.asked == []


async def test_an_outage_is_told(posture: FakePosture) -> None:
    posture.script = [unavailable(Reason.STORE_DOWN, "the database does not answer")]
    async with asking(posture) as http:
        refused = await http.post(HOLD, json=posture_hold_example())
    assert (refused.status_code, refused.json()["reason"]) == (503, "STORE_DOWN")
