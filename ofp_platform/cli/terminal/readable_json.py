"""JSON as a person reads it at a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

_WIDTH = 118


def readable_response(body: bytes) -> str:
    """The answer of get_features. The wire has its names in canonical order; here the values come first."""
    response = json.loads(body)
    return readable_json({name: response[name] for name in ("kind", "contract_version", "snapshot", "provenance")})


def readable_json(value: Any, indent: int = 0, used_width: int = 0) -> str:
    """JSON with as much on a line as fits, so that a whole response fits on a screen or two.

    `indent` is that of the line, `taken` what stands on it already.
    """
    flat = json.dumps(value)
    if indent + used_width + len(flat) < _WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        names = {name: f"{json.dumps(name)}: " for name in value}
        parts = [f"{inner}{names[name]}{readable_json(item, indent + 2, len(names[name]))}" for name, item in value.items()]
    else:
        parts = [f"{inner}{readable_json(item, indent + 2)}" for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(_filled(parts)) + "\n" + " " * indent + closing


def _filled(parts: Sequence[str]) -> list[str]:
    """Neighbours that need no more than a line together, on one line."""
    lines: list[str] = []
    for part in parts:
        beside = f"{lines[-1]}, {part.lstrip()}" if lines else part
        if lines and "\n" not in beside and len(beside) < _WIDTH:
            lines[-1] = beside
        else:
            lines.append(part)
    return lines
