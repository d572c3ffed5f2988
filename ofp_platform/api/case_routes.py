"""The routes of cases: the queue, one case, a trigger, an entry."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ofp_platform.api.build_routes import caller_of
from ofp_platform.api.operator_routes import demand_run, parameters
from ofp_platform.api.request_body import BodyReader
from ofp_platform.api.service import CasePort
from ofp_platform.vocabulary.errors import Reason, invalid, not_found
from ofp_platform.vocabulary.loop.case_requests import MOST_CASES
from ofp_platform.vocabulary.loop.case_standing import CaseState
from ofp_platform.vocabulary.model import is_digest

_FRESH = {"cache-control": "no-store"}
_DEFAULT_CASES = 50


class CaseRoutes:
    """Over a port; without one this service has no cases. `max_bytes` bounds what is asked, `timeout_seconds` its arrival."""

    def __init__(self, port: CasePort | None, max_bytes: int, timeout_seconds: float) -> None:
        self._port_or_none = port
        self._bodies = BodyReader(max_bytes, timeout_seconds)

    @property
    def _port(self) -> CasePort:
        if self._port_or_none is None:
            raise not_found(Reason.UNKNOWN_PATH, "this service has no cases")
        return self._port_or_none

    async def list(self, request: Request) -> Response:
        """A page of the queue; `state`, `limit` and `cursor` stand in the query."""
        demand_run(request)
        state, limit, cursor = parameters(request, "state", "limit", "cursor")
        if state is not None and state not in list(CaseState):
            raise invalid(Reason.INVALID_FIELD, f"there is no such state; there are {', '.join(CaseState)}")
        if limit is not None and not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= MOST_CASES):
            raise invalid(Reason.INVALID_FIELD, f"limit is 1 to {MOST_CASES}")
        return _json(await self._port.cases(CaseState(state or CaseState.OPEN), int(limit or _DEFAULT_CASES), cursor))

    async def show(self, request: Request) -> Response:
        """The case with the id in the path."""
        return _json(await self._port.case(_case_id(request), caller_of(request).principal.may_read))

    async def trigger(self, request: Request) -> Response:
        """The receipt of the trigger in the body."""
        principal = caller_of(request).principal
        return _json(await self._port.trigger(await self._body(request), principal.name, principal.may_read))

    async def add(self, request: Request) -> Response:
        """The receipt of the entry in the body."""
        principal, case_id = caller_of(request).principal, _case_id(request)
        return _json(await self._port.add(case_id, await self._body(request), principal.name, principal.may_read))

    async def _body(self, request: Request) -> bytes:
        content_length = request.headers.get("content-length")
        body = await self._bodies.read(request.receive, None if content_length is None else content_length.encode("latin-1"))
        request.state.body = body  # a refusal tells the pins in it
        return body


def _case_id(request: Request) -> str:
    case_id: str = request.path_params["case_id"]
    if not is_digest(case_id):
        raise invalid(Reason.INVALID_FIELD, "a case id is 64 lower-case hex digits")
    return case_id


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers=_FRESH)
