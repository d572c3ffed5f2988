"""Packs: loaded, and named by what they mean: the same meaning has the same digest, however it is written."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from ofp_platform.registry.aggregations import P_DIGITS, Aggregation, Reads, rule_of
from ofp_platform.registry.calendar_windows import ZONE_DATA_VERSION
from ofp_platform.registry.expression import canonical_expression
from ofp_platform.registry.models import FIRST_SCHEMA_VERSIONS, EventRouting, Feature, Group, Identity, Operand, Pack, event_class
from ofp_platform.registry.pack_text import PackError, PackErrors, PackText
from ofp_platform.registry.selection import Selection, feature_scale, feature_selections, fields_needed, pair_fields, predicate_of
from ofp_platform.registry.validation import validate
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.decimals import format_decimal
from ofp_platform.vocabulary.text_file import read_text

SHIPPED_PACKS = ("card_payments", "handbook", "mule_rings")


def load_pack(text: str, file: str = "<pack>") -> Pack:
    """A pack from YAML (or JSON) text; `file` is what error messages call it.

    Raises:
        PackErrors: everything that is wrong with it, with file, line and field.
    """
    return validate(PackText(text, file))


def load_pack_file(path: Path) -> Pack:
    """A pack from a file.

    Raises:
        PackErrors: the file cannot be read as UTF-8 text, or is not a valid pack.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise PackErrors([PackError(str(path), 0, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise PackErrors([PackError(str(path), 0, "", "is not UTF-8 text")]) from None
    return load_pack(text, str(path))


def shipped_pack_text(name: str) -> str:
    """The YAML of a pack that ships with the package, one of SHIPPED_PACKS.

    Raises:
        KeyError: there is no such pack.
    """
    if name not in SHIPPED_PACKS:
        raise KeyError(f"no shipped pack {name!r}; there are {', '.join(SHIPPED_PACKS)}")
    return resources.files("ofp_platform.registry").joinpath("packs", f"{name}.yaml").read_text(encoding="utf-8")


def shipped_pack(name: str) -> Pack:
    """A pack that ships with the package, one of SHIPPED_PACKS.

    Raises:
        KeyError: there is no such pack.
    """
    return load_pack(shipped_pack_text(name), f"{name}.yaml")


def pack_content(pack: Pack) -> dict[str, Any]:
    """The meaning of the pack, as canonical JSON: defaults filled in, durations in microseconds, all orders fixed.

    The description is prose and stays out.
    """
    return {
        "contract_version": "v0",
        "pack_id": pack.pack_id,
        "revision": pack.revision,
        **({"key_patterns": patterns} if (patterns := {k.value: text for k, text in pack.key_patterns.items()}) else {}),
        "events": {name: _routing(pack, name, routing) for name, routing in pack.events.items()},
        "groups": [_group(group) for group in sorted(pack.groups, key=group_id)],
    }


def pack_digest(pack: Pack) -> str:
    """SHA-256 (hex) over the canonical bytes of `pack_content`."""
    return digest_of(pack_content(pack))


def group_id(group: Group) -> tuple[str, str]:
    """(group_name, group_version)."""
    return group.name, group.version


def group_content(pack: Pack, group: Group) -> dict[str, Any]:
    """The meaning of one group version: its features, and of the events that they select what the group reads."""
    routing = {}
    selections = [selection for feature in group.features for selection in feature_selections(feature)]
    read = fields_needed(
        (predicate, frozenset(selection.fields)) for selection in selections for predicate in selection.predicates
    )
    for name in sorted(read):
        event = pack.events[name]
        routing[name] = {
            "class": event_class(pack.events, name),
            "key": event.keys[group.key_type],
            "fields": {field: event.fields[field].value for field in read[name]},
            **_schema_versions(event),
            **_amendments(event),
        }
        if group.key_type in pack.key_patterns:
            routing[name]["key_pattern"] = pack.key_patterns[group.key_type]
    return {"contract_version": "v0", **_group(group), "events": routing}


def group_digest(pack: Pack, group: Group) -> str:
    """SHA-256 (hex) over the canonical bytes of `group_content`."""
    return digest_of(group_content(pack, group))


def group_digests(pack: Pack) -> dict[tuple[str, str], str]:
    """(group_name, group_version) to content digest, in order."""
    return {group_id(group): group_digest(pack, group) for group in sorted(pack.groups, key=group_id)}


def feature_content(feature: Feature) -> dict[str, Any]:
    """One windowed feature, as in `group_content`."""
    selections, parts = feature_selections(feature), (feature.numerator or feature, feature.denominator or feature)
    head: dict[str, Any] = {"name": feature.name, "aggregation": feature.aggregation.value}
    if rule_of(feature.aggregation).reads is Reads.OPERANDS:
        sides = [_selection(selection, part) for selection, part in zip(selections, parts, strict=True)]
        return {**head, "scale": feature_scale(feature), "numerator": sides[0], "denominator": sides[1]}
    return {**head, **_selection(selections[0], feature)}


def _selection(selection: Selection, part: Feature | Operand) -> dict[str, Any]:
    """A selection as it is named; what few aggregations have is named of these only."""
    extras: dict[str, Any] = {}
    if selection.paired_with is not None:
        extras["value"], extras["paired_with"] = pair_fields(selection.token or "")
    if selection.aggregation is Aggregation.QUANTILE:
        extras["p"] = format_decimal(selection.parameter, P_DIGITS)
    if selection.category is not None:
        extras |= {"category": selection.category, "k": selection.parameter}
    elif rule_of(selection.aggregation).is_list:
        extras["n"] = selection.parameter
    if selection.calendar is not None:
        extras["calendar"] = {
            "unit": selection.calendar.unit,
            "zone": selection.calendar.zone,
            "zone_data": ZONE_DATA_VERSION,
        }
    if part.condition is not None:
        extras["condition"] = {name: list(values) for name, values in predicate_of((), part.condition).conditions}
    return {
        "aggregation": selection.aggregation.value,
        "events": list(selection.predicate.event_types),
        "where": {name: list(values) for name, values in selection.predicate.conditions},
        "value": selection.value,
        "window": selection.window,
        "delay": selection.delay,
        "scale": selection.scale,
        **extras,
    }


def _routing(pack: Pack, name: str, routing: EventRouting) -> dict[str, Any]:
    return {
        "class": event_class(pack.events, name),
        "keys": {key_type.value: field for key_type, field in routing.keys.items()},
        "fields": {field: kind.value for field, kind in routing.fields.items()},
        **_schema_versions(routing),
        **_amendments(routing),
    }


def _amendments(routing: EventRouting) -> dict[str, Any]:
    """Which types may amend the event, and the fields that these may change, sorted; nothing where it is never amended."""
    amendments = routing.amendments
    if amendments is None:
        return {}
    return {"amendments": {"by": sorted(set(amendments.by)), "may_change": sorted(set(amendments.may_change))}}


def _schema_versions(routing: EventRouting) -> dict[str, list[str]]:
    """The schema versions that are understood, sorted; nothing where these are the default."""
    versions = sorted(set(routing.schema_versions))
    return {} if versions == sorted(FIRST_SCHEMA_VERSIONS) else {"schema_versions": versions}


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "version": group.version,
        "key_type": group.key_type.value,
        **({} if group.identity is Identity.AS_SENT else {"identity": group.identity.value}),
        "ttl_seconds": group.ttl_seconds,
        "features": [feature_content(feature) for feature in sorted(group.features, key=lambda feature: feature.name)],
        "request": {name: kind.value for name, kind in group.request.items()},
        "on_demand": [
            {"name": feature.name, "expression": canonical_expression(feature.expression), "scale": feature.scale}
            for feature in sorted(group.on_demand, key=lambda feature: feature.name)
        ],
    }
