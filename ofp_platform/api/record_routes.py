"""The routes of decisions and labels: record them, and look decisions up."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ofp_platform.api.build_routes import caller_of
from ofp_platform.api.request_body import BodyReader
from ofp_platform.api.service import RecordPort
from ofp_platform.storage.decision_records import CURSOR, DecisionFilter
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid
from ofp_platform.vocabulary.identity import FeatureKey
from ofp_platform.vocabulary.model import is_digest
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier
from ofp_platform.vocabulary.times import parse_time

MOST_DECISIONS = 200
_DEFAULT_DECISIONS = 50
_LONGEST = 256
_PARAMETERS = frozenset({"key_type", "key_id", "event_id", "from_utc", "to_utc", "limit", "cursor"})
# immutable once recorded, but personal: kept by who asked alone
_IMMUTABLE = {"cache-control": "private, max-age=31536000, immutable"}
_PASSING = {"cache-control": "no-store"}


class RecordRoutes:
    """Over a port. `max_bytes` bounds a decision and a set of labels, `timeout_seconds` their arrival."""

    def __init__(self, port: RecordPort, max_bytes: int, timeout_seconds: float) -> None:
        self._port = port
        self._bodies = BodyReader(max_bytes, timeout_seconds)

    async def record(self, request: Request) -> Response:
        """The receipt of the decision in the body."""
        principal = caller_of(request).principal
        receipt = await self._port.record(await self._body(request), principal.name, principal.may_read)
        request.state.digest = receipt.decision_id
        return Response(receipt.model_dump_json(), media_type="application/json", headers=_PASSING)

    async def show(self, request: Request) -> Response:
        """The decision with the id in the path."""
        decision_id: str = request.path_params["decision_id"]
        if not is_digest(decision_id):
            raise invalid(Reason.INVALID_FIELD, "a decision id is 64 lower-case hex digits")
        body = await self._port.decision(decision_id, caller_of(request).principal.may_read)
        return Response(body, media_type="application/json", headers=_IMMUTABLE)

    async def list(self, request: Request) -> Response:
        """A page of decisions."""
        chosen, limit, cursor = _question(request)
        body = await self._port.decisions(chosen, limit, cursor, caller_of(request).principal.may_read)
        return Response(body, media_type="application/json", headers=_PASSING)

    async def append_labels(self, request: Request) -> Response:
        """The receipt of the labels in the body."""
        principal = caller_of(request).principal
        body = await self._port.append_labels(await self._body(request), principal.name, principal.may_read)
        return Response(body, media_type="application/json", headers=_PASSING)

    async def _body(self, request: Request) -> bytes:
        content_length = request.headers.get("content-length")
        body = await self._bodies.read(request.receive, None if content_length is None else content_length.encode("latin-1"))
        request.state.body = body  # a refusal tells the pins in it
        return body


def _question(request: Request) -> tuple[DecisionFilter, int, str | None]:
    """The question of a list: which decisions, how many, behind which.

    Raises:
        ContractError: INVALID_FIELD; INVALID_TIME; RAW_IDENTIFIER.
    """
    texts: dict[str, str] = {}
    for name, text in request.query_params.multi_items():
        if name not in _PARAMETERS:
            raise _wrong("the query", f"takes {', '.join(sorted(_PARAMETERS))}")
        if name in texts or len(text) > _LONGEST or "\0" in text:
            raise _wrong(name, f"stands there once, with at most {_LONGEST} characters, without U+0000")
        if holds_raw_identifier(text):
            raise invalid(Reason.RAW_IDENTIFIER, f"{name}: a raw identifier is never a key; send the entity id")
        texts[name] = text
    if ("key_type" in texts) != ("key_id" in texts):
        raise _wrong("key_type", "goes with key_id: both or neither")
    key = None
    if "key_id" in texts:
        try:
            key = FeatureKey.model_validate({"key_type": texts["key_type"], "key_id": texts["key_id"]}, strict=False)
        except ValueError:
            raise _wrong("key_id", "with key_type is no key of an entity") from None
    limit_text = texts.get("limit", str(_DEFAULT_DECISIONS))
    if not (limit_text.isascii() and limit_text.isdigit() and 1 <= int(limit_text) <= MOST_DECISIONS):
        raise _wrong("limit", f"is 1 to {MOST_DECISIONS}")
    cursor = texts.get("cursor")
    if cursor is not None and CURSOR.fullmatch(cursor) is None:
        raise _wrong("cursor", "is the next_cursor of a list")
    chosen = DecisionFilter(key, texts.get("event_id"), _time(texts, "from_utc"), _time(texts, "to_utc"))
    return chosen, int(limit_text), cursor


def _time(texts: dict[str, str], name: str) -> int | None:
    try:
        return parse_time(texts[name]) if name in texts else None
    except ValueError:
        words = "not an RFC 3339 UTC time with at most 6 fractional digits"
        raise invalid(Reason.INVALID_TIME, f"{name}: {words}") from None


def _wrong(field: str, words: str) -> ContractError:
    return invalid(Reason.INVALID_FIELD, f"{field} {words}")
