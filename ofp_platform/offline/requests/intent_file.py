"""Intents as people and programs hand them in: JSON or YAML text, checked as far as that goes without looking anything up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ofp_platform.offline.requests.intent_source import Path as FieldPath
from ofp_platform.offline.requests.intent_source import field_path, read_data, refuse
from ofp_platform.vocabulary.offline.build_intent import (
    INTENT,
    AsOfBasis,
    DatasetBuild,
    ForensicRebuild,
    ParityRebuild,
    PerEvent,
    PerTable,
    Purpose,
)
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.replay_basis import ReversedRange
from ofp_platform.vocabulary.text_file import read_text

Intent = DatasetBuild | ParityRebuild | ForensicRebuild

_SHOWN = 5
_TAGS = {"intent": "intent", "replay": "select", "scope": "kind"}
_WORDS = {
    "missing": "is required",
    "extra_forbidden": "is no field of this object",
    "literal_error": "is not one of the values allowed here",
    "enum": "is not one of the values allowed here",
    "string_pattern_mismatch": "is not of the form that this field has; see the contract ofs_build_intent_v0",
    "union_tag_not_found": "does not say which kind it is",
    "union_tag_invalid": "is not one of the kinds allowed here",
    "float_type": "is of the wrong type",
    "too_short": "must not be empty",
}


def load_intent_file(path: Path) -> Intent:
    """The intent in a file.

    Raises:
        BuildRefused: the file cannot be read as UTF-8 text; see `read_intent`.
    """
    try:
        text = read_text(path)
    except UnicodeDecodeError:
        refuse("the file is not UTF-8 text")
    except OSError as error:
        refuse(f"the file cannot be read: {error.strerror}")
    return read_intent(text)


def read_intent(text: str) -> Intent:
    """The intent in a JSON or YAML text. Equal intents give equal objects, however they are written.

    Raises:
        BuildRefused: INVALID_INTENT, or the reason of the closed list that says it better, with the path of the field.
    """
    return parse_intent(read_data(text))


def parse_intent(data: Mapping[str, Any]) -> Intent:
    """As `read_intent`, from plain data.

    Raises:
        BuildRefused: see `read_intent`.
    """
    try:
        intent = INTENT.validate_python(dict(data))
    except ValidationError as error:
        raise _refusal(error, dict(data)) from None
    except RecursionError:
        refuse("nested too deeply")
    check_intent(intent)
    return intent


def check_intent(intent: Intent) -> None:
    """Check that the parts of an intent agree with each other.

    Raises:
        BuildRefused: LABEL_ASOF_MISSING; INVALID_INTENT.
    """
    if isinstance(intent, DatasetBuild):
        _check_label(intent)
        _check_unique([(group.group_name, group.group_version) for group in intent.feature_groups], ("feature_groups",))
        if isinstance(intent.scope, PerTable):
            _check_table(intent, intent.scope)
        if intent.as_of_basis is AsOfBasis.DECISION and not isinstance(intent.scope, PerEvent):
            refuse("a decision is about an event: the basis 'decision' needs a scope of kind per_event", ("as_of_basis",))
    elif isinstance(intent, ParityRebuild):
        _check_unique(intent.decision_ids or (), ("decision_ids",))


def _check_table(intent: DatasetBuild, scope: PerTable) -> None:
    _check_unique(scope.key_types, ("scope", "key_types"))
    _check_unique(scope.columns, ("scope", "columns"))
    _check_unique(scope.label_columns, ("scope", "label_columns"))
    for index, name in enumerate(scope.label_columns):
        if name not in scope.columns:
            refuse("is none of the columns of the table", ("scope", "label_columns", index))
    if intent.purpose is Purpose.TRAINING:
        refuse(
            "nothing proves since when the labels of an entity table were known: purpose analysis, or rows of events with labels",
            ("purpose",),
        )


def _check_label(intent: DatasetBuild) -> None:
    if intent.label is None:
        if intent.purpose is Purpose.TRAINING:
            message = "a training set needs a label and the time as of which it is taken: label.label_type, label.as_of_utc"
            refuse(message, ("label",), BuildReason.LABEL_ASOF_MISSING)
        return
    if intent.label.as_of_utc is None:
        message = "a label is taken as of a time: the labels that are known by then, and no later ones"
        refuse(message, ("label", "as_of_utc"), BuildReason.LABEL_ASOF_MISSING)
    if not isinstance(intent.scope, PerEvent):
        refuse("labels are assertions about events: only a scope of kind per_event has them", ("label",))


def _check_unique(items: Any, path: FieldPath) -> None:
    seen_items = set()
    for index, item in enumerate(items):
        if item in seen_items:
            refuse("stands in the list twice", (*path, index))
        seen_items.add(item)


def _refusal(error: ValidationError, data: Any) -> BuildRefused:
    """The first error as the refusal; the fields of the others are named."""
    problems: dict[str, tuple[BuildReason, str]] = {}
    for details in error.errors(include_url=False, include_input=False):
        path, reason, words = _read(details, data)
        problems.setdefault(field_path(path), (reason, words))
    (field, (reason, words)), *others = problems.items()
    if others:
        names = ", ".join(name or "the intent" for name, _ in others[:_SHOWN])
        words += f" (also wrong: {names}{f' and {len(others) - _SHOWN} more' if len(others) > _SHOWN else ''})"
    return BuildRefused(reason, words, field)


def _read(details: ErrorDetails, data: Any) -> tuple[FieldPath, BuildReason, str]:
    path = _path(details, data)
    kind, context = details["type"], details.get("ctx", {})
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        path = (*path, _TAGS[str(path[-1])] if path else _TAGS["intent"])
        if kind == "union_tag_not_found":
            return path, BuildReason.INVALID_INTENT, _missing_kind(context.get("discriminator"), path)
        return path, BuildReason.INVALID_INTENT, f"is not one of {context['expected_tags']}"
    if kind == "value_error":
        cause = context["error"]
        if isinstance(cause, ReversedRange):
            return _reversed_range(path)
        if path and str(path[-1]).endswith("_utc"):
            text = "is not a time: RFC 3339 in UTC with 'Z', at most 6 fractional digits, no leap second"
            return path, BuildReason.INVALID_INTENT, text
        return path, BuildReason.INVALID_INTENT, str(cause)
    if kind in ("literal_error", "enum"):
        return path, BuildReason.INVALID_INTENT, f"is not one of the values allowed here: {context['expected']}"
    return path, BuildReason.INVALID_INTENT, _WORDS.get(kind, details["msg"][:1].lower() + details["msg"][1:])


def _missing_kind(discriminator: Any, path: FieldPath) -> str:
    return f"is required: {str(discriminator).strip(chr(39))} says which kind of {path[-2] if len(path) > 1 else 'intent'} it is"


def _reversed_range(path: FieldPath) -> tuple[FieldPath, BuildReason, str]:
    """A reversed range of a replay is a basis that resolves to nothing; one of the rows is a mistake in the scope."""
    if path[:3] == ("replay", "basis", "partitions"):
        return (*path, "next"), BuildReason.BASIS_UNRESOLVED, "the range is reversed: start lies behind next"
    reason = BuildReason.BASIS_UNRESOLVED if path == ("replay",) else BuildReason.INVALID_INTENT
    return (*path, "to_utc"), reason, "the time range is reversed or empty: from_utc must lie before to_utc"


def _path(details: ErrorDetails, data: Any) -> FieldPath:
    """The path of the error in the submitted data: pydantic also names the branches of unions, which no file has."""
    path: list[str | int] = []
    node = data
    for part in details["loc"]:
        if isinstance(node, dict):
            if part in node:
                node = node[part]
                path.append(part)
            elif details["type"] == "missing" and part == details["loc"][-1]:
                path.append(part)
        elif isinstance(node, list | tuple) and isinstance(part, int) and part < len(node):
            node = node[part]
            path.append(part)
    return tuple(path)
