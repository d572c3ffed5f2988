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
_Place = tuple[str, ...]
Where = Literal["values", "freshness", "warnings", "other"]


@dataclass(frozen=True)
class Mismatch:
    """What is known of a difference; `detail` says in words what the events have to do with it."""

    difference: FirstDifference | None
    detail: str | None


def describe(
    rebuilder: Rebuilder,
    asked: QuestionAt,
    snapshot_hash: str,
    rebuilt: bytes | str | None,
    hashed_of: Callable[[str], dict[str, Any]],
) -> Mismatch:
    """What differs between a served snapshot and its rebuild (its hashed bytes, or why there are none)."""
    try:
        served = hashed_of(snapshot_hash)
    except (SnapshotMissing, SnapshotDamaged) as error:
        return Mismatch(None, f"{error}: what was served cannot be shown")
    if not isinstance(rebuilt, bytes):
        return Mismatch(
            FirstDifference(where="values", rebuilt=rebuilt), f"the log gives a value that cannot be served: {rebuilt}"
        )
    made = orjson.loads(rebuilt)
    for name in _QUESTION:
        if served.get(name) != made.get(name):
            difference = FirstDifference(where="other", feature=name, served=served.get(name), rebuilt=made.get(name))
            return Mismatch(difference, f"the snapshot of that hash answers another question: its {name} differs")
    parts: tuple[tuple[Where, Callable[[Any], dict[_Place, Any]]], ...] = (
        ("values", _values),
        ("freshness", _freshness),
        ("warnings", _warnings),
    )
    for where, flat in parts:
        found = _first(flat, served.get(where), made.get(where))
        if found is not None:
            place, served_value, made_value = found
            return _explained(rebuilder, asked, where, place, served_value, made_value)
    names = sorted(name for name in served.keys() | made.keys() if served.get(name) != made.get(name))
    return Mismatch(FirstDifference(where="other", feature=names[0] if names else None), "the snapshot holds something unknown")


def _explained(rebuilder: Rebuilder, asked: QuestionAt, where: Where, place: _Place, served: Any, rebuilt: Any) -> Mismatch:
    group = rebuilder.registry.groups.get((place[2], place[3])) if len(place) >= 4 else None
    key = (place[0], place[1]) if len(place) >= 2 else ("", "")
    if group is None or key not in asked.question.keys:
        named = (
            f"at {'/'.join(place)}: what was served names something else than the question" if place else "it has another form"
        )
        return Mismatch(FirstDifference(where=where, served=served, rebuilt=rebuilt), named)
    base: dict[str, Any] = {"where": where, "served": served, "rebuilt": rebuilt, **dict(zip(_KEY, place, strict=False))}
    if where == "warnings":
        return Mismatch(FirstDifference(**base, feature=None), None)
    if where == "values":
        base["feature"] = place[4]
        history = KeyHistory.in_windows(rebuilder, asked, key, group)
        explanation = history.explain(place[4], served)
    else:
        moments = {parse_time(one["last_update_event_time"]) for one in (served, rebuilt) if _has_update(one)}
        explanation = KeyHistory.at_times(rebuilder, asked, key, group, moments).listed("at the newest update")
    return Mismatch(FirstDifference(**base, events=explanation.events), explanation.words)


def _has_update(freshness: Any) -> bool:
    if not isinstance(freshness, dict) or not isinstance(freshness.get("last_update_event_time"), str):
        return False
    try:
        parse_time(freshness["last_update_event_time"])
    except ValueError:
        return False
    return True


def _first(flat: Callable[[Any], Mapping[_Place, Any]], served: Any, made: Any) -> tuple[_Place, Any, Any] | None:
    """The first place, in canonical order, at which two parts differ."""
    try:
        left, right = flat(served), flat(made)
    except (KeyError, TypeError, AttributeError):
        return (), served, made  # what was served has not the form of a snapshot
    for place in sorted(left.keys() | right.keys()):
        if place not in left or place not in right or left[place] != right[place]:
            return place, left.get(place), right.get(place)
    return None if served == made else ((), served, made)


def _values(by_key: Any) -> dict[_Place, Any]:
    return {
        (key["key_type"], key["key_id"], group["group_name"], group["group_version"], feature): value
        for key in by_key
        for group in key["by_group"]
        for feature, value in group["features"].items()
    }


def _freshness(entries: Any) -> dict[_Place, Any]:
    return {tuple(entry[name] for name in _KEY): entry for entry in entries}


def _warnings(entries: Any) -> dict[_Place, Any]:
    return {tuple(entry[name] for name in (*_KEY, "code")): entry["code"] for entry in entries}
