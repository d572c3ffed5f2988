"""The HTTP application of ingress: batches of events in, a receipt for each record out; or one event in, the decision on it out.

`POST /v0/events` takes NDJSON or a JSON array, plain or compressed. Whatever happens, the answer is an object of the contract.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, Counter
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ofp_platform.api.access_log import WRITE_SECONDS, AccessLog
from ofp_platform.api.authentication import LOOK_SECONDS, Authentication, Caller, KeysWanted
from ofp_platform.api.connection_places import Places
from ofp_platform.api.http_connection import Reply
from ofp_platform.api.http_metrics import HttpMetrics
from ofp_platform.api.ingress_service import Allowance, IngressService
from ofp_platform.api.principals import Scope as PrincipalScope
from ofp_platform.api.refusals import Headers, refusal, unexpected
from ofp_platform.api.request_body import BodyReader
from ofp_platform.api.request_head import OwnHosts, check_head, header
from ofp_platform.api.request_spans import traceparent
from ofp_platform.api.tls import ClientCertificate
from ofp_platform.ingress.batches import MOST_RECORDS, IdempotencyKey
from ofp_platform.ingress.gate import Sent
from ofp_platform.ingress.record_text import ENCODINGS, TextRefused, TextTooLarge, records_of_array, records_of_lines, unpacked
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome
from ofp_platform.vocabulary.background_tasks import BackgroundTasks, EndedTasks
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found, unavailable
from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json
from ofp_platform.vocabulary.model import IDENTIFIER_PATTERN
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier
from ofp_platform.vocabulary.scenario import RunAsk
from ofp_platform.vocabulary.yaml_file import fault_words

EVENTS, DECIDE, RUNS, ASK, HEALTH, METRICS = (
    "/v0/events",
    "/v0/decide",
    "/v0/runs",
    "/v0/runs/{ask_id}",
    "/health",
    "/metrics",
)
MOST_BYTES = 10_000_000
"""Of a body, as it was sent and unpacked."""
_BODY_SECONDS = 30.0
_MOST_DIGITS = 18
_LINES = b"application/x-ndjson"
_METHODS = {EVENTS: "POST", DECIDE: "POST", RUNS: "POST", ASK: "GET", HEALTH: "GET", METRICS: "GET"}
_SCOPES = {
    EVENTS: PrincipalScope.EVENTS_WRITE,
    DECIDE: PrincipalScope.EVENTS_WRITE,
    RUNS: PrincipalScope.OPERATE,
    ASK: PrincipalScope.OPERATE,
    METRICS: PrincipalScope.METRICS,
}
_KEY = re.compile(IDENTIFIER_PATTERN)
_NO_STORE = {"cache-control": "no-store"}
PRINCIPALS, ACCESS_LOG = "principals", "access log"
"""Its background tasks, as health names one that ended."""


class IngressApplication:
    """Over a service. `clock` gives seconds, for durations alone; `ended`: where it is told that a background task ended."""

    def __init__(
        self,
        service: IngressService,
        *,
        authentication: Authentication,
        allowance: Allowance,
        hosts: OwnHosts | None = None,
        access: AccessLog | None = None,
        ended: EndedTasks | None = None,
        clock: Callable[[], float] = time.perf_counter,
        new_request_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._service = service
        self._authentication = authentication
        self._allowance = allowance
        self._hosts = hosts or OwnHosts()
        self._access = access
        self._tasks = BackgroundTasks(ended)
        self._clock = clock
        self._new_request_id = new_request_id
        self._bodies = BodyReader(MOST_BYTES, _BODY_SECONDS)
        self.metrics = HttpMetrics()
        words = "records by outcome, in answers: those that were repeated, too"
        self._records = Counter("ofp_ingress_records", words, ["outcome"], registry=self.metrics.registry)
        answers = {
            EVENTS: self._admit,
            DECIDE: self._decide,
            RUNS: self._ask_for_run,
            ASK: self._show_ask,
            HEALTH: self._tell_health,
            METRICS: self._expose,
        }
        self._routes = Starlette(
            routes=[Route(path, self._guard(path, answer), methods=[_METHODS[path]]) for path, answer in answers.items()],
            exception_handlers={HTTPException: self._no_route},
        )
        self._routes.router.redirect_slashes = False

    @property
    def vital_targets(self) -> frozenset[bytes]:
        """Answered while every place for a connection is taken."""
        return frozenset({HEALTH.encode(), METRICS.encode()})

    @property
    def max_body_bytes(self) -> int:
        """Of a request that is taken directly: there is none."""
        return MOST_BYTES

    @property
    def body_timeout_seconds(self) -> float:
        """For the body of a request."""
        return _BODY_SECONDS

    def takes(
        self,
        _method: bytes,
        _target: bytes,
        _headers: Headers,
        _server: tuple[str, int] | None,
        _certificate: ClientCertificate | None,
    ) -> None:
        """Nothing is taken without ASGI."""

    def reply(self, _caller: Any, _headers: Headers, _body: bytes) -> Reply:
        """Never called: see `takes`."""
        raise AssertionError("nothing is taken directly")

    def no_place(self) -> Reply:
        """The refusal where every place for a connection is taken, by all or by the peer."""
        error = unavailable(Reason.OVERLOADED, "no place for another connection; try again")
        self.metrics.record("other", error.reason.value, 0.0)
        return Reply(*refusal(error, self._new_request_id()))

    def show_places(self, places: Places[Any]) -> None:
        """Tell in the metrics from now on how many of these are taken."""
        self.metrics.places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of the ASGI server."""
        if scope["type"] == "http":
            await self._routes(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    # ---- routes ----------------------------------------------------------------------------------------------------------

    async def _admit(self, request: Request) -> Response:
        caller: Caller = request.state.caller
        if not caller.reads_here:
            raise not_found(Reason.UNKNOWN_RUN, "no such run here")
        headers = request.scope["headers"]
        key = _idempotency_key(headers)
        encoding = (header(headers, b"content-encoding") or b"identity").decode("latin-1").strip().lower()
        if encoding not in (*ENCODINGS, "identity"):
            raise invalid(Reason.UNSUPPORTED_MEDIA_TYPE, f"content-encoding is one of {', '.join(ENCODINGS)}, or left out")
        sent = await self._bodies.read(request.receive, header(headers, b"content-length"))
        body = sent if encoding == "identity" else await asyncio.to_thread(_unpacked, sent, encoding)
        is_lines = _is_lines(headers)
        records = await asyncio.to_thread(_records, body, is_lines)
        if not 1 <= len(records) <= MOST_RECORDS:
            text = f"a batch has from 1 to {MOST_RECORDS:,} records, and this one has {len(records):,}"
            raise invalid(Reason.TOO_MANY_RECORDS if records else Reason.MISSING_FIELD, text)
        producer = caller.principal.name
        self._allowance.take(producer, len(records))
        identity = None if key is None else IdempotencyKey(key, sha256(b"%d" % is_lines + body).digest())
        answer = await self._service.admit(records, producer, identity, len(body), traceparent(headers))
        for name in AdmissionOutcome:  # no id or word of a receipt can hold a quotation mark
            self._records.labels(name.value).inc(answer.count(b'"outcome":"%b"' % name.encode()))
        return Response(answer, media_type="application/json", headers=_NO_STORE)

    async def _decide(self, request: Request) -> Response:
        caller: Caller = request.state.caller
        if not caller.reads_here:
            raise not_found(Reason.UNKNOWN_RUN, "no such run here")
        body = await self._bodies.read(request.receive, header(request.scope["headers"], b"content-length"))
        records = await asyncio.to_thread(_records, b"[%b]" % body, False)
        if len(records) != 1:
            raise invalid(Reason.MALFORMED_JSON, "the body is one event, a JSON object")
        producer = caller.principal.name
        self._allowance.take(producer, 1)
        answer = await self._service.decide(records[0], producer, len(body), traceparent(request.scope["headers"]))
        return Response(answer, media_type="application/json", headers=_NO_STORE)

    async def _ask_for_run(self, request: Request) -> Response:
        caller: Caller = request.state.caller
        if not caller.reads_here:
            raise not_found(Reason.UNKNOWN_RUN, "no such run here")
        body = await self._bodies.read(request.receive, header(request.scope["headers"], b"content-length"))
        try:
            ask = RunAsk.model_validate(read_json(body))
        except (NotJson, NotIJson) as error:
            raise invalid(Reason.MALFORMED_JSON, f"the body: {error}") from None
        except ValidationError as error:
            raise invalid(Reason.INVALID_FIELD, fault_words(error, "the body")[0]) from None
        answer = await self._service.ask_for_run(ask, caller.principal.name)
        return Response(orjson.dumps(answer.wire()), status_code=202, media_type="application/json", headers=_NO_STORE)

    async def _show_ask(self, request: Request) -> Response:
        if not request.state.caller.reads_here:
            raise not_found(Reason.UNKNOWN_RUN, "no such run here")
        ask_id: str = request.path_params["ask_id"]
        if not (ask_id.isascii() and ask_id.isdigit() and len(ask_id) <= _MOST_DIGITS):
            raise invalid(Reason.INVALID_FIELD, "an ask is named by its number, as POST /v0/runs answers it")
        answer = await self._service.asked_run(int(ask_id))
        return Response(answer, media_type="application/json", headers=_NO_STORE)

    async def _tell_health(self, _request: Request) -> Response:
        ended = self._tasks.ended
        reasons = [*await self._service.reasons(), *(task.reason for task in ended.all())]
        warnings = ended.warnings()
        state = "RED" if reasons else "AMBER" if warnings else "GREEN"
        health = {"kind": "ig_health", "contract_version": "v0", "state": state, "reasons": [*reasons, *warnings]}
        return Response(orjson.dumps(health), status_code=503 if reasons else 200, media_type="application/json")

    async def _expose(self, _request: Request) -> Response:
        return Response(self.metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    # ---- around them -----------------------------------------------------------------------------------------------------

    def _guard(self, route: str, answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            start, outcome = self._clock(), "OK"
            caller: Caller | None = None
            try:
                caller = request.state.caller = await self._caller(route, request.scope)
                response = await answer(request)
            except Exception as exception:
                error, response = self._refused(exception, route, request.scope["headers"])
                outcome = error.reason.value
            self.metrics.record(route, outcome, self._clock() - start)
            if self._access is not None and (caller is not None or route in _SCOPES):
                name, credential = (None, None) if caller is None else (caller.principal.name, caller.credential)
                self._access.record(name, credential, route, None, outcome)
            return response

        return endpoint

    async def _caller(self, route: str, scope: Scope) -> Caller | None:
        headers = scope["headers"]
        is_lines = _is_lines(headers)
        check_head(
            headers, scope.get("server"), self._hosts, has_body=route in (RUNS, DECIDE) or (route == EVENTS and not is_lines)
        )
        if route not in _SCOPES:
            return None
        if self._access is not None and self._access.is_full:
            raise unavailable(Reason.STORE_DOWN, "accesses cannot be recorded; the log of the service says why")
        authorization, certificate = header(headers, b"authorization"), scope.get("certificate")
        try:
            caller = self._authentication.caller(authorization, certificate)
        except KeysWanted as wanted:
            await asyncio.to_thread(wanted.key_set.fetch)
            self._authentication.tell_of_keys()
            caller = self._authentication.caller(authorization, certificate)
        caller.demand(_SCOPES[route])
        return caller

    def _refused(self, exception: Exception, route: str, headers: Headers) -> tuple[ContractError, Response]:
        given = header(headers, b"x-request-id")
        text = "" if given is None else given.decode("latin-1")
        request_id = text if _KEY.fullmatch(text) and not holds_raw_identifier(text) else self._new_request_id()
        if isinstance(exception, ContractError):
            error = exception
        else:
            self.metrics.record_unexpected()
            error = unexpected(exception, route, request_id)
        status, raw_headers, body = refusal(error, request_id)
        response = Response(body, status_code=status)
        response.raw_headers = raw_headers
        return error, response

    async def _no_route(self, request: Request, _exception: Exception) -> Response:
        path = request.scope["path"]
        error = not_found(Reason.UNKNOWN_PATH, "no such path here")
        if path in _METHODS:
            error = invalid(Reason.METHOD_NOT_ALLOWED, f"{path} takes {_METHODS[path]} only")
        _, response = self._refused(error, "other", request.scope["headers"])
        if path in _METHODS:
            response.raw_headers.append((b"allow", _METHODS[path].encode()))
        self.metrics.record("other", error.reason.value, 0.0)
        return response

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._tasks.start(PRINCIPALS, self._refresh())
        if self._access is not None:
            self._tasks.start(ACCESS_LOG, self._write_accesses(self._access))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._tasks.stop(PRINCIPALS, ACCESS_LOG)
        await self._service.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._authentication.refresh()

    async def _write_accesses(self, access: AccessLog) -> None:
        try:
            while True:
                await asyncio.sleep(WRITE_SECONDS)
                await asyncio.shield(asyncio.to_thread(access.write))
        finally:
            access.write()


def _is_lines(headers: Headers) -> bool:
    return (header(headers, b"content-type") or b"").partition(b";")[0].strip().lower() == _LINES


def _idempotency_key(headers: Headers) -> str | None:
    value = header(headers, b"idempotency-key")
    if value is None:
        return None
    key = value.decode("latin-1")
    if _KEY.fullmatch(key) is None or holds_raw_identifier(key):
        raise invalid(Reason.INVALID_FIELD, "Idempotency-Key: 1 to 128 of A-Z a-z 0-9 _ . : / -, the first a letter or digit")
    return key


def _unpacked(sent: bytes, encoding: str) -> bytes:
    try:
        return unpacked(sent, encoding, MOST_BYTES)
    except TextTooLarge as error:
        raise invalid(Reason.BODY_TOO_LARGE, str(error)) from None
    except TextRefused as error:
        raise invalid(Reason.MALFORMED_JSON, str(error)) from None


def _records(body: bytes, is_lines: bool) -> list[Sent]:
    if is_lines:
        return records_of_lines(body)
    try:
        return records_of_array(body)
    except TextRefused as error:
        raise invalid(Reason.MALFORMED_JSON, str(error)) from None
