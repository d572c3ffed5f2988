"""The changes between two packs, in lines that a person reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ofp_platform.registry.models import Pack
from ofp_platform.registry.pack import group_content, group_digest, group_id, pack_content
from ofp_platform.vocabulary.times import format_duration


@dataclass(frozen=True)
class PackDiff:
    """`added`, `removed`, `refused` are (group_name, group_version); `lines` tell all, by `+ - ~` and `!` (refused)."""

    added: tuple[tuple[str, str], ...]
    removed: tuple[tuple[str, str], ...]
    refused: tuple[tuple[str, str], ...]
    changed_events: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def publishable(self) -> bool:
        """Whether no group changed under a version that it had."""
        return not self.refused


def diff_packs(old: Pack, new: Pack) -> PackDiff:
    """Compare two packs by what they mean (order and spelling of the files aside)."""
    lines: list[str] = []
    before, after = pack_content(old), pack_content(new)
    for name in ("pack_id", "revision"):
        if before[name] != after[name]:
            lines.append(f"~ {name}: {before[name]} -> {after[name]}")
    changed_events = _events(before["events"], after["events"], lines)
    old_groups = {group_id(group): group for group in old.groups}
    new_groups = {group_id(group): group for group in new.groups}
    added_groups = sorted(new_groups.keys() - old_groups.keys())
    removed_groups = sorted(old_groups.keys() - new_groups.keys())
    refused_groups = []
    for identity in added_groups:
        group = new_groups[identity]
        features = len(group.features) + len(group.on_demand)
        lines.append(f"+ group {identity[0]} {identity[1]} ({group.key_type}, {features} features)")
    lines.extend(f"- group {name} {version}" for name, version in removed_groups)
    for identity in sorted(old_groups.keys() & new_groups.keys()):
        old_group, new_group = old_groups[identity], new_groups[identity]
        if group_digest(old, old_group) != group_digest(new, new_group):
            refused_groups.append(identity)
            lines.append(f"! group {identity[0]} {identity[1]} changed under the same version: publish another version")
            lines.extend(_group(group_content(old, old_group), group_content(new, new_group)))
    return PackDiff(tuple(added_groups), tuple(removed_groups), tuple(refused_groups), changed_events, tuple(lines))


def _events(before: Mapping[str, Any], after: Mapping[str, Any], lines: list[str]) -> tuple[str, ...]:
    changed_events = []
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) == after.get(name):
            continue
        changed_events.append(name)
        if name not in before:
            lines.append(f"+ event {name}")
        elif name not in after:
            lines.append(f"- event {name}")
        else:
            lines.append(f"~ event {name}")
            lines.extend(_fields("", before[name], after[name]))
    return tuple(changed_events)


def _group(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    lines = _fields("", _without_lists(before), _without_lists(after))
    for part, word in (("features", "feature"), ("on_demand", "on-demand feature")):
        old = {feature["name"]: feature for feature in before[part]}
        new = {feature["name"]: feature for feature in after[part]}
        for name in sorted(old.keys() | new.keys()):
            if name not in old:
                lines.append(f"    + {word} {name}")
            elif name not in new:
                lines.append(f"    - {word} {name}")
            else:
                lines.extend(_fields(f"{word} {name}: ", old[name], new[name]))
    return lines


def _without_lists(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in ("features", "on_demand")}


def _fields(prefix: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    old, new = _flat(before), _flat(after)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name) and (name in old) == (name in new):
            continue
        if name not in old:
            lines.append(f"    + {prefix}{name}: {_text(name, new[name])}")
        elif name not in new:
            lines.append(f"    - {prefix}{name}: {_text(name, old[name])}")
        else:
            lines.append(f"    ~ {prefix}{name}: {_text(name, old[name])} -> {_text(name, new[name])}")
    return lines


def _flat(content: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        here = f"{path}.{name}" if path else name
        flat.update(_flat(value, here) if isinstance(value, dict) else {here: value})
    return flat


def _text(name: str, value: Any) -> str:
    if name.rpartition(".")[2] in ("window", "delay") and isinstance(value, int):
        return format_duration(value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "none" if value is None else str(value)
