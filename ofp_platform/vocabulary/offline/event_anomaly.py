"""An event id with several contents, as a replay tells it and the store records it."""

from __future__ import annotations

from dataclasses import dataclass

Position = tuple[str, str]
"""(partition id, offset)"""


@dataclass(frozen=True)
class EventAnomaly:
    """One id of an event class with several contents: per content, where each of its records stands."""

    event_type: str
    event_id: str
    contents: tuple[tuple[Position, ...], ...]

    @property
    def positions(self) -> tuple[Position, ...]:
        """Of all records, content by content."""
        return tuple(position for content in self.contents for position in content)
