"""The evidence of a mismatch: the first place where served and rebuilt differ, and the events that explain it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from ofp_platform.offline.parity.event_evidence import KeyHistory
from ofp_platform.offline.parity.rebuilding import QuestionAt, Rebuilder
from ofp_platform.storage.snapshot_records import SnapshotDamaged, SnapshotMissing
from ofp_platform.vocabulary.offline.parity_record import FirstDifference
from ofp_platform.vocabulary.times import parse_time

_QUESTION = (
    "contract_version",
    "context_pins",
    "as_of_time_utc",
    "feature_keys",
    "feature_groups",
    "registry_digest",
    "run_config_digest",
    "input_basis",
    "graph_version",
    "request_context",
)
_KEY = ("key_type", "key_id", "group_name", "group_version")
_Path = tuple[str, ...]
Where = Literal["values", "freshness", "warnings", "other"]


@dataclass(frozen=True)
class Mismatch:
    """A described difference; `detail` says in words what the events have to do with it."""

    difference: FirstDifference | None
    detail: str | None


def describe(
    rebuilder: Rebuilder,
    question: QuestionAt,
    snapshot_hash: str,
    rebuilt: bytes | str | None,
    hashed_of: Callable[[str], dict[str, Any]],
) -> Mismatch:
    """Describe the first difference between a served snapshot and its rebuild (its hashed bytes, or why there are none)."""
    try:
        served_snapshot = hashed_of(snapshot_hash)
    except (SnapshotMissing, SnapshotDamaged) as error:
        return Mismatch(None, f"{error}: what was served cannot be shown")
    if not isinstance(rebuilt, bytes):
        return Mismatch(
            FirstDifference(where="values", rebuilt=rebuilt), f"the log gives a value that cannot be served: {rebuilt}"
        )
    rebuilt_snapshot = orjson.loads(rebuilt)
    for name in _QUESTION:
        if served_snapshot.get(name) != rebuilt_snapshot.get(name):
            difference = FirstDifference(
                where="other", feature=name, served=served_snapshot.get(name), rebuilt=rebuilt_snapshot.get(name)
            )
            return Mismatch(difference, f"the snapshot of that hash answers another question: its {name} differs")
    parts: tuple[tuple[Where, Callable[[Any], dict[_Path, Any]]], ...] = (
        ("values", _values),
        ("freshness", _freshness),
        ("warnings", _warnings),
    )
    for where, flat in parts:
        first_difference = _first(flat, served_snapshot.get(where), rebuilt_snapshot.get(where))
        if first_difference is not None:
            path, served_value, rebuilt_value = first_difference
            return _explain(rebuilder, question, where, path, served_value, rebuilt_value)
    names = sorted(
        name
        for name in served_snapshot.keys() | rebuilt_snapshot.keys()
        if served_snapshot.get(name) != rebuilt_snapshot.get(name)
    )
    return Mismatch(FirstDifference(where="other", feature=names[0] if names else None), "the snapshot holds something unknown")


def _explain(
    rebuilder: Rebuilder, question: QuestionAt, where: Where, path: _Path, served_value: Any, rebuilt_value: Any
) -> Mismatch:
    group = rebuilder.registry.groups.get((path[2], path[3])) if len(path) >= 4 else None
    key = (path[0], path[1]) if len(path) >= 2 else ("", "")
    if group is None or key not in question.question.keys:
        detail = f"at {'/'.join(path)}: what was served names something else than the question" if path else "it has another form"
        return Mismatch(FirstDifference(where=where, served=served_value, rebuilt=rebuilt_value), detail)
    base: dict[str, Any] = {
        "where": where,
        "served": served_value,
        "rebuilt": rebuilt_value,
        **dict(zip(_KEY, path, strict=False)),
    }
    if where == "warnings":
        return Mismatch(FirstDifference(**base, feature=None), None)
    if where == "values":
        base["feature"] = path[4]
        history = KeyHistory.in_windows(rebuilder, question, key, group)
        explanation = history.explain(path[4], served_value)
    else:
        moments = {
            parse_time(freshness["last_update_event_time"])
            for freshness in (served_value, rebuilt_value)
            if _has_update(freshness)
        }
        explanation = KeyHistory.at_times(rebuilder, question, key, group, moments).list_known("at the newest update")
    return Mismatch(FirstDifference(**base, events=explanation.events), explanation.words)


def _has_update(freshness: Any) -> bool:
    if not isinstance(freshness, dict) or not isinstance(freshness.get("last_update_event_time"), str):
        return False
    try:
        parse_time(freshness["last_update_event_time"])
    except ValueError:
        return False
    return True


def _first(flat: Callable[[Any], Mapping[_Path, Any]], served_part: Any, rebuilt_part: Any) -> tuple[_Path, Any, Any] | None:
    """The first place, in canonical order, at which two parts differ."""
    try:
        served_parts, rebuilt_parts = flat(served_part), flat(rebuilt_part)
    except (KeyError, TypeError, AttributeError):
        return (), served_part, rebuilt_part  # what was served has not the form of a snapshot
    for path in sorted(served_parts.keys() | rebuilt_parts.keys()):
        if path not in served_parts or path not in rebuilt_parts or served_parts[path] != rebuilt_parts[path]:
            return path, served_parts.get(path), rebuilt_parts.get(path)
    return None if served_part == rebuilt_part else ((), served_part, rebuilt_part)


def _values(by_key: Any) -> dict[_Path, Any]:
    return {
        (key["key_type"], key["key_id"], group["group_name"], group["group_version"], feature): value
        for key in by_key
        for group in key["by_group"]
        for feature, value in group["features"].items()
    }


def _freshness(entries: Any) -> dict[_Path, Any]:
    return {tuple(entry[name] for name in _KEY): entry for entry in entries}


def _warnings(entries: Any) -> dict[_Path, Any]:
    return {tuple(entry[name] for name in (*_KEY, "code")): entry["code"] for entry in entries}
