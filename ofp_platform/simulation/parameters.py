"""The parameters of a simulation, in a form that has one digest."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any


def parameters_of(simulation: Any) -> dict[str, Any]:
    """All fields of a simulation (a data class) but its pins; numbers with fractions as texts, which have one canonical form."""

    def exact(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: exact(item) for name, item in value.items()}
        return repr(value) if isinstance(value, float) else value

    return {name: exact(value) for name, value in asdict(simulation).items() if name != "pins"}
