"""A profile in a file and a log with simulated payments in it: what ranges, rebuilds and the assets are tried on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ofp_platform.log.port import EventLog
from ofp_platform.online.plane import Plane
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.disturbances import Disturbances
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
from ofp_platform.simulation.population import PopulationSize
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Profile, load_profile

PINS = {
    "scenario_id": "ranges",
    "run_id": "run-1",
    "manifest_fingerprint": "1" * 64,
    "parameter_hash": "2" * 64,
}
RANGE_SIZE = 40


@cache
def deliveries() -> Deliveries:
    """About 420 records over two days, with every kind of disturbance."""
    few = PopulationSize(customers=12, accounts=15, merchants=15)
    disturbances = Disturbances(duplicates=6, retries=6, future=2, wrong_type=2, missing_field=2, foreign_pins=2, conflicts=2)
    wanted = PaymentSimulation(
        pins=ContextPins.model_validate(PINS), seed=7, payments=400, days=2, size=few, disturbances=disturbances
    )
    return simulate_payments(wanted).deliveries


def write_profile(folder: Path, **changes: Any) -> Path:
    """A profile of two partitions and ranges, of a history that is over whatever date the machine has. Returns its path."""
    content: dict[str, Any] = {
        "profile_name": "ranges",
        "stream_name": "card-payments",
        "partitions": 2,
        "partition_key": "payload.account_id",
        "context_pins": PINS,
        "pack": "card_payments",
        "range_size": RANGE_SIZE,
        "batch_records": 50,
        "first_day": "2025-01-01",
        "last_day": "2026-12-31",
        "object_store_url": f"file://{folder}/objects",
        **changes,
    }
    path = folder / "profile.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(content, file)
    return path


def profile(folder: Path, **changes: Any) -> Profile:
    """The same, loaded."""
    return load_profile(write_profile(folder, **changes))


def append(log: EventLog, part: Deliveries | None = None) -> None:
    """Append deliveries (all of them) under their simulated clock."""
    part = part or deliveries()
    receipt = log.append(list(part.records()), part.clock())
    assert not receipt.refusals


def heads(plane: Plane) -> dict[str, int]:
    """Records per partition of a dense log."""
    return {name: int(part.offset) for name, part in plane.log.ends().by_partition().items()}


WITH_ANOTHER_GROUP = (
    "\n  - name: card_activity\n    version: v1\n",
    """
  - name: account_activity
    version: v2
    key_type: account
    ttl_seconds: 604800
    features:
      - {name: count_60d, aggregation: count, events: [card_payment], window: 60d}

  - name: card_activity
    version: v1
""",
)
"""A change for `pack_with`: one group more, in front of `card_activity`."""


def pack_with(folder: Path, changes: Sequence[tuple[str, str]], *, revision: int = 2) -> Path:
    """The shipped pack as a file of its own, with texts replaced."""
    from ofp_platform.registry.pack import shipped_pack_text

    text = shipped_pack_text("card_payments").replace("revision: 1", f"revision: {revision}")
    for old, new in changes:
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    path = folder / f"pack-{revision}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def identity_link(number: int) -> str:
    """The line of a link of device d-NUMBER to d-0."""
    payload = {"key_type": "device", "member": f"d-{number}", "canonical": "d-0", "effective_time_utc": "2026-01-01T00:00:00Z"}
    head = {"event_id": f"l-{number}", "event_type": "identity_link", "schema_version": "1", "ts_utc": "2026-01-01T00:00:00Z"}
    return json.dumps({**head, **PINS, "payload": payload}) + "\n"
