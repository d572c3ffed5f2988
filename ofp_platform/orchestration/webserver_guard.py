"""The guard between a browser and Dagster's web server, which asks nobody who they are and changes things on a GET.

A page of another site that is open in the same browser reaches the loopback: by a name that was pointed here, by a link, by a
form. So the host and the origin must be this server's own; whoever asks has the session of the printed address; nothing but JSON
is taken; a GET never reaches GraphQL; and unless launching was asked for, no mutation does.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

import orjson
from graphql import FieldNode, GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ofp_platform.api.request_body import BodyReader
from ofp_platform.api.request_head import OwnHosts, header, is_json, is_own_origin
from ofp_platform.vocabulary.errors import ContractError

SESSION_PARAMETER = "session"
_COOKIE = "ofp_dagster_session"
_GRAPHQL = "/graphql"
# materialisations are told by runs; the plane has no notebooks, whose page reads any file of that kind
_CLOSED = ("/report_asset_", "/notebook", "/dagit/notebook")
# behind the address of a POST the pages name their operation, for whoever reads a log of requests; Dagster does not read it
_PAGE_QUERY = re.compile(rb"(op=\w{1,200})?", re.ASCII)
# what the pages send by themselves, and what changes nothing of the plane
_HARMLESS_MUTATIONS = frozenset({"logTelemetry", "setNuxSeen"})
_MAX_BODY_BYTES = 1 << 20
_BODY_SECONDS = 10.0
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


class Guard:
    """Over the application of a web server. `session` is the secret of the printed address; `may_launch`: mutations pass, but
    those of whose variables `launch_refusal` says why not.
    """

    def __init__(
        self,
        application: ASGIApp,
        session: str,
        *,
        may_launch: bool,
        hosts: OwnHosts | None = None,
        launch_refusal: Callable[[object], str | None] = lambda variables: None,
    ) -> None:
        self._application = application
        self._session = session
        # cookies do not know ports: whoever serves another one of this machine sees it, and must not see the session itself
        self._cookie = hashlib.sha256(f"cookie {session}".encode()).hexdigest()
        self._may_launch = may_launch
        self._launch_refusal = launch_refusal
        self._hosts = hosts or OwnHosts()
        self._bodies = BodyReader(_MAX_BODY_BYTES, _BODY_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of the ASGI server."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None and scope["type"] == "http" and scope["method"] == "POST":
            receive, refusal = await self._read(scope, receive)
        if refusal is None:
            await self._application(scope, receive, send)
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path = scope["headers"], scope["path"]
        host, origin = header(headers, b"host"), header(headers, b"origin")
        if sum(name == b"host" for name, _ in headers) != 1 or not self._hosts.holds(host, scope.get("server")):
            return _words(421, "this server is not known by the name in the header Host")
        is_own = origin is None or (host is not None and is_own_origin(origin, host))
        if not is_own or (origin is None and scope["type"] == "websocket"):
            return _words(403, "pages of another origin may not ask this server")
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["type"] == "http" and scope["method"] == "GET" and SESSION_PARAMETER in query:
            if not hmac.compare_digest(query[SESSION_PARAMETER][0].encode(), self._session.encode()):
                return _words(401, _WHERE)
            response = RedirectResponse("/", status_code=303, headers=_HEADERS)
            response.set_cookie(_COOKIE, self._cookie, httponly=True, samesite="strict", path="/")
            return response
        if not self._is_known(headers):
            return _words(401, _WHERE)
        if scope["type"] == "websocket":
            return None
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return _words(405, "this server takes GET, HEAD and POST only")
        if path.startswith(_CLOSED):
            return _words(403, "this door of Dagster is closed: what was materialised is told by runs")
        if scope["method"] != "POST" and path.rstrip("/") == _GRAPHQL and scope["query_string"]:
            return _words(405, "GraphQL is asked by POST: a GET changes nothing")
        is_page_query = _PAGE_QUERY.fullmatch(scope["query_string"]) is not None
        if scope["method"] == "POST" and (path.rstrip("/") != _GRAPHQL or not is_page_query):
            return _words(405, "only GraphQL is asked by POST, and in its body")
        if scope["method"] == "POST" and not is_json(header(headers, b"content-type")):
            return _words(415, "the body is sent with the header 'content-type: application/json'")
        return None

    def _is_known(self, headers: Any) -> bool:
        scheme, _, session = (header(headers, b"authorization") or b"").partition(b" ")
        if scheme.lower() == b"bearer":
            return hmac.compare_digest(session, self._session.encode())
        try:
            cookies = SimpleCookie((header(headers, b"cookie") or b"").decode("latin-1"))
        except CookieError:
            return False
        cookie = cookies.get(_COOKIE)
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._cookie.encode())

    async def _read(self, scope: Scope, receive: Receive) -> tuple[Receive, Response | None]:
        """The body, read here for its operation, and given to the server as it came."""
        try:
            body = await self._bodies.read(receive, header(scope["headers"], b"content-length"))
        except ContractError as error:
            return receive, _words(413, error.message)
        refusal = _mutation_refusal(body, self._launch_refusal if self._may_launch else None)
        is_given = False

        async def replay() -> Message:
            nonlocal is_given
            if is_given:
                return await receive()
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay, refusal


_WHERE = "open the address that `ofp up` printed: it has the session of this server"


def _words(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status_code=status, headers=_HEADERS)


def _mutation_refusal(body: bytes, launch_refusal: Callable[[object], str | None] | None) -> Response | None:
    """The refusal of a body that could change something, or where that may be, of one that `launch_refusal` names; None where
    each of its operations only reads.
    """
    try:
        content = orjson.loads(body)
        query = content["query"]
        operations = [node for node in parse(query).definitions if isinstance(node, OperationDefinitionNode)]
    except (orjson.JSONDecodeError, GraphQLError, TypeError, KeyError, RecursionError):
        return _words(400, "the body is no GraphQL request")
    for operation in operations:
        fields = operation.selection_set.selections
        is_harmless = all(isinstance(field, FieldNode) and field.name.value in _HARMLESS_MUTATIONS for field in fields)
        if operation.operation is not OperationType.MUTATION or is_harmless:
            continue
        if launch_refusal is None:
            return _words(403, "Dagster's pages are read-only here: `ofp up --launch` lets them launch runs and change things")
        if (words := launch_refusal(content.get("variables"))) is not None:
            # as GraphQL tells an error: the dialog shows it
            return JSONResponse({"data": None, "errors": [{"message": words}]}, headers=_HEADERS)
    return None
