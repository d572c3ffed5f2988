"""The evidence of a mismatch: all places where served and rebuilt differ, and the events that explain the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from pydantic import ValidationError

from ofp_platform.offline.parity.event_evidence import KeyHistory, is_same
from ofp_platform.offline.parity.rebuilding import QuestionAt, Rebuilder
from ofp_platform.storage.snapshot_records import SnapshotDamaged, SnapshotMissing
from ofp_platform.vocabulary.offline.parity_record import FeatureDifference
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
    """Differences in canonical order; `detail` says in words what the events have to do with the first."""

    differences: tuple[FeatureDifference, ...]
    detail: str | None


def describe(
    rebuilder: Rebuilder,
    question: QuestionAt,
    snapshot_hash: str,
    rebuilt: bytes | str | None,
    hashed_of: Callable[[str], dict[str, Any]],
) -> Mismatch:
    """Describe the differences of a served snapshot and its rebuild (its hashed bytes, or why there are none)."""
    try:
        served_snapshot = hashed_of(snapshot_hash)
    except (SnapshotMissing, SnapshotDamaged) as error:
        return Mismatch((), f"{error}: what was served cannot be shown")
    if not isinstance(rebuilt, bytes):
        return Mismatch(
            (FeatureDifference(where="values", rebuilt=rebuilt),), f"the log gives a value that cannot be served: {rebuilt}"
        )
    rebuilt_snapshot = orjson.loads(rebuilt)
    names = [name for name in _QUESTION if served_snapshot.get(name) != rebuilt_snapshot.get(name)]
    if names:
        differences = tuple(
            FeatureDifference(where="other", feature=name, served=served_snapshot.get(name), rebuilt=rebuilt_snapshot.get(name))
            for name in names
        )
        return Mismatch(differences, f"the snapshot of that hash answers another question: its {names[0]} differs")
    parts: tuple[tuple[Where, Callable[[Any], dict[_Path, Any]]], ...] = (
        ("values", _values),
        ("freshness", _freshness),
        ("warnings", _warnings),
    )
    places = [
        (where, *place)
        for where, flat in parts
        for place in _differing(flat, served_snapshot.get(where), rebuilt_snapshot.get(where))
    ]
    if places:
        first = _explain(rebuilder, question, *places[0])
        return Mismatch((*first.differences, *[_plain(*place) for place in places[1:]]), first.detail)
    names = sorted(
        name
        for name in served_snapshot.keys() | rebuilt_snapshot.keys()
        if served_snapshot.get(name) != rebuilt_snapshot.get(name)
    )
    unknown = tuple(FeatureDifference(where="other", feature=name) for name in names or ["hashed"])
    return Mismatch(unknown, "the snapshot holds something unknown")


def _plain(where: Where, path: _Path, served_value: Any, rebuilt_value: Any) -> FeatureDifference:
    """A difference without evidence. A path that is none of a snapshot's names nothing."""
    try:
        names: dict[str, Any] = dict(zip((*_KEY, "feature") if where == "values" else _KEY, path, strict=False))
        if where == "warnings" and len(path) == len(_KEY) + 2:
            names["feature"] = path[-1] or None
        return FeatureDifference(where=where, served=served_value, rebuilt=rebuilt_value, **names)
    except ValidationError:
        return FeatureDifference(where=where, served=served_value, rebuilt=rebuilt_value)


def _explain(
    rebuilder: Rebuilder, question: QuestionAt, where: Where, path: _Path, served_value: Any, rebuilt_value: Any
) -> Mismatch:
    group = rebuilder.registry.groups.get((path[2], path[3])) if len(path) >= 4 else None
    key = (path[0], path[1]) if len(path) >= 2 else ("", "")
    if group is None or key not in question.question.keys:
        detail = f"at {'/'.join(path)}: what was served names something else than the question" if path else "it has another form"
        return Mismatch((FeatureDifference(where=where, served=served_value, rebuilt=rebuilt_value),), detail)
    base: dict[str, Any] = {
        "where": where,
        "served": served_value,
        "rebuilt": rebuilt_value,
        **dict(zip(_KEY, path, strict=False)),
    }
    if where == "warnings":
        return Mismatch((FeatureDifference(**base, feature=path[5] or None),), None)
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
    return Mismatch((FeatureDifference(**base, events=explanation.events),), explanation.words)


def _has_update(freshness: Any) -> bool:
    if not isinstance(freshness, dict) or not isinstance(freshness.get("last_update_event_time"), str):
        return False
    try:
        parse_time(freshness["last_update_event_time"])
    except ValueError:
        return False
    return True


def _differing(flat: Callable[[Any], Mapping[_Path, Any]], served_part: Any, rebuilt_part: Any) -> list[tuple[_Path, Any, Any]]:
    """The places, in canonical order, at which two parts differ."""
    try:
        served_parts, rebuilt_parts = flat(served_part), flat(rebuilt_part)
    except (KeyError, TypeError, AttributeError):
        return [((), served_part, rebuilt_part)]  # what was served has not the form of a snapshot
    places = [
        (path, served_parts.get(path), rebuilt_parts.get(path))
        for path in sorted(served_parts.keys() | rebuilt_parts.keys())
        if path not in served_parts or path not in rebuilt_parts or not is_same(served_parts[path], rebuilt_parts[path])
    ]
    return places if places or is_same(served_part, rebuilt_part) else [((), served_part, rebuilt_part)]


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
    return {(*(entry[name] for name in (*_KEY, "code")), entry.get("feature", "")): entry["code"] for entry in entries}
