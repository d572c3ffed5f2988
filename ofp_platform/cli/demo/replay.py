"""The demo's two long steps: append what is not in the log yet, project what is not projected yet."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ofp_platform.cli.demo.source import Source
from ofp_platform.cli.refusals import CommandRefused
from ofp_platform.log.port import EventLog, LogUnavailable
from ofp_platform.online.projector import Projector
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.vocabulary.position import Basis, PartitionBasis, make_basis, order

Advance = Callable[[int], None]
Identity = tuple[str, str, int]
_PAGE = 10_000


@dataclass(frozen=True)
class Appended:
    """What an append step did: records appended now, records that were there, seconds, and the ends of the log after it."""

    appended: int
    found: int
    seconds: float
    ends: Basis


@dataclass
class Projected:
    """What a projection step did, in records; `failures` by reason."""

    records: int = 0
    applied: int = 0
    duplicates: int = 0
    late: int = 0
    anomalies: int = 0
    commits: int = 0
    seconds: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)


def append_missing(log: EventLog, source: Source, receipt_file: Path, advance: Advance) -> Appended:
    """Append the deliveries that the log does not hold. `receipt_file` remembers a replay that was appended whole.

    Ids and admission times of a replay are deterministic, so a delivery is recognised by them; that is looked at only
    after a replay that was cut off.

    Raises:
        CommandRefused: the log refused a record of the replay.
    """
    started = time.monotonic()
    ends = log.ends()
    if _was_appended(receipt_file, source, ends):
        advance(source.records)
        return Appended(0, source.records, time.monotonic() - started, ends)
    held = Counter(_identities(log, ends)) if any(order(part.offset) > 0 for part in ends.partitions) else Counter()
    found = appended = 0
    for batch in source.batches():
        missing = _missing(batch, held)
        found += len(batch) - len(missing)
        if missing:
            records, clock = list(batch.records()), batch.clock()
            times = dict(zip(map(id, records), batch.admitted_at.tolist(), strict=True))
            del times
            if len(missing) == len(batch):
                receipt = log.append(records, clock)
            else:
                receipt = log.append([records[index] for index in missing], _part(batch, missing).clock())
            if receipt.refusals:
                first = receipt.refusals[0]
                raise CommandRefused(f"the log refused {len(receipt.refusals)} records: {first.reason}: {first.message}")
            appended += receipt.appended
        advance(len(batch))
    ends = log.ends()
    receipt_file.parent.mkdir(parents=True, exist_ok=True)
    content = {"records": source.records, "run": source.profile.context_pins.wire(), "ends": ends.model_dump(mode="json")}
    receipt_file.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return Appended(appended, found, time.monotonic() - started, ends)
