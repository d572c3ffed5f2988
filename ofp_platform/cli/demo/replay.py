"""The demo's two long steps: append what is not in the log yet, project what is not projected yet."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ofp_platform.cli.demo.demo_events import Replay
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.log.port import EventLog
from ofp_platform.online.projecting.apply_until import apply_until
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.vocabulary.position import Basis, place

Advance = Callable[[int], None]
Identity = tuple[str, str, int]
_PAGE = 10_000


@dataclass(frozen=True)
class Appended:
    """Outcome of an append step: records appended now, records that were there before, seconds; where the replay ends."""

    appended_count: int
    existing_count: int
    seconds: float
    ends: Basis


@dataclass(frozen=True)
class Projected:
    """Outcome of a projection step: records read and applied, commits, seconds."""

    records: int
    applied: int
    commits: int
    seconds: float


def append_missing(log: EventLog, replay: Replay, receipt_file: Path, advance: Advance) -> Appended:
    """Append the deliveries that the log does not hold. `receipt_file` remembers a replay that was appended whole.

    Ids and admission times of a replay are deterministic, so a delivery is recognised by them; the log is searched for
    them only when a replay was cut off.

    Raises:
        CommandRefused: the log refused a record of the replay.
    """
    start = time.monotonic()
    ends = log.ends()
    before = recorded_ends(receipt_file, replay, ends)
    if before is not None:
        advance(replay.records)
        return Appended(0, replay.records, time.monotonic() - start, before)
    stored_identities: Counter[Identity] = Counter(_identities(log, ends))
    appended_count = 0
    for batch in replay.batches():
        missing = _missing(batch, stored_identities) if stored_identities else batch
        if len(missing):
            receipt = log.append_columns(missing.columns(), missing.admitted_at)
            if receipt.refusals:
                first = receipt.refusals[0]
                raise CommandRefused(f"the log refused {len(receipt.refusals)} records: {first.reason}: {first.message}")
            appended_count += receipt.appended
        advance(len(batch))
    ends = record_ends(receipt_file, replay, log.ends())
    return Appended(appended_count, replay.records - appended_count, time.monotonic() - start, ends)


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


def _identities(log: EventLog, ends: Basis) -> Iterator[Identity]:
    for end in ends.partitions:
        at = None
        while True:
            batch = log.read(end.partition_id, at, _PAGE)
            yield from zip(batch.event_types, batch.event_ids, batch.admitted_at.tolist(), strict=True)
            if batch.next == at:  # a batch without envelopes may still move on
                break
            at = batch.next


def _missing(batch: Deliveries, stored_identities: Counter[Identity]) -> Deliveries:
    """The deliveries that are not held; those that are leave `held`."""
    places = []
    for index, identity in enumerate(zip(batch.event_types, batch.event_ids, batch.admitted_at.tolist(), strict=True)):
        if stored_identities[identity]:
            stored_identities[identity] -= 1
        else:
            places.append(index)
    return replace(
        batch,
        pins_index=batch.pins_index[places],
        event_ids=[batch.event_ids[index] for index in places],
        event_types=[batch.event_types[index] for index in places],
        ts=batch.ts[places],
        emitted_at=batch.emitted_at[places],
        admitted_at=batch.admitted_at[places],
        payloads=[batch.payloads[index] for index in places],
    )


def project_available(projector: Projector, batch_records: int, advance: Advance, until: Basis | None = None) -> Projected:
    """Apply all that the log holds behind the projection's basis, up to `until` if given."""
    start = time.monotonic()
    commits = apply_until(projector, until, batch_records, lambda receipt: advance(receipt.records))
    records, applied = sum(receipt.records for receipt in commits), sum(receipt.applied for receipt in commits)
    return Projected(records, applied, len(commits), time.monotonic() - start)
