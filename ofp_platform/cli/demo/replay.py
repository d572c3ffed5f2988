"""The demo's long steps, gone on with where they were cut off: where a replay ends in the log, and what is to be projected."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ofp_platform.cli.demo.demo_events import Replay
from ofp_platform.online.projecting.apply_until import apply_until
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.vocabulary.position import Basis, place

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Projected:
    """Outcome of a projection step: records read and applied, commits, seconds."""

    records: int
    applied: int
    commits: int
    seconds: float


def record_ends(receipt_file: Path, replay: Replay, ends: Basis) -> Basis:
    """Remember where a replay ends that is in the log whole."""
    receipt_file.parent.mkdir(parents=True, exist_ok=True)
    receipt_file.write_text(json.dumps(_receipt(replay, ends), indent=2), encoding="utf-8")
    return ends


def _receipt(replay: Replay, ends: Basis) -> dict[str, object]:
    return {
        "context_pins": replay.profile.context_pins.wire(),
        "records": replay.records,
        "ends": ends.model_dump(mode="json"),
    }


def recorded_ends(receipt_file: Path, replay: Replay, ends: Basis) -> Basis | None:
    """Where the replay ends, if it was appended whole before, and the log still reaches as far as it did then."""
    try:
        content = json.loads(receipt_file.read_text(encoding="utf-8"))
        known_ends = Basis.model_validate(content.pop("ends"))
    except (OSError, ValueError, KeyError):
        return None
    expected_receipt = _receipt(replay, known_ends)
    del expected_receipt["ends"]
    now = ends.by_partition()
    is_reached = all(name in now and place(now[name]) >= place(part) for name, part in known_ends.by_partition().items())
    return known_ends if content == expected_receipt and is_reached else None


def project_available(projector: Projector, batch_records: int, advance: Advance, until: Basis | None = None) -> Projected:
    """Apply all that the log holds behind the projection's basis, up to `until` if given."""
    start = time.monotonic()
    commits = apply_until(projector, until, batch_records, lambda receipt: advance(receipt.records))
    records, applied = sum(receipt.records for receipt in commits), sum(receipt.applied for receipt in commits)
    return Projected(records, applied, len(commits), time.monotonic() - start)
