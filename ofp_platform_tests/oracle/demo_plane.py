"""The plane that `make demo` leaves behind, with all records of one account, all fraud reports, and hardly anything else.

What is asked about that account has the same answer as there, at a small part of the cost.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from rich.console import Console

from ofp_platform.cli.demo.command import DEFAULT_PAYMENTS
from ofp_platform.cli.demo.ring_steps import RingSteps
from ofp_platform.cli.environment import Environment
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
from ofp_platform.vocabulary.identity import ContextPins

ACCOUNT = "account-0001340"
"""The account of the newest payment."""
_OTHERS = 50
AFTER_THE_DEMO = "2026-02-05T00:00:00Z"


def fill_demo_plane(home: Path, dsn: str) -> int:
    """Append all records of ACCOUNT to the demo's own stream and project them. How many there are."""
    home.mkdir(parents=True, exist_ok=True)
    with Environment(home=home, database_url=dsn, profile="demo").open_plane("owner", create_stream=True) as plane:
        records = _records_of_account(plane.profile.context_pins)
        receipt = plane.log.append(list(records.records()), records.clock())
        assert not receipt.refusals
        projector = plane.projector(plane.ensure_live())
        while projector.apply_available(max_records=plane.profile.batch_records) is not None:
            pass
    return receipt.appended


def fill_rings(home: Path, dsn: str) -> None:
    """Append and fold the transfers and links of the demo's ring, all of them."""
    environment = Environment(home=home, database_url=dsn, profile="rings")
    RingSteps(environment, environment.load_profile(), dsn, Console(quiet=True)).run()


@cache
def _records_of_account(pins: ContextPins) -> Deliveries:
    deliveries = simulate_payments(PaymentSimulation(pins, payments=DEFAULT_PAYMENTS)).deliveries
    # some of the others', so that no partition is empty
    places = [
        place
        for place, payload in enumerate(deliveries.payloads)
        if place < _OTHERS or ACCOUNT.encode() in payload or deliveries.event_types[place] == "fraud_report"
    ]
    return replace(
        deliveries,
        pins_index=deliveries.pins_index[places],
        event_ids=[deliveries.event_ids[place] for place in places],
        event_types=[deliveries.event_types[place] for place in places],
        ts=deliveries.ts[places],
        emitted_at=deliveries.emitted_at[places],
        admitted_at=deliveries.admitted_at[places],
        payloads=[deliveries.payloads[place] for place in places],
    )
