"""From bytes to a request: every refusal of the body itself."""

from __future__ import annotations

import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ofp_platform.vocabulary.errors import ContractError, Reason, invalid
from ofp_platform.vocabulary.identity import ContextPins, readable_pins
from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GetFeaturesRequest

_SHOWN = 3
# of validators whose words quote nothing
_OWN_WORDS = ("raw identifier", "not I-JSON", "'latest'")
_FIELD_NAME = re.compile(r"[A-Za-z_-]{1,64}|\[key\]", re.ASCII)


def parse_request(body: bytes, limits: Limits) -> GetFeaturesRequest:
    """Decode and validate a request body.

    Raises:
        ContractError: INVALID_REQUEST with the reason and the field; never a word of the body's values.
    """
    if len(body) > limits.max_body_bytes:
        raise invalid(
            Reason.BODY_TOO_LARGE,
            f"the body has {len(body)} bytes; the limit is {limits.max_body_bytes}",
            readable_pins(body),
        )
    try:
        read_json(body)
    except (NotJson, NotIJson) as error:
        raise invalid(Reason.MALFORMED_JSON, f"the body: {error}") from None
    try:
        return GetFeaturesRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error, readable_pins(body)) from None


def _refusal(error: ValidationError, pins: ContextPins | None) -> ContractError:
    problems = _own_problems(error.errors(include_url=False, include_input=False, include_context=False))
    first = problems[0]
    if first["type"] == "json_invalid":
        return invalid(Reason.MALFORMED_JSON, f"the body is not JSON: {first['msg']}", pins)
    reason = Reason.INVALID_FIELD
    field = str(first["loc"][-1]) if first["loc"] else ""
    if any("raw identifier" in problem["msg"] for problem in problems):
        reason = Reason.RAW_IDENTIFIER
    elif first["type"] == "missing":
        reason = Reason.MISSING_FIELD
    elif field == "as_of_time_utc":
        reason = Reason.INVALID_TIME
    shown_problems = [
        f"{'.'.join(_part(part) for part in p['loc']) or 'body'}: {_safe(p['msg'], p['type'])}" for p in problems[:_SHOWN]
    ]
    more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
    return invalid(reason, "; ".join(shown_problems) + more, pins)


def _own_problems(problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without those that only follow from another: a list that is empty because its items were not valid."""
    inside = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["type"] != "too_short" or problem["loc"] not in inside]


def _part(part: int | str) -> str:
    """One step of the way to a field. Names are the sender's: one that could be a value is not shown."""
    return str(part) if isinstance(part, int) or _FIELD_NAME.fullmatch(part) else "<field>"


def _safe(message: str, kind: str) -> str:
    """The validator's message without the value that it quotes."""
    if kind == "value_error" and not any(words in message for words in _OWN_WORDS):
        return "not an RFC 3339 UTC time with 'Z' and at most 6 fractional digits, or a leap second"
    return message.removeprefix("Value error, ")
