"""The routes of the offline plane: ask for a build, and see what became of it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ofp_platform.api.authentication import Caller
from ofp_platform.api.principals import Scope
from ofp_platform.api.request_body import BodyReader
from ofp_platform.api.service import BuildPort
from ofp_platform.vocabulary.errors import Reason, invalid
from ofp_platform.vocabulary.model import is_digest

BUILD_PREFIX = "/v0/build_"
MAX_INTENT_BYTES = 1 << 20
# a run changes until it is DONE
_HEADERS = {"cache-control": "no-store"}


def caller_of(request: Request) -> Caller:
    """Who asks; a route that demands a scope has one."""
    caller: Caller = request.state.caller
    return caller


class BuildRoutes:
    """Over a port. `max_bytes` bounds an intent, which may list many decisions or entities; `timeout_seconds` its arrival."""

    def __init__(self, port: BuildPort, max_bytes: int, timeout_seconds: float) -> None:
        self._port = port
        self._bodies = BodyReader(max_bytes, timeout_seconds)

    async def submit(self, request: Request) -> Response:
        """The run of the intent in the body."""
        content_length = request.headers.get("content-length")
        body = await self._bodies.read(request.receive, None if content_length is None else content_length.encode("latin-1"))
        request.state.body = body  # a refusal tells the pins in it
        principal = caller_of(request).principal
        return Response(
            await self._port.submit(body, principal.name, principal.may_read), media_type="application/json", headers=_HEADERS
        )

    async def cancel(self, request: Request) -> Response:
        """The run under the key in the path, cancelled unless it had ended; asked for again, it is the same."""
        run_key, principal = _run_key(request), caller_of(request).principal
        submitter = None if Scope.OPERATE in principal.scopes else principal.name
        run = await self._port.cancel(run_key, principal.name, principal.may_read, submitter)
        return Response(run, media_type="application/json", headers=_HEADERS)

    async def show(self, request: Request) -> Response:
        """The run under the key in the path."""
        may_read = caller_of(request).principal.may_read
        return Response(await self._port.run(_run_key(request), may_read), media_type="application/json", headers=_HEADERS)


def _run_key(request: Request) -> str:
    run_key: str = request.path_params["run_key"]
    if not is_digest(run_key):
        raise invalid(Reason.INVALID_FIELD, "a run key is 64 lower-case hex digits")
    return run_key
