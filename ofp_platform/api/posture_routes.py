"""The routes of the posture: the mode in force of who decides, and the kill switch."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ofp_platform.api.build_routes import caller_of
from ofp_platform.api.operator_routes import demand_run
from ofp_platform.api.request_body import BodyReader
from ofp_platform.api.service import PosturePort

_MOST_BYTES = 4_096
_FRESH = {"cache-control": "no-store"}


class PostureRoutes:
    """Over a port. `timeout_seconds` bounds the arrival of a body."""

    def __init__(self, port: PosturePort, timeout_seconds: float) -> None:
        self._port = port
        self._bodies = BodyReader(_MOST_BYTES, timeout_seconds)

    async def show(self, request: Request) -> Response:
        """The mode in force, and the newest changes."""
        demand_run(request)
        return _json(await self._port.view())

    async def hold(self, request: Request) -> Response:
        """The posture behind the hold in the body."""
        body = await self._body(request)
        return _json(await self._port.hold(body, caller_of(request).principal.name))

    async def release(self, request: Request) -> Response:
        """The posture behind the release in the body."""
        body = await self._body(request)
        return _json(await self._port.release(body, caller_of(request).principal.name))

    async def _body(self, request: Request) -> bytes:
        demand_run(request)
        content_length = request.headers.get("content-length")
        return await self._bodies.read(request.receive, None if content_length is None else content_length.encode("latin-1"))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers=_FRESH)
