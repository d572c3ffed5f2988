"""Payments one after the other, for as long as somebody looks: simulated card payments, stamped with given times."""

from __future__ import annotations

from typing import Any

from ofp_platform.simulation.disturbances import Disturbances
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.times import format_time

_BLOCK = 10_000


class Trickle:
    """An endless sequence of payments of one run. Ids begin with `name`: two trickles of one run need two names."""

    def __init__(self, pins: ContextPins, name: str) -> None:
        self._pins = pins
        self._name = name
        self._block = 0
        self._count = 0
        self._waiting: list[dict[str, Any]] = []

    def next(self, ts: int) -> dict[str, Any]:
        """The next payment as an envelope, at that event time (microseconds)."""
        if not self._waiting:
            self._waiting = self._next_block()
        record = self._waiting.pop()
        self._count += 1
        return {**record, "event_id": f"{self._name}-{self._count:07d}", "ts_utc": format_time(ts)}

    def _next_block(self) -> list[dict[str, Any]]:
        """One more block of payments, the first of them at the end."""
        simulation = PaymentSimulation(
            pins=self._pins, seed=self._block, payments=_BLOCK, days=1, disturbances=Disturbances.none()
        )
        self._block += 1
        records = list(simulate_payments(simulation).deliveries.records())
        for record in records:
            record.pop("emitted_at_utc", None)  # it belongs to the time that is replaced
        return records[::-1]
