"""From bytes to a checked request: every refusal that needs no state."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import ValidationError

from ofp_platform.online.profile import Limits
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import GroupPlan
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.decimals import parse_decimal
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found
from ofp_platform.vocabulary.identity import ContextPins, is_raw_identifier
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform.vocabulary.times import parse_time

_SHOWN = 3
_FIELD_NAME = re.compile(r"[A-Za-z_-]{1,64}|\[key\]", re.ASCII)


@dataclass(frozen=True)
class Question:
    """A checked request: keys and groups in canonical order, the groups of each key type, the as-of in microseconds."""

    request: GetFeaturesRequest
    as_of: int
    keys: tuple[tuple[str, str], ...]
    groups: tuple[GroupPlan, ...]
    groups_of: dict[str, tuple[GroupPlan, ...]]
    context: dict[str, int | str] | None


def parse_request(body: bytes, limits: Limits) -> GetFeaturesRequest:
    """Decode and validate a request body.

    Raises:
        ContractError: INVALID_REQUEST with the reason and the field; never a word of the body's values.
    """
    if len(body) > limits.max_body_bytes:
        raise invalid(Reason.BODY_TOO_LARGE, f"the body has {len(body)} bytes; the limit is {limits.max_body_bytes}")
    try:
        return GetFeaturesRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> ContractError:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    first = problems[0]
    if first["type"] == "json_invalid":
        return invalid(Reason.MALFORMED_JSON, f"the body is not JSON: {first['msg']}")
    reason = Reason.INVALID_FIELD
    field = str(first["loc"][-1]) if first["loc"] else ""
    if any("raw identifier" in problem["msg"] for problem in problems):
        reason = Reason.RAW_IDENTIFIER
    elif first["type"] == "missing":
        reason = Reason.MISSING_FIELD
    elif field == "as_of_time_utc":
        reason = Reason.INVALID_TIME
    shown = [f"{'.'.join(_part(part) for part in p['loc']) or 'body'}: {_safe(p['msg'], p['type'])}" for p in problems[:_SHOWN]]
    more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
    return invalid(reason, "; ".join(shown) + more)


def _part(part: int | str) -> str:
    """One step of the way to a field. Names are the sender's: one that could be a value is not shown."""
    return str(part) if isinstance(part, int) or _FIELD_NAME.fullmatch(part) else "<field>"


def _safe(message: str, kind: str) -> str:
    """The validator's message without the value that it quotes."""
    if kind == "value_error" and "raw identifier" not in message:
        return "not an RFC 3339 UTC time with 'Z' and at most 6 fractional digits, or a leap second"
    return message.removeprefix("Value error, ")


def check_request(request: GetFeaturesRequest, registry: CompiledRegistry, pins: ContextPins, limits: Limits) -> Question:
    """Check a request against limits, the run and the registry.

    Raises:
        ContractError: INVALID_REQUEST or NOT_FOUND.
    """
    if request.request_id is not None and is_raw_identifier(request.request_id):
        raise invalid(Reason.RAW_IDENTIFIER, "request_id: a raw identifier is refused")
    if request.context_pins != pins:
        for name, value in request.context_pins.wire().items():
            if isinstance(value, str) and is_raw_identifier(value):
                raise invalid(Reason.RAW_IDENTIFIER, f"context_pins.{name}: a raw identifier is refused")
    if len(request.feature_keys) > limits.max_keys:
        raise invalid(
            Reason.TOO_MANY_KEYS,
            f"{len(request.feature_keys)} keys; the limit is {limits.max_keys}",
            request.context_pins,
        )
    if len(request.feature_groups) > limits.max_groups:
        raise invalid(
            Reason.TOO_MANY_GROUPS,
            f"{len(request.feature_groups)} groups; the limit is {limits.max_groups}",
            request.context_pins,
        )
    if request.context_pins != pins:
        raise not_found(
            Reason.UNKNOWN_RUN,
            f"run {request.context_pins.run_id} with these pins is not served here",
            request.context_pins,
        )
    keys = sorted((key.key_type.value, key.key_id) for key in request.feature_keys)
    if len(set(keys)) != len(keys):
        raise invalid(Reason.DUPLICATE_KEY, "feature_keys names a key twice", pins)
    refs = sorted((group.group_name, group.group_version) for group in request.feature_groups)
    if len(set(refs)) != len(refs):
        raise invalid(Reason.DUPLICATE_GROUP, "feature_groups names a group version twice", pins)
    plans = []
    for ref in refs:
        plan = registry.groups.get(ref)
        if plan is None:
            raise not_found(
                Reason.UNKNOWN_GROUP_VERSION,
                f"group {ref[0]} {ref[1]} is not in the registry; see GET /v0/feature_groups",
                pins,
            )
        plans.append(plan)
    groups_of: dict[str, tuple[GroupPlan, ...]] = {}
    for key_type, _ in keys:
        if key_type not in groups_of:
            groups_of[key_type] = tuple(plan for plan in plans if plan.key_type == key_type)
            if not groups_of[key_type]:
                raise invalid(Reason.KEY_WITHOUT_GROUP, f"no requested group is of key type {key_type}", pins)
    for plan in plans:
        if plan.key_type not in groups_of:
            raise invalid(
                Reason.GROUP_WITHOUT_KEY,
                f"group {plan.name} {plan.version} is of key type {plan.key_type}; no such key is requested",
                pins,
            )
    context = _context(request, plans, limits, pins)
    return Question(request, parse_time(request.as_of_time_utc), tuple(keys), tuple(plans), groups_of, context)


def _context(
    request: GetFeaturesRequest, plans: list[GroupPlan], limits: Limits, pins: ContextPins
) -> dict[str, int | str] | None:
    """The request_context when on-demand features use it, checked; else None (then it is no part of the hash)."""
    given = request.request_context or {}
    if len(given) > limits.max_request_context_fields:
        raise invalid(
            Reason.REQUEST_CONTEXT_INVALID,
            f"request_context has more than {limits.max_request_context_fields} fields",
            pins,
        )
    wanted = {name: kind for plan in plans for name, kind in plan.request_fields}
    for name, value in given.items():
        if isinstance(value, int):
            if isinstance(value, bool) or abs(value) > MAX_INTEGER:
                raise invalid(Reason.REQUEST_CONTEXT_INVALID, f"request_context.{name}: not an integer within ±(2^53-1)", pins)
        elif is_raw_identifier(value):
            raise invalid(Reason.RAW_IDENTIFIER, f"request_context.{name}: a raw identifier is refused", pins)
        elif len(value) > 256:
            raise invalid(Reason.REQUEST_CONTEXT_INVALID, f"request_context.{name}: longer than 256 characters", pins)
    for name, kind in wanted.items():
        if name not in given:
            raise invalid(Reason.REQUEST_CONTEXT_MISSING, f"request_context.{name} ({kind}) is needed by a requested group", pins)
        value = given[name]
        if kind == "integer" and not isinstance(value, int):
            raise invalid(Reason.REQUEST_CONTEXT_INVALID, f"request_context.{name}: an integer is needed", pins)
        if kind == "decimal" and isinstance(value, str):
            scale = len(value.partition(".")[2])
            try:
                parse_decimal(value, scale)
            except ValueError:
                raise invalid(Reason.REQUEST_CONTEXT_INVALID, f"request_context.{name}: not a decimal", pins) from None
    return {name: given[name] for name in sorted(wanted)} if wanted else None
