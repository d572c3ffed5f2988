"""The routes of whoever looks after the plane or asks why a value is as it is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ofp_platform.api.build_routes import caller_of
from ofp_platform.api.service import OperatorPort, ServingPort
from ofp_platform.registry.apply_failure import ApplyFailureReason
from ofp_platform.vocabulary.apply_failures import MOST_FAILURES
from ofp_platform.vocabulary.errors import Reason, invalid, not_found
from ofp_platform.vocabulary.model import is_digest

_FRESH = {"cache-control": "no-store"}
_MOST_CHARACTERS = 300
_DEFAULT_FAILURES = 50


class OperatorRoutes:
    """Over the ports: `serving` knows whose a snapshot is, `port` reads the rest."""

    def __init__(self, serving: ServingPort, port: OperatorPort) -> None:
        self._serving = serving
        self._port = port

    async def failures(self, request: Request) -> Response:
        """A page of the records that the live projection did not apply; `after`, `limit` and `reason` stand in the query."""
        demand_run(request)
        after, limit, reason = parameters(request, "after", "limit", "reason")
        place: tuple[str, str] | None = None
        if after is not None:
            partition_id, _, offset = after.rpartition(":")
            if not (partition_id and offset.isascii() and offset.isdigit()):
                raise invalid(Reason.INVALID_FIELD, "after is written PARTITION:OFFSET, as in 0002:51233")
            place = partition_id, offset
        if limit is not None and not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= MOST_FAILURES):
            raise invalid(Reason.INVALID_FIELD, f"limit is 1 to {MOST_FAILURES}")
        if reason is not None and reason not in list(ApplyFailureReason):
            raise invalid(Reason.INVALID_FIELD, f"there is no such reason; there are {', '.join(ApplyFailureReason)}")
        return _json(await self._port.failures(place, int(limit or _DEFAULT_FAILURES), reason))

    async def explanation(self, request: Request) -> Response:
        """A value of the snapshot in the path, and the events behind it; `feature`, `key` and `group` stand in the query."""
        snapshot_hash: str = request.path_params["snapshot_hash"]
        if not is_digest(snapshot_hash):
            raise invalid(Reason.INVALID_FIELD, "a snapshot hash is 64 lower-case hex digits")
        feature, key, group = parameters(request, "feature", "key", "group")
        caller = caller_of(request)
        await self._serving.snapshot(snapshot_hash, caller.principal.may_read)  # one of another run is unknown
        demand_run(request)
        if feature is None:
            raise invalid(Reason.MISSING_FIELD, "the query names a feature: ?feature=NAME&key=TYPE:ID&group=NAME:VERSION")
        return _json(await self._port.explanation(snapshot_hash, feature, key, group))


def demand_run(request: Request) -> None:
    """Refuse whoever may not read the run that is served.

    Raises:
        ContractError: UNKNOWN_RUN.
    """
    if not caller_of(request).reads_here:
        raise not_found(Reason.UNKNOWN_RUN, "no run that you may read is served here")


def parameter(request: Request, name: str) -> str | None:
    """One parameter of the query.

    Raises:
        ContractError: INVALID_FIELD, it stands there twice, is too long, or no text.
    """
    values = request.query_params.getlist(name)
    if len(values) > 1 or any(len(value) > _MOST_CHARACTERS or "\0" in value for value in values):
        raise invalid(
            Reason.INVALID_FIELD, f"the query has {name} once, in at most {_MOST_CHARACTERS} characters, without U+0000"
        )
    return values[0] if values else None


def parameters(request: Request, *names: str) -> list[str | None]:
    """All parameters that a query may have.

    Raises:
        ContractError: INVALID_FIELD, it has another one, which would be taken for what it is not; or as `parameter`.
    """
    if set(request.query_params) - set(names):
        raise invalid(Reason.INVALID_FIELD, f"the query takes {', '.join(sorted(names))}")
    return [parameter(request, name) for name in names]


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers=_FRESH)
