"""Every route has its scope, and holds to it."""

from __future__ import annotations

import httpx
import pytest
from starlette.routing import Route

from ofp_platform.api.app import Application
from ofp_platform.api.openapi import openapi
from ofp_platform.api.principals import Scope
from ofp_platform.api.route_scopes import GET_FEATURES, SCOPES, Open, scope_of
from ofp_platform_tests.api.fake_port import HASH, FakeBuilds, FakeOperators, FakeOverviews, FakePort, FakePosture, FakeRecords
from ofp_platform_tests.api.keys import authentication, principal
from ofp_platform_tests.api.test_app import REQUEST


def routes() -> set[tuple[str, str]]:
    """Path and method, as the application has them."""
    application = Application(
        FakePort(),
        FakeBuilds(),
        FakeOperators(),
        FakeRecords(),
        FakeOverviews(),
        posture=FakePosture(),
        authentication=authentication(),
    )
    rest = {(route.path, sorted(route.methods or ())[0]) for route in application._rest.routes if isinstance(route, Route)}
    return {(GET_FEATURES, "POST"), *rest}


def test_every_route_has_a_scope_and_every_scope_a_route() -> None:
    assert {path for path, _ in routes()} == SCOPES.keys()
    assert openapi()["paths"].keys() == SCOPES.keys() - {"/openapi.json", "/docs", "/console", "/console/{name}"}
    assert {path for path, scope in SCOPES.items() if scope is Open.OPEN} == {
        "/health",
        "/openapi.json",
        "/docs",
        "/console",
        "/console/{name}",
    }


@pytest.mark.parametrize(("path", "method"), sorted(routes()))
async def test_a_route_is_open_to_its_scope_alone(path: str, method: str) -> None:
    demanded_scope = scope_of(path, method)
    everything_else = [scope for scope in Scope if scope is not demanded_scope]
    without_key, without = principal("without", everything_else)
    only_key, only = principal("only", [] if isinstance(demanded_scope, Open) else [demanded_scope])
    port, builds = FakePort(), FakeBuilds()
    application = Application(
        port,
        builds,
        FakeOperators(),
        FakeRecords(),
        FakeOverviews(),
        posture=FakePosture(),
        authentication=authentication(without, only),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://localhost") as http:

        async def ask(key: str) -> httpx.Response:
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            where = path.replace("{snapshot_hash}", HASH).replace("{run_key}", HASH).replace("{decision_id}", HASH)
            where = where.replace("{name}", "app.js").replace("{comparison_id}", HASH).replace("{dataset_identity}", HASH)
            return await http.request(method, where, headers=headers, content=REQUEST)

        refused, answered = await ask(without_key), await ask(only_key)
    if demanded_scope is Open.OPEN:
        assert refused.status_code == answered.status_code == 200
        return
    assert (refused.status_code, refused.json()["reason"]) == (403, "FORBIDDEN")
    assert answered.status_code not in (401, 403)
    assert port.asked + builds.asked <= 1
