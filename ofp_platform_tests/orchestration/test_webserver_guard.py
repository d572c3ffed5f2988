"""The guard over a server that answers everything: what a page of another site, or nobody, may reach."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from ofp_platform.orchestration.webserver_guard import Guard

SESSION = "s" * 43
READ = json.dumps({"query": "query Names { repositoriesOrError { __typename } }"}).encode()
LAUNCH = json.dumps({"query": "mutation L($p: X) { launchRun(executionParams: $p) { __typename } }"}).encode()


class Behind:
    """Counts what reaches it, and keeps the last body."""

    def __init__(self) -> None:
        self.reached = 0
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached += 1
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        self.body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret"})


@pytest.fixture
def behind() -> Behind:
    return Behind()


Ask = Callable[..., Awaitable[httpx.Response]]


def asking(behind: Behind, *, may_launch: bool = False, session: str | None = SESSION) -> Ask:
    guard = Guard(behind, SESSION, may_launch=may_launch)

    async def ask(method: str, path: str, content: bytes | None = None, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if session is not None and "cookie" not in sent:
            sent.setdefault("authorization", f"Bearer {session}")
        transport = httpx.ASGITransport(guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:3000", headers=sent) as http:
            return await http.request(method, path, content=content)

    return ask


async def test_the_printed_address_opens_a_session_and_nothing_else_does(behind: Behind) -> None:
    ask = asking(behind, session=None)
    for path in ("/", "/runs", "/graphql", "/logs/x", "/_next/app.js", f"/?session={SESSION[:-1]}", "/?session="):
        assert (await ask("GET", path)).status_code == 401
    assert behind.reached == 0
    opened = await ask("GET", f"/?session={SESSION}")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"]
    assert SESSION not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    own = cookie.split(";")[0]
    assert (await ask("GET", "/runs", cookie=own)).status_code == 200
    for wrong in (own[:-1], own + "0", own.split("=")[0], "", "\x7f=;;"):
        assert (await ask("GET", "/runs", cookie=wrong)).status_code == 401
    assert (await ask("GET", "/runs", authorization=f"Bearer {SESSION}x")).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:3000", "origin": "http://evil.example:3000"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost:8000"}, 403),
        ({"origin": "null"}, 403),
    ],
)
@pytest.mark.parametrize("may_launch", [True, False])
async def test_a_page_of_another_site_reaches_nothing_even_with_the_session(
    behind: Behind, headers: dict[str, str], status: int, may_launch: bool
) -> None:
    ask = asking(behind, may_launch=may_launch)
    for method, path, content in [("GET", "/", None), ("POST", "/graphql", READ), ("GET", f"/?session={SESSION}", None)]:
        assert (await ask(method, path, content, content_type="application/json", **headers)).status_code == status
    assert behind.reached == 0


@pytest.mark.parametrize("may_launch", [True, False])
async def test_a_get_changes_nothing(behind: Behind, may_launch: bool) -> None:
    ask = asking(behind, may_launch=may_launch)
    for method in ("GET", "HEAD"):
        for path in ("/graphql?query=mutation%20%7BlaunchRun%7D", "/graphql/?query=%7Ba%7D", "/graphql?query"):
            assert (await ask(method, path)).status_code == 405
    for path in (
        "/report_asset_materialization/a",
        "/report_asset_check/a",
        "/notebook?path=/etc/x.ipynb",
        "/dagit/notebook?path=x",
    ):
        for method in ("GET", "POST"):
            assert (await ask(method, path, b"{}", content_type="application/json")).status_code == 403
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert (await ask(method, "/graphql")).status_code == 405
    for path in ("/", "/server_info", "/graphql?query=mutation", "/graphql?op=A&query=mutation", "/graphql?op=", "/?op=A"):
        assert (await ask("POST", path, READ, content_type="application/json")).status_code == 405
    assert behind.reached == 0


async def test_the_pages_name_their_operation_behind_the_address(behind: Behind) -> None:
    ask = asking(behind)
    answered = await ask("POST", "/graphql?op=AssetRecordsQuery", READ, content_type="application/json")
    assert (answered.status_code, behind.body) == (200, READ)
    refused = await ask("POST", "/graphql?op=AssetRecordsQuery", LAUNCH, content_type="application/json")
    assert refused.status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/graphql", "application/x-www-form-urlencoded", ""])
async def test_only_json_is_taken(behind: Behind, kind: str) -> None:
    assert (await asking(behind, may_launch=True)("POST", "/graphql", LAUNCH, content_type=kind)).status_code == 415
    assert behind.reached == 0


@pytest.mark.parametrize(
    ("query", "passes"),
    [
        ("{ version }", True),
        ("query A { version } query B { version }", True),
        ("mutation { logTelemetry(action: 1) { __typename } }", True),
        ("mutation { setNuxSeen }", True),
        ("mutation { launchRun }", False),
        ("query A { version } mutation B { launchRun }", False),
        ("mutation { logTelemetry launchRun }", False),
        ("mutation { logTelemetry: launchRun }", False),
        ("mutation { ...logTelemetry } fragment logTelemetry on Mutation { launchRun }", False),
        ("mutation { ... on Mutation { launchRun } }", False),
        ("mutation {", False),
        (7, False),
        (None, False),
    ],
)
async def test_without_launch_no_mutation_passes(behind: Behind, query: Any, passes: bool) -> None:
    body = json.dumps({"query": query}).encode()
    response = await asking(behind)("POST", "/graphql", body, content_type="application/json")
    assert (response.status_code == 200) is passes
    assert behind.reached == passes
    if passes:
        assert behind.body == body


async def test_bodies_that_are_no_request_are_refused(behind: Behind) -> None:
    for body in (b"", b"[]", b'[{"query": "mutation { launchRun }"}]', b"{", b'"x"', b"\xff"):
        assert (await asking(behind)("POST", "/graphql", body, content_type="application/json")).status_code == 400
    assert (await asking(behind)("POST", "/graphql", b" " * (1 << 21), content_type="application/json")).status_code == 413
    assert behind.reached == 0


async def test_with_launch_a_mutation_passes_whole(behind: Behind) -> None:
    response = await asking(behind, may_launch=True)("POST", "/graphql", LAUNCH, content_type="application/json")
    assert response.status_code == 200
    assert behind.body == LAUNCH


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ([(b"host", b"localhost"), (b"origin", b"http://localhost"), (b"authorization", f"Bearer {SESSION}".encode())], True),
        ([(b"host", b"localhost"), (b"authorization", f"Bearer {SESSION}".encode())], False),
        ([(b"host", b"localhost"), (b"origin", b"http://localhost")], False),
        ([(b"host", b"localhost"), (b"origin", b"http://evil"), (b"authorization", f"Bearer {SESSION}".encode())], False),
        ([(b"host", b"evil"), (b"origin", b"http://evil"), (b"authorization", f"Bearer {SESSION}".encode())], False),
    ],
)
async def test_web_sockets_are_of_the_own_page(behind: Behind, headers: list[tuple[bytes, bytes]], passes: bool) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = {"type": "websocket", "path": "/graphql", "headers": headers, "query_string": b"", "server": ("127.0.0.1", 3000)}
    await Guard(behind, SESSION, may_launch=True)(scope, receive, send)
    assert sent == (["websocket.accept"] if passes else ["websocket.close"])
