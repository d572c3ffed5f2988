"""The routes of actions: a page of them, one with its attempts, an operator's word about one that nobody else knows of."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ofp_platform.api.build_routes import caller_of
from ofp_platform.api.operator_routes import demand_run, parameters
from ofp_platform.api.request_body import BodyReader
from ofp_platform.api.service import ActionPort
from ofp_platform.vocabulary.errors import Reason, invalid, not_found
from ofp_platform.vocabulary.loop.action import ActionState
from ofp_platform.vocabulary.loop.action_requests import MOST_ACTIONS
from ofp_platform.vocabulary.model import is_digest

_MOST_BYTES = 4_096
_FRESH = {"cache-control": "no-store"}
_DEFAULT_ACTIONS = 50


class ActionRoutes:
    """Over a port; without one this service has no actions. `timeout_seconds` bounds the arrival of a body."""

    def __init__(self, port: ActionPort | None, timeout_seconds: float) -> None:
        self._port_or_none = port
        self._bodies = BodyReader(_MOST_BYTES, timeout_seconds)

    @property
    def _port(self) -> ActionPort:
        if self._port_or_none is None:
            raise not_found(Reason.UNKNOWN_PATH, "this service has no actions")
        return self._port_or_none

    async def list(self, request: Request) -> Response:
        """A page of intents; `state`, `limit` and `cursor` stand in the query."""
        demand_run(request)
        state, limit, cursor = parameters(request, "state", "limit", "cursor")
        if state is not None and state not in list(ActionState):
            raise invalid(Reason.INVALID_FIELD, f"there is no such state; there are {', '.join(ActionState)}")
        if limit is not None and not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= MOST_ACTIONS):
            raise invalid(Reason.INVALID_FIELD, f"limit is 1 to {MOST_ACTIONS}")
        state_or_none = None if state is None else ActionState(state)
        return _json(await self._port.actions(state_or_none, int(limit or _DEFAULT_ACTIONS), cursor))

    async def show(self, request: Request) -> Response:
        """The action with the key in the path."""
        return _json(await self._port.action(_key(request), caller_of(request).principal.may_read))

    async def settle(self, request: Request) -> Response:
        """The action behind what the body says of it."""
        principal, key = caller_of(request).principal, _key(request)
        content_length = request.headers.get("content-length")
        body = await self._bodies.read(request.receive, None if content_length is None else content_length.encode("latin-1"))
        request.state.body = body  # a refusal tells the pins in it
        return _json(await self._port.settle(key, body, principal.name, principal.may_read))


def _key(request: Request) -> str:
    key: str = request.path_params["idempotency_key"]
    if not is_digest(key):
        raise invalid(Reason.INVALID_FIELD, "an idempotency key is 64 lower-case hex digits")
    return key


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers=_FRESH)
