"""A request against the registry: what it asks for, in canonical order, or why it cannot be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.key_rules import KeyProblem, KeyRule
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.decimals import parse_decimal
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform.vocabulary.times import parse_time


class RequestFields(Protocol):
    """The fields of a request that answering reads besides keys and groups."""

    @property
    def context_pins(self) -> ContextPins: ...

    @property
    def as_of_time_utc(self) -> str: ...

    @property
    def request_context(self) -> dict[str, int | str] | None: ...

    @property
    def at_least_basis(self) -> tuple[Position, ...] | None: ...

    @property
    def request_id(self) -> str | None: ...

    @property
    def extensions(self) -> dict[str, Any] | None: ...


class PlainRequest(NamedTuple):
    """The same of a request that was read without making a GetFeaturesRequest of it."""

    context_pins: ContextPins
    as_of_time_utc: str
    request_context: dict[str, int | str] | None
    at_least_basis: tuple[Position, ...] | None
    request_id: str | None
    extensions: dict[str, Any] | None


@dataclass(frozen=True)
class Question:
    """A checked request: keys and groups in canonical order, the groups of each key type, the as-of in microseconds.

    `whole_keys`: keys of which every event is needed, whatever the groups ask for.
    """

    request: RequestFields
    as_of: int
    keys: tuple[tuple[str, str], ...]
    groups: tuple[CompiledGroup, ...]
    groups_of: dict[str, tuple[CompiledGroup, ...]]
    context: dict[str, int | str] | None
    whole_keys: frozenset[tuple[str, str]] = frozenset()

    @property
    def resolved_types(self) -> list[str]:
        """The key types of which a group resolves identities."""
        return [key_type for key_type, groups in self.groups_of.items() if any(group.resolves for group in groups)]

    @property
    def keys_to_resolve(self) -> list[tuple[str, str]]:
        """The keys of these types; none: the graph is not asked."""
        types = self.resolved_types
        return [key for key in self.keys if key[0] in types]


def check_request(request: GetFeaturesRequest, registry: CompiledRegistry, pins: ContextPins, limits: Limits) -> Question:
    """Check a request against limits, the run and the registry.

    Raises:
        ContractError: INVALID_REQUEST or NOT_FOUND.
    """
    _check_counts(request, limits)
    if request.context_pins != pins:
        raise _not_served(request)
    for place, key in enumerate(request.feature_keys):
        _check_key(f"feature_keys.{place}.key_id", registry.key_rules[key.key_type.value], key.key_id, pins)
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
    groups_of: dict[str, tuple[CompiledGroup, ...]] = {}
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
    context = check_context(request.request_context, plans, limits, pins)
    return Question(request, parse_time(request.as_of_time_utc), tuple(keys), tuple(plans), groups_of, context)


def refuse_run(request: GetFeaturesRequest, limits: Limits) -> ContractError:
    """The refusal of a request by somebody who may read no run that is served here: the same as where there is no such run.

    Raises:
        ContractError: it would be refused whatever the run.
    """
    _check_counts(request, limits)
    return _not_served(request)


def _check_counts(request: GetFeaturesRequest, limits: Limits) -> None:
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


def _not_served(request: GetFeaturesRequest) -> ContractError:
    run_id = request.context_pins.run_id
    return not_found(Reason.UNKNOWN_RUN, f"run {run_id} with these pins is not served here", request.context_pins)


def _check_key(field: str, rule: KeyRule, key_id: str, pins: ContextPins) -> None:
    match rule.problem(key_id):
        case None:
            return
        case KeyProblem.PATTERN:
            text = f"{field}: does not match the pattern of {rule.key_type} keys in the pack, {rule.pattern}"
            raise invalid(Reason.INVALID_KEY, text, pins)
        case KeyProblem.RAW_IDENTIFIER | KeyProblem.CHARACTERS:
            text = f"{field}: a raw identifier (here a bare fingerprint) is never a key, unless the pack declares a pattern for"
            raise invalid(Reason.RAW_IDENTIFIER, f"{text} {rule.key_type} keys that it matches; send the entity id", pins)


def check_context(
    request_context: dict[str, int | str] | None, plans: Sequence[CompiledGroup], limits: Limits, pins: ContextPins
) -> dict[str, int | str] | None:
    """The request_context when on-demand features use it, checked; else None (then it is no part of the hash).

    Raises:
        ContractError: REQUEST_CONTEXT_MISSING, REQUEST_CONTEXT_INVALID, RAW_IDENTIFIER.
    """
    context = request_context or {}
    if len(context) > limits.max_request_context_fields:
        raise invalid(
            Reason.REQUEST_CONTEXT_INVALID,
            f"request_context has more than {limits.max_request_context_fields} fields",
            pins,
        )
    needed_fields = {name: kind for plan in plans for name, kind in plan.request_fields}
    for name, value in context.items():
        if holds_raw_identifier(name):
            raise invalid(Reason.RAW_IDENTIFIER, "request_context: a field name holds a raw identifier", pins)
        if isinstance(value, int):
            if isinstance(value, bool) or abs(value) > MAX_INTEGER:
                raise invalid(Reason.REQUEST_CONTEXT_INVALID, f"request_context.{name}: not an integer within ±(2^53-1)", pins)
        elif holds_raw_identifier(value):
            raise invalid(Reason.RAW_IDENTIFIER, f"request_context.{name}: a raw identifier is refused", pins)
        elif len(value) > 256:
            raise invalid(Reason.REQUEST_CONTEXT_INVALID, f"request_context.{name}: longer than 256 characters", pins)
    for name, kind in needed_fields.items():
        if name not in context:
            raise invalid(Reason.REQUEST_CONTEXT_MISSING, f"request_context.{name} ({kind}) is needed by a requested group", pins)
        value = context[name]
        if kind == "integer" and not isinstance(value, int):
            raise invalid(Reason.REQUEST_CONTEXT_INVALID, f"request_context.{name}: an integer is needed", pins)
        if kind == "decimal" and isinstance(value, str):
            scale = len(value.partition(".")[2])
            try:
                parse_decimal(value, scale)
            except ValueError:
                raise invalid(Reason.REQUEST_CONTEXT_INVALID, f"request_context.{name}: not a decimal", pins) from None
    return {name: context[name] for name in sorted(needed_fields)} if needed_fields else None
