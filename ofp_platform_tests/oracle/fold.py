"""snapshot(log, basis, registry, pins, keys, groups, as-of), the naive way: every record read again for every question.

The registry is the plain canonical content of a pack (`ofp_platform.registry.pack.pack_content`); of the package only
that, the raw-identifier rule and the RFC 8785 encoder are used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.raw_identifier import is_observed_identifier, is_raw_key
from ofp_platform_tests.oracle.aggregate import Item, aggregate, at_scale, decimal_text, divide, signed_square
from ofp_platform_tests.oracle.expression import compute

LIMIT = 2**53 - 1
MINUTE = 60_000_000
DECIMAL_LIMIT = 10**38
TEXT_LIMIT = 64
"""The longest text that is the value of a feature, in bytes of UTF-8."""
PIN_NAMES = (
    "scenario_id",
    "run_id",
    "manifest_fingerprint",
    "parameter_hash",
    "seed",
    "platform_run_id",
    "scenario_run_id",
)
SCHEMA_VERSIONS = ("1", "1.0", "v1", "v1.0")
"""The versions of an event type that a pack without a list of its own understands."""
_WHERE = ("key_type", "key_id", "group_name", "group_version")
_KEY = re.compile(r"[!-~]{1,128}")
_TYPES: dict[str, type] = {"integer": int, "string": str, "boolean": bool}
Ref = tuple[str, str]
Wired = int | str | list[Any] | None
"""A value as JSON has it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Record:
    """One record of a log: where it stands (`offset` dense from 0), when it was admitted (µs), and its envelope's dict."""

    partition_id: str
    offset: int
    admitted_at: int
    envelope: Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    """One event: its time, identity order, type, payload, and the group versions that it feeds."""

    ts: int
    tie: bytes
    event_type: str
    payload: Mapping[str, Any]
    groups: frozenset[Ref]


@dataclass(frozen=True)
class Amendment:
    """One amendment: its own time and identity order, and the event that it amends: type, id and time.

    `groups`: the group versions that its payload feeds, in place of the event's; of a void there are none.
    """

    ts: int
    tie: bytes
    kind: str
    event_type: str
    event_id: str
    target_ts: int
    payload: Mapping[str, Any]
    groups: frozenset[Ref]
    touches: bool


@dataclass
class Known:
    """known(B) of one run: its events as a set, what amends them, what could not be applied, and counts.

    `failures`: positions of records that feed nothing though they should; `group_failures`: of those that feed some of the groups
    that use their type, with the others.
    """

    events: dict[tuple[str, str, bytes], Event] = field(default_factory=dict)
    amendments: dict[tuple[str, str, bytes], Amendment] = field(default_factory=dict)
    failures: list[tuple[str, int]] = field(default_factory=list)
    group_failures: dict[tuple[str, int], frozenset[Ref]] = field(default_factory=dict)
    duplicates: int = 0
    anomalies: int = 0
    unknown: int = 0

    @property
    def watermark(self) -> int | None:
        """The greatest event time of an event that feeds a group, or of an amendment, µs."""
        times = [event.ts for event in self.events.values() if event.groups]
        return max((*times, *(one.ts for one in self.amendments.values() if one.touches)), default=None)

    @property
    def applied(self) -> int:
        """How many events and amendments were applied."""
        return len(self.events) + len(self.amendments)


class BehindHorizon(Exception):
    """A requested window reaches behind the horizon."""


@dataclass(frozen=True)
class Answer:
    """The parts of a snapshot that are hashed beside the question: `by_key`, freshness, warnings."""

    by_key: list[dict[str, Any]]
    freshness: list[dict[str, Any]]
    warnings: list[dict[str, str]]


def micros(text: str) -> int:
    """RFC 3339 text (Z, at most 6 fractional digits) to microseconds."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(seconds=1) * 1_000_000 + int((fraction or "0").ljust(6, "0"))


def time_text(time: int) -> str:
    """Microseconds to canonical text."""
    moment = _EPOCH + timedelta(microseconds=time)
    text = moment.replace(tzinfo=None, microsecond=0).isoformat()
    return f"{text}.{moment.microsecond:06d}Z" if moment.microsecond else f"{text}Z"


def known_events(
    records: Iterable[Record], basis: Mapping[str, int], pins: Mapping[str, Any], content: Mapping[str, Any], skew: int
) -> Known:
    """The events of the run with these pins before the basis (partition -> exclusive next offset)."""
    known = Known()
    for record in records:
        envelope = record.envelope
        if record.offset >= basis.get(record.partition_id, 0):
            continue
        if {name: envelope[name] for name in PIN_NAMES if envelope.get(name) is not None} != dict(pins):
            continue
        ts = micros(envelope["ts_utc"])
        position = (record.partition_id, record.offset)
        if ts > record.admitted_at + skew:
            known.failures.append(position)
            continue
        event_type = envelope["event_type"]
        if event_type not in content["events"]:
            known.unknown += 1
            continue
        if envelope["schema_version"] not in content["events"][event_type].get("schema_versions", SCHEMA_VERSIONS):
            known.failures.append(position)
            continue
        amends = envelope.get("amends")
        fed_type = event_type if amends is None else _amended_type(content, event_type, amends)
        if fed_type is None or (amends is not None and micros(amends["ts_utc"]) > ts):
            known.failures.append(position)
            continue
        users = {(group["name"], group["version"]): group for group in content["groups"] if _uses(group, fed_type)}
        fed = frozenset(ref for ref, group in users.items() if _usable(envelope["payload"], content, group, fed_type))
        key_types = {group["key_type"] for group in users.values()}
        touches = (
            fed if amends is None else [kind for kind in key_types if _has_key(envelope["payload"], content, kind, fed_type)]
        )
        if users and not touches:
            known.failures.append(position)
            continue
        if len(fed) < len(users) and (amends is None or amends["kind"] == "replace"):
            known.group_failures[position] = frozenset(users) - fed
        body = {
            "event_type": event_type,
            "schema_version": envelope["schema_version"],
            "ts_utc": time_text(ts),
            "pins": dict(pins),
            "payload": envelope["payload"],
            **({} if amends is None else {"amends": {**amends, "ts_utc": time_text(micros(amends["ts_utc"]))}}),
        }
        digest = hashlib.sha256(jcs_bytes(body)).digest()
        event_class = content["events"][event_type]["class"]
        identity = (event_class, envelope["event_id"], digest)
        if identity in known.events or identity in known.amendments:
            known.duplicates += 1
            continue
        if any(other[:2] == identity[:2] for other in (*known.events, *known.amendments)):
            known.anomalies += 1
        tie = hashlib.sha256(event_class.encode() + b"\0" + envelope["event_id"].encode() + b"\0" + digest).digest()[:16]
        if amends is None:
            known.events[identity] = Event(ts, tie, event_type, envelope["payload"], fed)
        else:
            groups = fed if amends["kind"] == "replace" else frozenset[Ref]()
            target = fed_type, amends["event_id"], micros(amends["ts_utc"])
            known.amendments[identity] = Amendment(ts, tie, amends["kind"], *target, envelope["payload"], groups, bool(users))
    return known


def part_of(known: Known, holds: Callable[[tuple[str, str, bytes]], bool]) -> Known:
    """The events and amendments of which that holds, by their identity."""
    events = {identity: event for identity, event in known.events.items() if holds(identity)}
    return Known(events, {identity: one for identity, one in known.amendments.items() if holds(identity)})


def in_force(known: Known, content: Mapping[str, Any], as_of: int) -> dict[tuple[str, str, bytes], Event]:
    """The events as of a time, by identity: without those that are void by then, and with what stands in place of others."""
    events = {}
    for identity, event in known.events.items():
        event_id = identity[1]
        deciding = max(
            (one for one in known.amendments.values() if one.ts <= as_of and amends(one, content, event_id, event)),
            key=lambda one: (one.ts, one.tie),
            default=None,
        )
        if deciding is None:
            events[identity] = event
        elif deciding.kind == "replace":
            events[identity] = replace(event, payload=deciding.payload, groups=deciding.groups)
    return events


def _amended_type(content: Mapping[str, Any], event_type: str, amends: Mapping[str, Any]) -> str | None:
    for name, routing in content["events"].items():
        rule = routing.get("amendments")
        if rule is not None and event_type in rule["by"] and routing["class"] == amends["event_class"]:
            return name if amends["kind"] == "void" or rule["may_change"] else None
    return None


def amends(amendment: Amendment, content: Mapping[str, Any], event_id: str, event: Event) -> bool:
    """Whether an amendment is of that event."""
    if (amendment.event_type, amendment.event_id, amendment.target_ts) != (event.event_type, event_id, event.ts):
        return False
    routing = content["events"][event.event_type]
    for kind in routing["keys"]:
        own, other = (_plain(_key(one, content, event.event_type, kind)) for one in (amendment.payload, event.payload))
        if own != other:
            return False
    same: set[str] = set()
    if amendment.kind == "replace":
        same = set(routing["fields"]) - set(routing["amendments"]["may_change"])
    return all(_plain(amendment.payload.get(name)) == _plain(event.payload.get(name)) for name in same)


def _plain(value: Any) -> tuple[type, Any] | None:
    return (type(value), value) if isinstance(value, (str, int)) else None


def amends_key(amendment: Amendment, content: Mapping[str, Any], key_type: str, key_id: str) -> bool:
    """Whether an amendment is of events that touch this key, for a group that uses their type."""
    is_used = any(group["key_type"] == key_type and _uses(group, amendment.event_type) for group in content["groups"])
    return is_used and _key(amendment.payload, content, amendment.event_type, key_type) == key_id


def _has_key(payload: Mapping[str, Any], content: Mapping[str, Any], key_type: str, event_type: str) -> bool:
    return _is_key(_key(payload, content, event_type, key_type), content.get("key_patterns", {}).get(key_type))


def snapshot(
    known: Known,
    content: Mapping[str, Any],
    keys: Sequence[tuple[str, str]],
    groups: Sequence[tuple[str, str]],
    as_of: int,
    *,
    allowed_lateness: int,
    request_context: Mapping[str, int | str] | None = None,
    forensic: bool = False,
    entities: Mapping[tuple[str, str], tuple[Sequence[str], Sequence[Mapping[str, Any]]]] | None = None,
) -> Answer:
    """What `get_features` must answer, or (`forensic`) a rebuild, which answers behind the horizon, too, and has none there.

    `entities`: of each key the members of its entity and the conflicts about these, for groups that resolve identities.

    Raises:
        BehindHorizon: a requested window begins behind the horizon.
    """
    reach = max(_reach(group) for group in content["groups"])
    horizon = None if known.watermark is None else known.watermark - reach - allowed_lateness
    chosen = sorted(
        (group for group in content["groups"] if (group["name"], group["version"]) in groups),
        key=lambda group: (group["name"], group["version"]),
    )
    if horizon is not None and any(as_of - _reach(group) < horizon for group in chosen):
        if not forensic:
            raise BehindHorizon
        horizon = None
    by_key, freshness, warnings = [], [], []
    events_in_force = in_force(known, content, as_of).values()
    for key_type, key_id in sorted(keys):
        by_group = []
        for group in chosen:
            if group["key_type"] != key_type:
                continue
            members, conflicts = (entities or {}).get((key_type, key_id), ([key_id], []))
            if group.get("identity") != "resolved":
                members, conflicts = [key_id], []
            events = [event for event in events_in_force if any(_touches(event, content, key_type, one) for one in members)]
            where = {
                "key_type": key_type,
                "key_id": key_id,
                "group_name": group["name"],
                "group_version": group["version"],
            }
            warnings += [{"code": "IDENTITY_CONFLICT", **where, "conflict": dict(conflict)} for conflict in conflicts]
            by_group.append(
                {
                    "group_name": group["name"],
                    "group_version": group["version"],
                    "features": group_features(group, events, as_of, request_context or {}),
                }
            )
            for name in features_out_of_range(group, events, as_of, request_context or {}):
                warnings.append({"code": "VALUE_OUT_OF_RANGE", **where, "feature": name})
            last = last_update(group, events, as_of, horizon)
            age = None if last is None else (as_of - last) // 1_000_000
            stale = age is None or age > group["ttl_seconds"]
            if last is None:
                warnings.append({"code": "NO_DATA", **where})
            if stale:
                warnings.append({"code": "STALE_GROUP", **where})
            freshness.append(
                {
                    **where,
                    "ttl_seconds": group["ttl_seconds"],
                    "last_update_event_time": None if last is None else time_text(last),
                    "age_seconds": age,
                    "stale": stale,
                }
            )
        by_key.append({"key_type": key_type, "key_id": key_id, "by_group": by_group})
    warnings.sort(
        key=lambda one: (*(one.get(name, "") for name in ("code", *_WHERE, "feature")), *one.get("conflict", {}).values())
    )
    return Answer(by_key, freshness, warnings)


def group_features(
    group: Mapping[str, Any], events: Sequence[Event], as_of: int, request: Mapping[str, int | str]
) -> dict[str, Wired]:
    """The wire values of one group over the events of one key; those that do not feed the group are left out."""
    return _served(group, events, as_of, request)[0]


def features_out_of_range(
    group: Mapping[str, Any], events: Sequence[Event], as_of: int, request: Mapping[str, int | str]
) -> list[str]:
    """The features of a group that are null because their value is beyond what is served."""
    return _served(group, events, as_of, request)[1]


def _served(
    group: Mapping[str, Any], events: Sequence[Event], as_of: int, request: Mapping[str, int | str]
) -> tuple[dict[str, Wired], list[str]]:
    events = _feeding(group, events)
    values: dict[str, Fraction | None] = {}
    wired: dict[str, Wired] = {}
    beyond = []
    for feature in group["features"]:
        value: int | str | Fraction | list[Any] | None
        if feature["aggregation"] == "ratio":
            sides = [
                signed_square(feature[side]["aggregation"], _items(feature[side], events, as_of), as_of, _p(feature[side]))
                for side in ("numerator", "denominator")
            ]
            value = divide(sides[0], sides[1], feature["scale"])
        else:
            value = _value(feature, events, as_of)
        if isinstance(value, list) and any(isinstance(item, dict) and abs(item["value"]) > LIMIT for item in value):
            beyond.append(feature["name"])
            wired[feature["name"]] = None
            continue
        if isinstance(value, (str, bool, list)):
            wired[feature["name"]] = value  # no expression reads it
            continue
        decimal = feature["aggregation"] in ("mean", "stddev", "ratio")
        bound = Fraction(DECIMAL_LIMIT, 10 ** feature["scale"]) if decimal else LIMIT + 1
        if value is not None and abs(value) >= bound:
            beyond.append(feature["name"])
            value = None
        if value is None:
            wired[feature["name"]] = None
        elif decimal:
            wired[feature["name"]] = decimal_text(Fraction(value), feature["scale"])
        else:
            assert isinstance(value, int)
            wired[feature["name"]] = value
        values[feature["name"]] = None if value is None else Fraction(value)
    for one in group["on_demand"]:
        exact = compute(one["expression"], values, request)
        result = None if exact is None else at_scale(exact, one["scale"])
        if result is not None and abs(result) >= Fraction(DECIMAL_LIMIT, 10 ** one["scale"]):
            beyond.append(one["name"])
            result = None
        wired[one["name"]] = None if result is None else decimal_text(result, one["scale"])
    return dict(sorted(wired.items())), beyond


def last_update(group: Mapping[str, Any], events: Sequence[Event], as_of: int, horizon: int | None = None) -> int | None:
    """The greatest time <= as-of, in front of the horizon, of an event of a type that feeds the group, whatever its fields."""
    times = [
        event.ts
        for event in _feeding(group, events)
        if event.ts <= as_of and (horizon is None or event.ts > horizon) and _uses(group, event.event_type)
    ]
    return max(times, default=None)


def _value(selection: Mapping[str, Any], events: Sequence[Event], as_of: int) -> int | str | Fraction | list[Any] | None:
    items, length = _items(selection, events, as_of), selection.get("n", selection.get("k", 0))
    return aggregate(selection["aggregation"], items, as_of, selection["scale"], _p(selection), length)


def _p(selection: Mapping[str, Any]) -> Fraction:
    return Fraction(selection.get("p", "0.5"))


def _items(selection: Mapping[str, Any], events: Sequence[Event], as_of: int) -> list[Item]:
    latest = as_of - selection["delay"]
    after = latest - selection["window"]
    if "calendar" in selection:
        after = calendar_begin(selection["calendar"]["unit"], selection["calendar"]["zone"], latest // MINUTE) - 1
    return [
        Item(event.ts, event.tie, _own_value(event, selection))
        for event in events
        if after < event.ts <= latest and _satisfies(event, selection)
    ]


@cache
def _zone(name: str) -> ZoneInfo:
    """By the zone data of the package `tzdata`, as the law has it: a machine's own may be older, and tell another night."""
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, name)


@cache
def _calendar_day(zone: str, minute: int) -> tuple[date, int]:
    """The local day of a minute since the epoch, and its first minute, looked for minute by minute: clocks change on these.

    Of all local dates that the clock has shown so far the greatest counts; it begins with the first minute that showed it.
    """
    info = _zone(zone)
    dates = [datetime.fromtimestamp((minute - back) * 60, info).date() for back in range(2 * 1_440)]
    greatest = max(dates)
    return greatest, minute - max(back for back, shown in enumerate(dates) if shown == greatest)


def calendar_begin(unit: str, zone: str, minute: int) -> int:
    """The beginning of the local day or month of a minute since the epoch, in microseconds: of a month that of its first day."""
    day, first = _calendar_day(zone, minute)
    while unit == "month":
        before, begin = _calendar_day(zone, first - 1)
        if (before.year, before.month) != (day.year, day.month):
            break
        first = begin
    return first * MINUTE


def _own_value(event: Event, selection: Mapping[str, Any]) -> Any:
    if "condition" in selection:
        return _holds(event, selection["condition"])
    value = None if selection["value"] is None else event.payload[selection["value"]]
    if "category" in selection:
        category = event.payload[selection["category"]]
        return category if selection["value"] is None else (category, value)
    return (value, event.payload[selection["paired_with"]]) if "paired_with" in selection else value


def _satisfies(event: Event, selection: Mapping[str, Any]) -> bool:
    return event.event_type in selection["events"] and _holds(event, selection["where"])


def _holds(event: Event, conditions: Mapping[str, Any]) -> bool:
    return all(
        any(type(value) is type(event.payload[name]) and value == event.payload[name] for value in allowed)
        for name, allowed in conditions.items()
    )


def _touches(event: Event, content: Mapping[str, Any], key_type: str, key_id: str) -> bool:
    return _key(event.payload, content, event.event_type, key_type) == key_id


def _key(payload: Mapping[str, Any], content: Mapping[str, Any], event_type: str, key_type: str) -> Any:
    """The key of a payload: a field of it, or the id of the one identifier of a type that it has."""
    name = content["events"][event_type]["keys"].get(key_type)
    if name is None or "[" not in name:
        return None if name is None else payload.get(name)
    listed = payload.get("observed_identifiers") or []
    if not isinstance(listed, list):
        return None
    found = set()
    for each in listed:
        if not isinstance(each, dict) or not all(isinstance(each.get(part), str) for part in ("id_type", "id_token")):
            return None
        if f"observed_identifiers[{each['id_type']}]" == name:
            found.add((each["id_type"], each["id_token"]))
    if len(found) != 1:
        return None
    ((id_type, token),) = found
    if token == "" or is_observed_identifier(token):
        return None
    return f"e_{key_type}_{hashlib.sha256(f'{id_type}|{token}'.encode()).hexdigest()[:32]}"


def _selections(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = []
    for feature in group["features"]:
        if feature["aggregation"] == "ratio":
            found += [feature["numerator"], feature["denominator"]]
        else:
            found.append(feature)
    return found


def _reach(group: Mapping[str, Any]) -> int:
    return max(int(selection["window"] + selection["delay"]) for selection in _selections(group))


def _feeding(group: Mapping[str, Any], events: Sequence[Event]) -> list[Event]:
    return [event for event in events if (group["name"], group["version"]) in event.groups]


def _uses(group: Mapping[str, Any], event_type: str) -> bool:
    return any(event_type in selection["events"] for selection in _selections(group))


def _is_key(value: Any, pattern: str | None) -> bool:
    """Whether a value is a canonical key: of the pattern of its type, or of the default one; an observed identifier never is."""
    if not isinstance(value, str) or _KEY.fullmatch(value) is None or is_observed_identifier(value):
        return False
    return not is_raw_key(value) if pattern is None else re.fullmatch(pattern, value, re.ASCII) is not None


def _usable(payload: Mapping[str, Any], content: Mapping[str, Any], group: Mapping[str, Any], event_type: str) -> bool:
    """Whether a payload has all that one group needs of its event type: the key, and every field that is read, of its type."""
    routing = content["events"][event_type]
    if not _has_key(payload, content, group["key_type"], event_type):
        return False
    for selection in _selections(group):
        if event_type not in selection["events"]:
            continue
        values = [selection[name] for name in ("value", "paired_with", "category") if selection.get(name) is not None]
        for name in [*selection["where"], *selection.get("condition", ()), *values]:
            value = payload.get(name)
            if type(value) is not _TYPES[routing["fields"][name]] or (isinstance(value, int) and abs(value) > LIMIT):
                return False
            is_value = name == selection["value"] and selection["aggregation"] in ("min", "max", "first", "last", "last_n")
            is_kept = is_value or name == selection.get("category")
            if is_kept and isinstance(value, str) and len(value.encode()) > TEXT_LIMIT:
                return False
    return True
