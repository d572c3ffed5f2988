"""Why an event is not applied, to every group or to some: a closed list. A detail names fields and types, never a value of
the payload."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ofp_platform.registry.key_rules import KeyProblem, KeyRule
from ofp_platform.registry.models import FieldType
from ofp_platform.registry.selection import text_need
from ofp_platform.registry.text_words import MAX_TEXT_BYTES, is_long
from ofp_platform.vocabulary import observed_keys
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.observed_keys import observed_type, with_observed_keys

GroupVersion = tuple[str, str]
_WORDS = {FieldType.INTEGER: "an integer", FieldType.STRING: "a string", FieldType.BOOLEAN: "a boolean"}


class ApplyFailureReason(StrEnum):
    """The router's reasons, then the projector's."""

    MALFORMED_PAYLOAD = "MALFORMED_PAYLOAD"
    MISSING_KEY = "MISSING_KEY"
    INVALID_KEY = "INVALID_KEY"
    RAW_IDENTIFIER = "RAW_IDENTIFIER"
    MISSING_FIELD = "MISSING_FIELD"
    WRONG_TYPE = "WRONG_TYPE"
    INTEGER_OUT_OF_RANGE = "INTEGER_OUT_OF_RANGE"
    TEXT_TOO_LONG = "TEXT_TOO_LONG"
    WRONG_PINS = "WRONG_PINS"
    INACTIVE_RUN = "INACTIVE_RUN"
    FUTURE_EVENT = "FUTURE_EVENT"
    UNKNOWN_SCHEMA_VERSION = "UNKNOWN_SCHEMA_VERSION"
    AMENDMENT_NOT_DECLARED = "AMENDMENT_NOT_DECLARED"
    AMENDMENT_BEFORE_EVENT = "AMENDMENT_BEFORE_EVENT"


@dataclass(frozen=True)
class ApplyFailure:
    """One event that is not applied. `index` is its place in the batch.

    `groups`: the group versions that it should feed and does not, in order; () is every group: the event itself is at fault.
    """

    index: int
    reason: ApplyFailureReason
    detail: str
    groups: tuple[GroupVersion, ...] = ()

    @property
    def group_names(self) -> str:
        """The groups as text; "" is every group."""
        return ", ".join(f"{name} {version}" for name, version in self.groups)


@dataclass(frozen=True)
class GroupNeeds:
    """The needs of one group version of one event type: `key` is its key, `fields` what its features read, and texts."""

    group: GroupVersion
    key: str
    fields: frozenset[str]


def explain(
    index: int, payload: bytes, keys: Mapping[str, KeyRule], fields: Mapping[str, FieldType], needs: Iterable[GroupNeeds]
) -> ApplyFailure | None:
    """Why a payload does not feed some of the groups that need it, or None if it feeds all of them.

    The reason is that of the first thing that is wrong; keys come first, both in the order of their names. The detail tells of
    each. A null counts as missing.

    Args:
        index: the record's place in its batch.
        payload: JSON bytes.
        keys: payload field to the rule of the key that it is.
        fields: payload field to the type that it must have.
        needs: what each group needs of it.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return ApplyFailure(index, ApplyFailureReason.MALFORMED_PAYLOAD, "the payload is not JSON")
    if not isinstance(value, dict):
        return ApplyFailure(index, ApplyFailureReason.MALFORMED_PAYLOAD, "the payload is not a JSON object")
    value = with_observed_keys(value, {name: rule.key_type for name, rule in keys.items()})
    key_problems = {name: _key(value.get(name), name, rule) for name, rule in sorted(keys.items())}
    field_problems = {name: _field(value.get(name), name, kind) for name, kind in sorted(fields.items())}
    bad_keys = {name for name, problem in key_problems.items() if problem is not None}
    bad_fields = {name for name, problem in field_problems.items() if problem is not None}
    problems = [problem for problem in key_problems.values() if problem is not None]
    problems += [problem for name, problem in field_problems.items() if problem is not None and name not in bad_keys]
    group_needs = list(needs)
    kept_texts = {text_need(name): name for name in sorted(fields)}.items()
    for need_name, name in kept_texts:
        is_kept = any(need_name in need.fields for need in group_needs)
        if is_kept and isinstance(value.get(name), str) and is_long(value[name]):
            problems.append((ApplyFailureReason.TEXT_TOO_LONG, _too_long(name)))
            bad_fields.add(need_name)
    if not problems:
        return None
    groups = sorted(need.group for need in group_needs if need.key in bad_keys or not need.fields.isdisjoint(bad_fields))
    return ApplyFailure(index, problems[0][0], "; ".join(detail for _, detail in problems), tuple(groups))


def _too_long(name: str) -> str:
    return f"payload field {name!r} is longer than {MAX_TEXT_BYTES} bytes of UTF-8, the longest text that a feature may have"


def _key(value: Any, name: str, rule: KeyRule) -> tuple[ApplyFailureReason, str] | None:
    key_type = rule.key_type
    if value is None or value == "":
        return ApplyFailureReason.MISSING_KEY, f"payload field {name!r}, the {key_type} key, is missing"
    if not isinstance(value, str):
        return ApplyFailureReason.WRONG_TYPE, f"payload field {name!r}, the {key_type} key, must be a string"
    if observed_type(name) is not None:
        return _observed_key(value, name, key_type)
    match rule.problem(value):
        case None:
            return None
        case KeyProblem.RAW_IDENTIFIER:
            return ApplyFailureReason.RAW_IDENTIFIER, f"payload field {name!r}, the {key_type} key, is a raw identifier"
        case KeyProblem.CHARACTERS:
            detail = "must be 1 to 128 printable ASCII characters without spaces"
        case KeyProblem.PATTERN:
            detail = f"does not match the pattern of {key_type} keys in the pack, {rule.pattern}"
    return ApplyFailureReason.INVALID_KEY, f"payload field {name!r}, the {key_type} key, {detail}"


def _observed_key(value: str, name: str, key_type: str) -> tuple[ApplyFailureReason, str] | None:
    match value:
        case observed_keys.SEVERAL:
            return ApplyFailureReason.INVALID_KEY, f"payload field {name!r}, the {key_type} key, has several tokens"
        case observed_keys.NO_TOKEN:
            return (
                ApplyFailureReason.RAW_IDENTIFIER,
                f"payload field {name!r}, the {key_type} key, has no token but the thing itself",
            )
        case observed_keys.UNREADABLE:
            words = f"payload field {observed_keys.OBSERVED!r} must be a list of objects with the strings id_type and id_token"
            return ApplyFailureReason.WRONG_TYPE, words
        case _:
            return None


def _field(value: Any, name: str, kind: FieldType) -> tuple[ApplyFailureReason, str] | None:
    if value is None:
        return ApplyFailureReason.MISSING_FIELD, f"payload field {name!r} is missing"
    python_type = {FieldType.INTEGER: int, FieldType.STRING: str, FieldType.BOOLEAN: bool}[kind]
    if type(value) is not python_type:
        return ApplyFailureReason.WRONG_TYPE, f"payload field {name!r} must be {_WORDS[kind]}"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return ApplyFailureReason.INTEGER_OUT_OF_RANGE, f"payload field {name!r} is beyond ±(2^53-1)"
    return None
