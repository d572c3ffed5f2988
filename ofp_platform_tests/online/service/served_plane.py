"""Commits to a plane of one transaction each, and waiting for what follows from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.oracle.strategies import PINS

AS_OF = "2024-05-01T12:00:00Z"
ENOUGH = 30.0
"""Seconds after which a test gives up; nothing waits that long when all is well."""


def commit(plane: Plane, event_id: str) -> None:
    """One more transaction, projected."""
    event = {
        "event_id": event_id,
        "event_type": "transaction",
        "schema_version": "v1",
        "ts_utc": "2024-05-01T11:00:00Z",
        **PINS,
        "payload": {"amount_minor": 100, "customer_id": "customer-1", "terminal_id": "terminal-1"},
    }
    assert not plane.log.append([event], lambda _: parse_time(AS_OF)).refusals
    live = plane.live()
    assert live is not None
    assert plane.projector(live).apply_available(max_records=100) is not None


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(ENOUGH):
        while not holds():
            await asyncio.sleep(0.01)
