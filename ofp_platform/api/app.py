"""The HTTP service as an ASGI application.

POST /v0/get_features is answered without a framework, which would cost more than the answer, and without ASGI where that can be.
Everything else goes through Starlette. Whatever happens, the client gets an object of the contract: never a 500, never a
stack trace.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ofp_platform.api.access_log import WRITE_SECONDS, AccessLog
from ofp_platform.api.authentication import LOOK_SECONDS, Authentication, Caller, KeysWanted
from ofp_platform.api.build_routes import BUILD_PREFIX, caller_of
from ofp_platform.api.connection_places import Places
from ofp_platform.api.docs_page import docs_page
from ofp_platform.api.feast_questions import answer_of, read_question
from ofp_platform.api.health_ring import STEP_SECONDS, HealthRing
from ofp_platform.api.http_connection import Reply
from ofp_platform.api.http_metrics import HttpMetrics
from ofp_platform.api.http_policy import HttpPolicy
from ofp_platform.api.live_example import LiveExample, ask_live
from ofp_platform.api.openapi import openapi_bytes
from ofp_platform.api.operator_routes import demand_run, parameter
from ofp_platform.api.principals import Scope as PrincipalScope
from ofp_platform.api.refusals import JSON_TYPE, RETRY_AFTER_SECONDS, Headers, refusal, unexpected
from ofp_platform.api.request_body import BodyReader
from ofp_platform.api.request_head import OwnHosts, check_head, header, is_json, is_own_origin
from ofp_platform.api.request_spans import tell_get_features
from ofp_platform.api.route_scopes import (
    CATALOGUE,
    DOCS,
    ENTITY,
    FEAST_FEATURES,
    FEATURE_GROUPS,
    GET_FEATURES,
    HEALTH,
    HEALTH_HISTORY,
    METRICS,
    OPENAPI,
    REBUILT_SNAPSHOT,
    SCOPES,
    SNAPSHOT,
    Open,
    scope_of,
)
from ofp_platform.api.route_table import Ports, RouteTable, methods_of, routes_behind
from ofp_platform.api.service import (
    ActionPort,
    BuildPort,
    CasePort,
    MayRead,
    OperatorPort,
    OverviewPort,
    PosturePort,
    RecordPort,
    ServedAnswer,
    ServingPort,
)
from ofp_platform.api.signing_keys import KeySet
from ofp_platform.api.tls import ClientCertificate
from ofp_platform.telemetry.event_spans import event_spans
from ofp_platform.vocabulary.background_tasks import BackgroundTasks, EndedTasks
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.health_history import MOST_HOURS
from ofp_platform.vocabulary.identity import FeatureKey, readable_pins
from ofp_platform.vocabulary.model import IDENTIFIER_PATTERN, is_digest
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier
from ofp_platform.vocabulary.serving import OFFLINE_CONTRACT_VERSION, FeatureGroups, PostureState
from ofp_platform.vocabulary.snapshot_hash import CONTRACT_VERSION
from ofp_platform.vocabulary.times import format_time, parse_time

_GET_FEATURES_TARGET = GET_FEATURES.encode()
HASH_HEADER = b"ofp-snapshot-hash"
PRINCIPALS, SIGNING_KEYS, ACCESS_LOG, HISTORY = "principals", "signing keys", "access log", "health history"
"""Its background tasks, as health names one that ended."""
_VITAL_TARGETS = frozenset({b"/health", b"/metrics"})
_ASKING = PrincipalScope.FEATURES_READ
_REQUEST_ID = re.compile(IDENTIFIER_PATTERN.encode())
# the page has styles of its own and nothing else: no script, no other host
_DOCS_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"}


def _new_request_id() -> str:
    return uuid.uuid4().hex


def _arrival() -> str:
    return format_time(time.time_ns() // 1_000)


class Application:
    """The service over its ports; `cases` and `actions` are None where it serves none. `clock` gives seconds, only for durations;
    `new_request_id` an id for the log; `arrival` the time of a request of Feast's shape, which names none.

    `hosts`: the names under which it may be asked. `access`: where it is told who asked for what. `ring`: where health is kept
    over time, for this process alone if there is none. `ended`: where it is told that a background task ended, for health.
    `wall_clock`: seconds since 1970.
    """

    def __init__(
        self,
        port: ServingPort,
        builds: BuildPort,
        operators: OperatorPort,
        records: RecordPort,
        overviews: OverviewPort,
        *,
        posture: PosturePort,
        authentication: Authentication,
        cases: CasePort | None = None,
        actions: ActionPort | None = None,
        hosts: OwnHosts | None = None,
        access: AccessLog | None = None,
        ring: HealthRing | None = None,
        ended: EndedTasks | None = None,
        policy: HttpPolicy | None = None,
        clock: Callable[[], float] = time.perf_counter,
        wall_clock: Callable[[], float] = time.time,
        new_request_id: Callable[[], str] = _new_request_id,
        arrival: Callable[[], str] = _arrival,
    ) -> None:
        self._port = port
        self._ports = Ports(port, builds, operators, records, overviews, posture, cases, actions)
        self._authentication = authentication
        self._hosts = hosts or OwnHosts()
        self._access = access
        self._ring = ring or HealthRing()
        self._wall_clock = wall_clock
        self._tasks = BackgroundTasks(ended)
        self._key_readings: dict[KeySet, asyncio.Future[None]] = {}
        self._policy = policy or HttpPolicy()
        self._clock = clock
        self._new_request_id = new_request_id
        self._arrival = arrival
        self._bodies = BodyReader(self._policy.max_body_bytes, self._policy.body_timeout_seconds)
        self._in_flight = 0
        self._example: LiveExample | None = None
        self._openapi_page: tuple[LiveExample | None, bytes] | None = None
        self._page: tuple[LiveExample | None, str, bytes] | None = None
        self.metrics = HttpMetrics()
        own: RouteTable = {
            ("GET", SNAPSHOT): self._snapshot,
            ("GET", REBUILT_SNAPSHOT): self._rebuilt_snapshot,
            ("GET", FEATURE_GROUPS): self._feature_groups,
            ("GET", CATALOGUE): self._catalogue,
            ("GET", ENTITY): self._entity,
            ("GET", HEALTH): self._health,
            ("GET", HEALTH_HISTORY): self._health_history,
            ("GET", METRICS): self._metrics,
            ("GET", OPENAPI): self._openapi,
            ("GET", DOCS): self._docs,
            ("POST", FEAST_FEATURES): self._feast_features,
        }
        table = routes_behind(self._ports, self._policy) | own
        self._routes = [
            Route(path, self._guard(path, answer, method), methods=[method]) for (method, path), answer in table.items()
        ]
        self._rest = Starlette(routes=self._routes, exception_handlers={HTTPException: self._no_route})
        self._rest.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of the ASGI server."""
        if scope["type"] == "http":
            if scope["path"] == GET_FEATURES:
                await self._get_features(scope, receive, send)
            else:
                await self._rest(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    @property
    def max_body_bytes(self) -> int:
        """Of a request to get_features."""
        return self._policy.max_body_bytes

    @property
    def body_timeout_seconds(self) -> float:
        """For the body of a request."""
        return self._policy.body_timeout_seconds

    @property
    def vital_targets(self) -> frozenset[bytes]:
        """Answered while every place for a connection is taken."""
        return _VITAL_TARGETS

    def no_place(self) -> Reply:
        """The refusal where every place for a connection is taken, by all or by the peer."""
        error = unavailable(Reason.OVERLOADED, "no place for another connection; try again")
        self.metrics.record("other", error.reason.value, 0.0)
        return Reply(*refusal(error, self._new_request_id()))

    def show_places(self, places: Places[Any]) -> None:
        """Tell in the metrics from now on how many of these are taken."""
        self.metrics.places = places

    def takes(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        server: tuple[str, int] | None,
        certificate: ClientCertificate | None,
    ) -> Caller | None:
        """Who asks, if it is a question of somebody who may ask."""
        if method != b"POST" or target != _GET_FEATURES_TARGET:
            return None
        head = dict(headers)
        host, origin = head.get(b"host"), head.get(b"origin")
        if (
            len(head) != len(headers)  # one that stands there twice is looked at on the other way
            or host is None
            or not self._hosts.holds(host, server)
            or not is_json(head.get(b"content-type"))
            or (origin is not None and not is_own_origin(origin, host))
            or (self._access is not None and self._access.is_full)
        ):
            return None
        try:
            caller = self._authentication.caller(head.get(b"authorization"), certificate)
            caller.demand(_ASKING)
        except ContractError:
            return None  # refused before its body is read
        return caller

    def reply(self, caller: Caller, headers: Headers, body: bytes) -> Reply | Awaitable[Reply]:
        """The answer to a question that `takes` let in; an awaitable where it needs the store."""
        start = self._clock()
        try:
            self._refuse_overload()
            answer = self._answer(caller, body)
        except Exception as exception:
            return self._refused(exception, caller, start, headers, body)
        if isinstance(answer, Awaitable):
            return self._reply_later(answer, caller, start, headers, body)
        return self._answered(answer, caller, start, headers)

    def _answer(self, caller: Caller, body: bytes) -> ServedAnswer | Awaitable[ServedAnswer]:
        if not caller.reads_here:
            raise self._port.refuse_run(body)
        return self._port.answer(body)

    async def _reply_later(
        self, answer: Awaitable[ServedAnswer], caller: Caller, start: float, headers: Headers, body: bytes
    ) -> Reply:
        self._in_flight += 1
        try:
            return self._answered(await answer, caller, start, headers)
        except Exception as exception:
            return self._refused(exception, caller, start, headers, body)
        finally:
            self._in_flight -= 1

    async def _get_features(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = self._clock()
        body = b""
        headers = scope["headers"]
        caller: Caller | None = None
        try:
            if scope["method"] != "POST":
                raise invalid(Reason.METHOD_NOT_ALLOWED, f"{GET_FEATURES} takes POST only")
            caller = await self._caller(GET_FEATURES, scope)
            assert caller is not None  # the route demands a scope
            caller.demand(_ASKING)
            self._refuse_overload()
            self._in_flight += 1
            try:
                body = await self._bodies.read(receive, header(headers, b"content-length"))
                answer = self._answer(caller, body)
                if isinstance(answer, Awaitable):
                    answer = await answer
            finally:
                self._in_flight -= 1
            reply = self._answered(answer, caller, start, headers)
        except Exception as exception:
            reply = self._refused(exception, caller, start, headers, body)
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await send({"type": "http.response.body", "body": reply.content})

    async def _caller(self, route: str, scope: Scope) -> Caller | None:
        """Who asks, None at a route that is open; the scope is still to be demanded.

        Raises:
            ContractError: it comes from another site, or from nobody who may ask that.
        """
        headers = scope["headers"]
        check_head(headers, scope.get("server"), self._hosts, has_body=scope["method"] == "POST")
        if SCOPES[route] is Open.OPEN:
            return None
        if self._access is not None and self._access.is_full:
            raise unavailable(Reason.STORE_DOWN, "accesses cannot be recorded; the log of the service says why")
        return await self._authenticated(scope)

    async def _authenticated(self, scope: Scope) -> Caller:
        """Who asks, when the keys of the issuer of a token were read again, where that may tell something."""
        authorization, certificate = header(scope["headers"], b"authorization"), scope.get("certificate")
        try:
            return self._authentication.caller(authorization, certificate)
        except KeysWanted as wanted:
            await asyncio.shield(self._read_keys(wanted.key_set))
            return self._authentication.caller(authorization, certificate)

    def _refuse_overload(self) -> None:
        if self._in_flight >= self._policy.max_in_flight:
            raise unavailable(Reason.OVERLOADED, f"{self._in_flight} requests are being answered; try again")

    def _answered(self, answer: ServedAnswer, caller: Caller, start: float, request_headers: Headers) -> Reply:
        content = answer.body
        headers: Headers = [
            (b"content-type", JSON_TYPE),
            (b"content-length", b"%d" % len(content)),
            (HASH_HEADER, answer.hash.encode("ascii")),
        ]
        # before the send, so that whoever has its answer also finds it counted
        self.metrics.record(GET_FEATURES, "OK", self._clock() - start)
        if event_spans() is not None:
            tell_get_features(request_headers, self._clock() - start, answer.hash, None)
        if self._access is not None:
            self._access.record(caller.principal.name, caller.credential, GET_FEATURES, answer.hash, "OK")
        return Reply(200, headers, content)

    def _refused(self, exception: Exception, caller: Caller | None, start: float, headers: Headers, body: bytes) -> Reply:
        error, request_id = self._contract_error(exception, GET_FEATURES, headers)
        if error.context_pins is None:
            error.context_pins = readable_pins(body)
        reply = Reply(*refusal(error, request_id))
        if error.reason is Reason.METHOD_NOT_ALLOWED:
            reply.headers.append((b"allow", b"POST"))
        self.metrics.record(GET_FEATURES, error.reason.value, self._clock() - start)
        if event_spans() is not None:
            tell_get_features(headers, self._clock() - start, None, error.reason.value)
        self._record(caller, GET_FEATURES, None, error.reason.value)
        return reply

    def _record(self, caller: Caller | None, route: str, digest: str | None, outcome: str) -> None:
        if self._access is not None:
            name, credential = (None, None) if caller is None else (caller.principal.name, caller.credential)
            self._access.record(name, credential, route, digest, outcome)

    def _contract_error(self, exception: Exception, route: str, headers: Headers) -> tuple[ContractError, str]:
        given_id = header(headers, b"x-request-id")
        request_id = given_id.decode("ascii") if given_id is not None and _REQUEST_ID.fullmatch(given_id) else None
        if request_id is None or holds_raw_identifier(request_id):
            request_id = self._new_request_id()
        if isinstance(exception, ContractError):
            return exception, request_id
        self.metrics.record_unexpected()
        return unexpected(exception, route, request_id), request_id

    def _guard(
        self, route: str, answer: Callable[[Request], Awaitable[Response]], method: str
    ) -> Callable[[Request], Awaitable[Response]]:
        demanded_scope = scope_of(route, method)  # each route has its scope in the one place

        async def endpoint(request: Request) -> Response:
            start = self._clock()
            outcome = "OK"
            caller: Caller | None = None
            try:
                caller = request.state.caller = await self._caller(route, request.scope)
                if caller is not None and demanded_scope is not Open.OPEN:
                    caller.demand(demanded_scope)
                response = await answer(request)
            except Exception as exception:
                error, request_id = self._contract_error(exception, route, request.scope["headers"])
                if error.context_pins is None:
                    error.context_pins = readable_pins(getattr(request.state, "body", b""))
                outcome = error.reason.value
                response = _error_response(error, request_id, route)
            self.metrics.record(route, outcome, self._clock() - start)
            if demanded_scope is not Open.OPEN:
                # a path has one name at most; without it, what the answer is about
                digest = next(iter(request.path_params.values()), getattr(request.state, "digest", None))
                self._record(caller, route, digest if digest is not None and is_digest(digest) else None, outcome)
            return response

        return endpoint

    async def _no_route(self, request: Request, exception: Exception) -> Response:
        allow = None
        error = not_found(Reason.UNKNOWN_PATH, "no such path; see GET /docs")
        if isinstance(exception, HTTPException) and exception.status_code == 405:
            methods = methods_of(self._routes, request.scope["path"])
            allow = ", ".join(methods)
            error = invalid(Reason.METHOD_NOT_ALLOWED, f"this path takes {' and '.join(methods)} only")
        error, request_id = self._contract_error(error, "other", request.scope["headers"])
        self.metrics.record("other", error.reason.value, 0.0)
        response = _error_response(error, request_id, request.scope["path"])
        if allow is not None:
            response.headers["allow"] = allow
        return response

    async def _snapshot(self, request: Request) -> Response:
        return await self._by_hash(request, self._port.snapshot)

    async def _rebuilt_snapshot(self, request: Request) -> Response:
        return await self._by_hash(request, self._port.rebuilt_snapshot)

    async def _by_hash(self, request: Request, load: Callable[[str, MayRead], Awaitable[bytes]]) -> Response:
        name = request.path_params["snapshot_hash"]
        if not is_digest(name):
            raise invalid(Reason.INVALID_FIELD, "a snapshot hash is 64 lower-case hex digits")
        body = await load(name, caller_of(request).principal.may_read)
        # immutable by its name: whoever has it may keep it
        headers = {HASH_HEADER.decode(): name, "cache-control": "private, max-age=31536000, immutable"}
        return Response(body, media_type="application/json", headers=headers)

    async def _feature_groups(self, request: Request) -> Response:
        if not caller_of(request).reads_here:
            raise not_found(Reason.UNKNOWN_RUN, "no run that you may read is served here")
        return Response(await self._port.feature_groups(), media_type="application/json")

    async def _catalogue(self, request: Request) -> Response:
        if not caller_of(request).reads_here:
            raise not_found(Reason.UNKNOWN_RUN, "no run that you may read is served here")
        return Response(await self._port.catalogue(), media_type="application/json")

    async def _entity(self, request: Request) -> Response:
        demand_run(request)
        key_type, key_id = parameter(request, "key_type"), parameter(request, "key_id")
        if key_type is None or key_id is None:
            raise invalid(Reason.MISSING_FIELD, "the query names a key: ?key_type=TYPE&key_id=ID&as_of_time_utc=TIME")
        as_of = parameter(request, "as_of_time_utc")
        try:
            key = FeatureKey.model_validate({"key_type": key_type, "key_id": key_id})
            moment = parse_time(self._arrival() if as_of is None else as_of)
        except ValueError:
            text = "key_type is a key type, key_id a canonical id and as_of_time_utc a time with Z"
            raise invalid(Reason.INVALID_FIELD, text) from None
        return Response(
            await self._port.entity(key, moment), media_type="application/json", headers={"cache-control": "no-store"}
        )

    async def _feast_features(self, request: Request) -> Response:
        content_length = request.headers.get("content-length")
        body = await self._bodies.read(request.receive, None if content_length is None else content_length.encode("latin-1"))
        if not caller_of(request).reads_here:
            raise not_found(Reason.UNKNOWN_RUN, "no run that you may read is served here")
        self._refuse_overload()
        self._in_flight += 1
        try:
            groups = FeatureGroups.model_validate_json(await self._port.feature_groups())
            question = read_question(body, groups, self._arrival())
            answer = self._port.answer(question.body)
            if isinstance(answer, Awaitable):
                answer = await answer
        finally:
            self._in_flight -= 1
        request.state.digest = answer.hash
        headers = {HASH_HEADER.decode(): answer.hash, "cache-control": "no-store"}
        return Response(answer_of(question, answer.body), media_type="application/json", headers=headers)

    async def _health(self, request: Request) -> Response:
        health = await self._port.health()
        red = health.state is PostureState.RED
        headers = {"cache-control": "no-store"} | ({"retry-after": str(RETRY_AFTER_SECONDS)} if red else {})
        return Response(health.model_dump_json(), status_code=503 if red else 200, media_type="application/json", headers=headers)

    async def _health_history(self, request: Request) -> Response:
        demand_run(request)
        hours = parameter(request, "hours") or str(MOST_HOURS)
        if not (hours.isascii() and hours.isdigit() and len(hours) <= 2 and 1 <= int(hours) <= MOST_HOURS):
            raise invalid(Reason.INVALID_FIELD, f"hours is 1 to {MOST_HOURS}")
        try:
            history = await asyncio.to_thread(self._ring.history, self._wall_clock(), int(hours))
        except OSError:
            raise unavailable(
                Reason.STORE_DOWN, "what was kept of health cannot be read; the log of the service says why"
            ) from None
        return Response(history.model_dump_json(), media_type="application/json", headers={"cache-control": "no-store"})

    async def _keep_health(self) -> None:
        while True:
            try:
                health = await self._port.health()
            except Exception as error:  # as /health would tell it; nobody is served worse for want of a chart
                health = None
                self._contract_error(error, HEALTH_HISTORY, [])
            await asyncio.to_thread(self._ring.record, health, self._wall_clock())
            await asyncio.sleep(STEP_SECONDS)

    async def _metrics(self, request: Request) -> Response:
        body = self._port.metrics() + self.metrics.exposition()
        return Response(body, headers={"content-type": CONTENT_TYPE_LATEST})

    async def _openapi(self, request: Request) -> Response:
        example = await self._live_example(request)
        if self._openapi_page is None or self._openapi_page[0] is not example:
            self._openapi_page = example, openapi_bytes(example)
        return Response(self._openapi_page[1], media_type="application/json")

    async def _docs(self, request: Request) -> Response:
        address = f"{request.url.scheme}://{request.url.netloc}"
        example = await self._live_example(request)
        if self._page is None or self._page[0] is not example or self._page[1] != address:
            self._page = example, address, docs_page(address, example)
        return Response(self._page[2], media_type="text/html", headers=_DOCS_HEADERS)

    async def _live_example(self, request: Request) -> LiveExample | None:
        try:
            caller = await self._authenticated(request.scope)
            caller.demand(_ASKING)
        except ContractError:
            return None  # these pages are shown to everybody, and then show no data
        if not caller.reads_here:
            return None
        try:
            self._example = await ask_live(self._port, self._example)
        except ContractError:
            return None  # the pages do not need the plane
        return self._example

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._port.open()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": f"the service cannot start: {error}"})
            return
        self._tasks.start(PRINCIPALS, self._refresh())
        self._tasks.start(SIGNING_KEYS, self._refresh_keys())
        self._tasks.start(HISTORY, self._keep_health())
        if self._access is not None:
            self._tasks.start(ACCESS_LOG, self._write_accesses(self._access))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._tasks.stop(PRINCIPALS, SIGNING_KEYS, ACCESS_LOG, HISTORY)
        await self._ports.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _write_accesses(self, access: AccessLog) -> None:
        """Twice a second, and once more at the end."""
        writing: asyncio.Future[None] | None = None
        try:
            while True:
                await asyncio.sleep(WRITE_SECONDS)
                writing = asyncio.get_running_loop().run_in_executor(None, access.write)
                await asyncio.shield(writing)
        finally:
            if writing is not None and not writing.done():
                await writing
            access.write()

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._authentication.refresh()
            except Exception as error:
                self.metrics.record_unexpected()
                unexpected(error, PRINCIPALS, self._new_request_id())

    async def _refresh_keys(self) -> None:
        while True:
            for key_set in self._authentication.due_key_sets():
                await asyncio.shield(self._read_keys(key_set))
            await asyncio.sleep(LOOK_SECONDS)

    def _read_keys(self, key_set: KeySet) -> asyncio.Future[None]:
        """Read the keys of an issuer, off the loop: once for all who wait for that."""
        reading = self._key_readings.get(key_set)
        if reading is None:
            reading = self._key_readings[key_set] = asyncio.get_running_loop().run_in_executor(None, key_set.fetch)
            reading.add_done_callback(lambda _done: self._keys_are_read(key_set))
        return reading

    def _keys_are_read(self, key_set: KeySet) -> None:
        del self._key_readings[key_set]
        self._authentication.tell_of_keys()


def _error_response(error: ContractError, request_id: str, route: str) -> Response:
    contract_version = OFFLINE_CONTRACT_VERSION if route.startswith(BUILD_PREFIX) else CONTRACT_VERSION
    status, headers, body = refusal(error, request_id, contract_version)
    response = Response(body, status_code=status)
    response.raw_headers = headers
    return response
