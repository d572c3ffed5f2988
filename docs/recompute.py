#!/usr/bin/env python3
"""Recompute the digests of the plane. Python 3.11 or later, its standard library, and nothing of this project.

`python recompute.py KIND FILE.json` prints the digest of the object in the file (`-`: standard input); `--list` prints the kinds.
Layouts and test vectors: docs/recomputing.md.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PIN_NAMES = (
    "scenario_id",
    "run_id",
    "manifest_fingerprint",
    "parameter_hash",
    "seed",
    "platform_run_id",
    "scenario_run_id",
)
UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
LIST_FIELDS = ("n", "category", "k")
DECIMAL_AGGREGATIONS = ("mean", "stddev", "ratio")
DEFAULT_SCALE = 6
FIRST_VERSIONS = ("1", "1.0", "v1", "v1.0")
ZONE_DATA = "2026f"
CALENDAR_WINDOWS = {"day": 2 * UNITS["d"], "month": 32 * UNITS["d"]}
IDENTITY_FIELDS = (
    "context_pins",
    "stream_name",
    "replay_basis",
    "feature_pack",
    "feature_groups",
    "run_config_digest",
    "scope",
    "as_of_basis",
    "graph_version",
    "purpose",
    "label_basis",
    "adjudications",
    "policy",
    "parity_request",
    "ofs_code_release_id",
)
NOT_EMITTED = -(2**63)
ROW_ORDER = "event_time_then_identity"


# --- canonical bytes: RFC 8785 ---


def canonical(value: Any) -> bytes:
    """The RFC 8785 bytes of a JSON value as `json.loads` gives it."""
    return "".join(_parts(value)).encode("utf-8")


def _parts(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        yield "{"
        for index, name in enumerate(sorted(value, key=lambda text: text.encode("utf-16-be"))):
            yield ("," if index else "") + json.dumps(name, ensure_ascii=False) + ":"
            yield from _parts(value[name])
        yield "}"
    elif isinstance(value, (list, tuple)):
        yield "["
        for index, item in enumerate(value):
            yield "," if index else ""
            yield from _parts(item)
        yield "]"
    elif isinstance(value, float):
        yield _number(value)
    else:
        yield json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """A float as ECMAScript writes it: the shortest digits that give it back."""
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    text, point = "".join(map(str, digits)), len(digits) + exponent
    if len(text) <= point <= 21:
        text = text + "0" * (point - len(text))
    elif 0 < point <= 21:
        text = f"{text[:point]}.{text[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{text}"
    else:
        mantissa = text[0] + (f".{text[1:]}" if len(text) > 1 else "")
        text = f"{mantissa}e{'+' if point > 1 else '-'}{abs(point - 1)}"
    return ("-" if sign else "") + text


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of the canonical bytes."""
    return sha256(canonical(value))


def time_text(text: str) -> str:
    """The one text of a time: no fraction where it is zero, else six digits."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def microseconds(text: str) -> int:
    """Microseconds since the epoch."""
    return (datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH) // timedelta(microseconds=1)


def duration(text: str) -> int:
    """Microseconds of a duration such as 24h."""
    number, unit = re.fullmatch(r"(\d+)(us|ms|s|m|h|d)", text).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


# --- events ---


def payload_hash(envelope: Mapping[str, Any]) -> str:
    """The payload hash of an event: over its type, schema version, time, pins, payload and what it amends, if anything."""
    amends = envelope.get("amends")
    amended = {} if amends is None else {"amends": {**amends, "ts_utc": time_text(amends["ts_utc"])}}
    return digest(
        {
            **amended,
            "event_type": envelope["event_type"],
            "schema_version": envelope["schema_version"],
            "ts_utc": time_text(envelope["ts_utc"]),
            "pins": {name: envelope[name] for name in PIN_NAMES if envelope.get(name) is not None},
            "payload": envelope["payload"],
        }
    )


def tie(event: Mapping[str, Any]) -> str:
    """The bytes that order events of one time: the first 16 of SHA-256(class NUL event id NUL payload hash), in hexadecimal.

    `event`: {event_class, event_id, payload_hash}.
    """
    head = f"{event['event_class']}\0{event['event_id']}\0".encode()
    return sha256(head + bytes.fromhex(event["payload_hash"]))[:32]


# --- answers, decisions ---


def snapshot_hash(answer: Mapping[str, Any]) -> str:
    """The hash of a snapshot, from a whole answer of get_features."""
    snapshot, provenance = answer["snapshot"], answer["provenance"]
    requested = provenance["requested"]
    hashed = {
        "contract_version": snapshot["contract_version"],
        "context_pins": provenance["context_pins"],
        "as_of_time_utc": requested["as_of_time_utc"],
        "feature_keys": requested["feature_keys"],
        "feature_groups": requested["feature_groups"],
        "registry_digest": provenance["feature_definition_set"]["digest"],
        "run_config_digest": provenance["run_config_digest"],
        "values": snapshot["by_key"],
        "freshness": provenance["freshness"],
        "warnings": provenance["warnings"],
        "input_basis": provenance["input_basis"],
    }
    for name, value in (("graph_version", provenance["graph_version"]), ("request_context", requested["request_context"])):
        if value is not None:
            hashed[name] = value
    return digest(hashed)


def decision_id(decision: Mapping[str, Any]) -> str:
    """The id of a decision, from its record."""
    named = {name: decision[name] for name in ("context_pins", "event_id", "event_type")}
    return digest({**named, "contract_version": "v0"})


# --- definitions ---


def run_config_digest(profile: Mapping[str, Any]) -> str:
    """The digest of the part of a profile that can change a value."""
    return digest(
        {
            "allowed_lateness_us": duration(profile.get("allowed_lateness", "1d")),
            "clock_skew_us": duration(profile.get("clock_skew", "5m")),
            "contract_version": "ofp_public_contracts_v0",
            "stream_name": profile["stream_name"],
        }
    )


def pack_digest(pack: Mapping[str, Any]) -> str:
    """The digest of a feature pack, from its YAML read as JSON."""
    patterns = pack.get("key_patterns")
    return digest(
        {
            "contract_version": "v0",
            "pack_id": pack["pack_id"],
            "revision": pack["revision"],
            **({"key_patterns": patterns} if patterns else {}),
            "events": {name: _routing(name, routing) for name, routing in pack["events"].items()},
            "groups": [_group(group) for group in sorted(pack["groups"], key=lambda group: (group["name"], group["version"]))],
        }
    )


def _routing(name: str, routing: Mapping[str, Any]) -> dict[str, Any]:
    meaning = {"class": routing.get("class", name), "keys": routing["keys"], "fields": routing.get("fields", {})}
    versions = sorted(set(routing.get("schema_versions", FIRST_VERSIONS)))
    if versions != sorted(FIRST_VERSIONS):
        meaning["schema_versions"] = versions
    if "amendments" in routing:
        meaning["amendments"] = {part: sorted(set(routing["amendments"].get(part, ()))) for part in ("by", "may_change")}
    return meaning


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    by_name: Callable[[Any], str] = lambda feature: feature["name"]  # noqa: E731
    return {
        "name": group["name"],
        "version": group["version"],
        "key_type": group["key_type"],
        **({"identity": "resolved"} if group.get("identity") == "resolved" else {}),
        "ttl_seconds": group["ttl_seconds"],
        "features": [_feature(feature) for feature in sorted(group["features"], key=by_name)],
        "request": group.get("request", {}),
        "on_demand": [
            {"name": one["name"], "expression": expression(one["expression"]), "scale": one.get("scale", DEFAULT_SCALE)}
            for one in sorted(group.get("on_demand", ()), key=by_name)
        ],
    }


def expression(text: str) -> str:
    """The canonical text of an on-demand expression: sums and products flattened and sorted, no blanks, no needless ()."""
    source = text.strip()
    return _sum(_terms(ast.parse(source, mode="eval").body, source))


Term = tuple[int, list[str], list[str]]  # sign, factors, divisors


def _terms(node: ast.expr, source: str) -> list[Term]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        right = _terms(node.right, source)
        return _terms(node.left, source) + (right if isinstance(node.op, ast.Add) else _negated(right))
    if isinstance(node, ast.UnaryOp):
        return _negated(_terms(node.operand, source))
    return [_product(node, source)]


def _negated(terms: list[Term]) -> list[Term]:
    return [(-sign, factors, divisors) for sign, factors, divisors in terms]


def _product(node: ast.expr, source: str) -> Term:
    if isinstance(node, ast.Constant):
        whole, _, digits = (ast.get_source_segment(source, node) or "").partition(".")
        digits = digits.rstrip("0")
        return 1, [f"{whole.lstrip('0') or '0'}{'.' if digits else ''}{digits}"], []
    if isinstance(node, ast.Name):
        return 1, [node.id], []
    if isinstance(node, ast.Attribute):
        return 1, [f"request.{node.attr}"], []
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
        sign, factors, divisors = _product(node.left, source)
        other_sign, other_factors, other_divisors = other = _product(node.right, source)
        if isinstance(node.op, ast.Mult):
            return sign * other_sign, factors + other_factors, divisors + other_divisors
        below = [f"({_term(other)})"] if other_divisors else other_factors
        return sign * other_sign, factors, divisors + below
    terms = _terms(node, source)
    if len(terms) == 1:
        return terms[0]
    sign = min((_term(term), -term[0]) for term in terms)[1] * -1
    return sign, [f"({_sum(terms if sign > 0 else _negated(terms))})"], []


def _term(term: Term) -> str:
    return "*".join(sorted(term[1])) + "".join(f"/{divisor}" for divisor in sorted(term[2]))


def _sum(terms: list[Term]) -> str:
    ordered = sorted((-sign, _term((sign, factors, divisors))) for sign, factors, divisors in terms)
    return "".join(f"{'+' if sign < 0 else '-'}{text}" for sign, text in ordered).removeprefix("+")


def _feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    head = {"name": feature["name"], "aggregation": feature["aggregation"]}
    if feature["aggregation"] != "ratio":
        return {**head, **_selection(feature, {})}
    sides = {side: {**_selection(feature[side], feature), "scale": 0} for side in ("numerator", "denominator")}
    return {**head, "scale": feature.get("scale", DEFAULT_SCALE), **sides}


def _selection(part: Mapping[str, Any], feature: Mapping[str, Any]) -> dict[str, Any]:
    def first(name: str, default: str | None) -> Any:
        return part.get(name) or feature.get(name) or default

    window = first("window", None)
    extras = {name: part[name] for name in LIST_FIELDS if name in part}
    value = part.get("value")
    if "paired_with" in part:
        value, extras["paired_with"] = sorted((value, part["paired_with"]))
    if "p" in part:
        extras["p"] = f"{Decimal(str(part['p'])):.6f}"
    if "condition" in part:
        extras["condition"] = _conditions(part["condition"])
    if " in " in window:
        unit, _, zone = window.partition(" in ")
        extras["calendar"] = {"unit": unit, "zone": zone, "zone_data": ZONE_DATA}
    return {
        "aggregation": part["aggregation"],
        "events": sorted(set(part["events"])),
        "where": _conditions(part.get("where", {})),
        "value": value,
        "window": CALENDAR_WINDOWS[window.partition(" ")[0]] if " in " in window else duration(window),
        "delay": duration(first("delay", "0s")),
        "scale": part.get("scale", DEFAULT_SCALE) if part["aggregation"] in DECIMAL_AGGREGATIONS else 0,
        **extras,
    }


def _conditions(conditions: Mapping[str, Any]) -> dict[str, list[Any]]:
    meaning = {}
    for name, values in conditions.items():
        items = values if isinstance(values, list) else [values]
        unique = {(type(item).__name__, item): item for item in items}
        meaning[name] = [unique[key] for key in sorted(unique)]
    return meaning


def rule_digest(rule: Mapping[str, Any]) -> str:
    """The digest of a decision rule."""
    return digest(rule)


# --- labels, datasets, archive ---


def assertion_id(label: Mapping[str, Any]) -> str:
    """The id of a label assertion."""
    return digest(label)


def resolved_digest(assertion_ids: list[str]) -> str:
    """The digest of resolved labels: their assertion ids, joined in the order of their events' classes and ids."""
    return sha256("".join(assertion_ids).encode("ascii"))


def request_id(intent: Mapping[str, Any]) -> str:
    """The id of a build request, from its intent as stored."""
    return digest({name: value for name, value in intent.items() if name not in ("note", "submitted_by")})


def dataset_identity(plan: Mapping[str, Any]) -> str:
    """The identity of a dataset, from its plan as stored."""
    meaning = {name: plan[name] for name in IDENTITY_FIELDS if name in plan}
    row_order = "entity_table" if plan.get("scope", {}).get("kind") == "per_table" else ROW_ORDER
    return digest({"contract_version": "v0", "row_order": row_order, "run_facts": plan["run_facts"]["digest"], **meaning})


def seal(manifest: Mapping[str, Any]) -> str:
    """The seal of a manifest."""
    return digest({name: value for name, value in manifest.items() if name != "seal"})


def receipt_digest(receipt: Mapping[str, Any]) -> str:
    """The digest of an archive receipt."""
    return digest({name: value for name, value in receipt.items() if name != "receipt_digest"})


def dataset_content_digest(table: Mapping[str, Any]) -> str:
    """The content digest of a dataset.

    `table`: {columns: [{name, type, values}]}, values in the order of the rows; times as text, decimals as text.
    """
    columns = [_column(column["name"], column["type"], column["values"]) for column in table["columns"]]
    rows = len(table["columns"][0]["values"])
    return digest({"format": "ofp_dataset_content_v0", "rows": rows, "columns": columns})


def _column(name: str, kind: str, values: list[Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "type": kind, "validity": sha256(bytes(value is not None for value in values))}
    if kind.startswith("list<"):
        items = [item for value in values for item in value or ()]
        entry["lengths"] = sha256(b"".join(struct.pack("<I", len(value or ())) for value in values))
        return {**entry, "items": _column("element", kind.removeprefix("list<element: ").removesuffix(" not null>"), items)}
    if kind.startswith("struct<"):
        parts = re.findall(r"(\w+): (\w+) not null", kind)
        fields = [_column(part, part_kind, [value[part] for value in values]) for part, part_kind in parts]
        return {**entry, "fields": fields}
    if kind == "string":
        entry["lengths"] = sha256(b"".join(struct.pack("<I", len((value or "").encode())) for value in values))
    return {**entry, "values": sha256(b"".join(_cell(kind, value) for value in values))}


def _cell(kind: str, value: Any) -> bytes:
    if kind == "string":
        return (value or "").encode()
    if kind == "bool":
        return bytes([bool(value)])
    if kind == "int64":
        return struct.pack("<q", value or 0)
    if kind.startswith("timestamp"):
        return struct.pack("<q", 0 if value is None else microseconds(value))
    scale = int(re.fullmatch(r"decimal128\(38, (\d+)\)", kind)[1])  # type: ignore[index]
    unscaled = 0 if value is None else int(Decimal(value).scaleb(scale))
    return unscaled.to_bytes(16, "little", signed=True)


def segment_content_digest(segment: Mapping[str, Any]) -> str:
    """The content digest of an archive segment.

    `segment`: {stream_name, partition_id, first, next, unreadable: [[offset, reason]], columns: {name: values}}, and where
    records amend others `amendments`: [[offset, text]]; times as text or null, hashes in hexadecimal, offsets as they are.
    """
    hashes = {}
    for name, values in segment["columns"].items():
        if name == "payload_hash":
            hashes[name] = sha256(b"".join(map(bytes.fromhex, values)))
        elif name in ("admitted_at", "ts", "emitted_at"):
            whole = [NOT_EMITTED if value is None else microseconds(value) for value in values]
            hashes[name] = sha256(b"".join(struct.pack("<q", value) for value in whole))
        elif name == "offset" and all(isinstance(value, int) for value in values):
            hashes[name] = sha256(b"".join(struct.pack("<q", value) for value in values))
        else:
            texts = [value.encode() for value in values]
            hashes[f"{name}.lengths"] = sha256(b"".join(struct.pack("<i", len(text)) for text in texts))
            hashes[name] = sha256(b"".join(texts))
    named = {name: segment[name] for name in ("stream_name", "partition_id", "first", "next", "unreadable")}
    if segment.get("amendments"):
        named["amendments"] = segment["amendments"]
    return digest({**named, "columns": hashes})


KINDS: dict[str, Callable[[Any], str]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        digest,
        payload_hash,
        tie,
        snapshot_hash,
        decision_id,
        run_config_digest,
        pack_digest,
        rule_digest,
        assertion_id,
        resolved_digest,
        request_id,
        dataset_identity,
        dataset_content_digest,
        seal,
        receipt_digest,
        segment_content_digest,
    )
}


def main() -> None:
    """Print one digest."""
    if sys.argv[1:] == ["--list"]:
        for name, function in KINDS.items():
            print(f"{name:24}{(function.__doc__ or '').splitlines()[0]}")
        return
    if len(sys.argv) != 3 or sys.argv[1] not in KINDS:
        sys.exit(f"usage: recompute.py KIND FILE.json; KIND: {', '.join(KINDS)}")
    with open(0 if sys.argv[2] == "-" else sys.argv[2], encoding="utf-8") as file:
        print(KINDS[sys.argv[1]](json.load(file)))


if __name__ == "__main__":
    main()
