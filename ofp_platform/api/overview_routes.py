"""The routes of lists: what was compared, built, published and put live of the run that is served."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ofp_platform.api.build_routes import caller_of
from ofp_platform.api.operator_routes import demand_run, parameter
from ofp_platform.api.service import MayRead, OverviewPort
from ofp_platform.vocabulary.errors import Reason, invalid
from ofp_platform.vocabulary.model import is_digest
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.offline.overviews import MOST_ENTRIES
from ofp_platform.vocabulary.times import parse_time

_FRESH = {"cache-control": "no-store"}
_DEFAULT_ENTRIES = 20
_MOST_DIGITS = 15


class OverviewRoutes:
    """Over a port. All answer for the run that is served alone."""

    def __init__(self, port: OverviewPort) -> None:
        self._port = port

    async def builds(self, request: Request) -> Response:
        """A page of builds; `state`, `limit` and `cursor` stand in the query."""
        limit, cursor = _page(request)
        state = parameter(request, "state")
        if state is not None and state not in list(RunState):
            raise invalid(Reason.INVALID_FIELD, f"there is no such state; there are {', '.join(RunState)}")
        return _json(await self._port.builds(limit, None if state is None else RunState(state), cursor))

    async def build_stages(self, request: Request) -> Response:
        """The build under the key in the path."""
        return _json(await self._port.build_stages(_digest(request, "run_key", "a run key"), _may_read(request)))

    async def comparisons(self, request: Request) -> Response:
        """A page of comparisons; `limit` and `cursor` stand in the query."""
        return _json(await self._port.comparisons(*_page(request)))

    async def parity_report(self, request: Request) -> Response:
        """The comparison in the path, by day; `before` stands in the query."""
        comparison_id = _digest(request, "comparison_id", "the id of a comparison")
        return _json(await self._port.parity_report(comparison_id, parameter(request, "before"), _may_read(request)))

    async def datasets(self, request: Request) -> Response:
        """A page of datasets; `limit` and `cursor` stand in the query."""
        return _json(await self._port.datasets(*_page(request)))

    async def dataset(self, request: Request) -> Response:
        """The dataset with the identity in the path; `name` stands in the query."""
        identity = _digest(request, "dataset_identity", "the identity of a dataset")
        name = parameter(request, "name")
        if name is None:
            raise invalid(Reason.MISSING_FIELD, "the query says of which name: ?name=NAME")
        return _json(await self._port.dataset(name, identity, _may_read(request)))

    async def pack_operations(self, request: Request) -> Response:
        """A page of the steps of pack operations; `limit` and `cursor` stand in the query."""
        return _json(await self._port.pack_operations(*_page(request)))

    async def bundles(self, request: Request) -> Response:
        """A page of the steps of bundles; `limit` and `cursor` stand in the query."""
        return _json(await self._port.bundles(*_page(request)))

    async def bundles_in_force(self, request: Request) -> Response:
        """Bundles in force; `sequence` and `at_utc` stand in the query, for what was: steps count that are up to both."""
        demand_run(request)
        sequence, at_utc = parameter(request, "sequence"), parameter(request, "at_utc")
        if sequence is not None and not (sequence.isascii() and sequence.isdigit() and len(sequence) <= _MOST_DIGITS):
            raise invalid(Reason.INVALID_FIELD, "sequence is the number of a step, as GET /v0/bundles lists them")
        try:
            at_time = None if at_utc is None else parse_time(at_utc)
        except ValueError:
            raise invalid(Reason.INVALID_TIME, "at_utc: not an RFC 3339 UTC time with at most 6 fractional digits") from None
        return _json(await self._port.bundles_in_force(None if sequence is None else int(sequence), at_time))


def _page(request: Request) -> tuple[int, str | None]:
    demand_run(request)
    limit = parameter(request, "limit")
    if limit is not None and not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= MOST_ENTRIES):
        raise invalid(Reason.INVALID_FIELD, f"limit is 1 to {MOST_ENTRIES}")
    return int(limit or _DEFAULT_ENTRIES), parameter(request, "cursor")


def _may_read(request: Request) -> MayRead:
    return caller_of(request).principal.may_read


def _digest(request: Request, name: str, words: str) -> str:
    digest: str = request.path_params[name]
    if not is_digest(digest):
        raise invalid(Reason.INVALID_FIELD, f"{words} is 64 lower-case hex digits")
    return digest


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers=_FRESH)
