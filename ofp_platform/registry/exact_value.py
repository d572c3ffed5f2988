"""A value as the arithmetic has it, before it is written for the wire."""

from __future__ import annotations

ExactValue = int | tuple[int, int] | None
"""An integer, a decimal as (unscaled, scale), or null."""
