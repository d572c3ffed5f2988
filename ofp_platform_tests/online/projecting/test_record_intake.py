"""What a commit takes in, without a store: each record has the fate that the oracle gives it, whatever is lost and told again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.log.port import RecordBatch, RefusalReason, UnreadableRecord
from ofp_platform.online.projecting.record_intake import LOWEST, FoldedBatch, RecordIntake
from ofp_platform.online.state.projection import ProjectionConflict, ProjectionRow
from ofp_platform.registry.pack import pack_content
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import DENSE, SEQUENCE_TOKENS, Basis, make_basis
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.fold import Record
from ofp_platform_tests.oracle.replayed import STREAM, record_batches, world_registry
from ofp_platform_tests.oracle.small_plane import payment
from ofp_platform_tests.oracle.strategies import PINS, SECOND, SKEW, START, World, worlds

RUN = ContextPins(**PINS)
RETAINED = 40 * 86_400 * SECOND


class Kept:
    """What a store would keep of the commits, and a projection's row as it would stand there."""

    def __init__(self, dense: bool) -> None:
        self.intake = RecordIntake(world_registry(), SKEW, RETAINED, DENSE if dense else SEQUENCE_TOKENS)
        self.identities = self.intake.known.recent.entries.copy()
        self.counts: Counter[str] = Counter()
        self.anomalies = 0
        self.basis: Basis = make_basis(STREAM, {})
        self.watermark: int | None = None
        self.partitions: list[str] = []
        self.touched: list[tuple[str, str, int]] = []

    def row(self) -> ProjectionRow:
        return ProjectionRow(
            projection_id=1,
            stream_name=STREAM,
            pins=RUN,
            registry_digest=world_registry().digest,
            run_config_digest="0" * 64,
            status="live",
            version=0,
            basis=self.basis,
            watermark=self.watermark,
            pruned_to=None,
        )

    def commit(self, batch: RecordBatch, *, lost: bool) -> None:
        """Take a batch in; a lost commit leaves nothing behind, and is taken in again."""
        work = FoldedBatch()
        self.intake.fold(self.row(), self.intake.route(RUN, batch), work)
        if lost:
            self.intake.forget()
            self.intake.remember(set(), [*self.partitions])
            self.intake.known.recent.load(self.identities)
            self.commit(batch, lost=False)
            return
        self.identities = self.intake.known.recent.entries.copy()
        for counts in work.counts.values():
            self.counts.update(counts)
        self.anomalies += len(work.anomalies)
        for key_type, parts in work.touched.items():
            for key_ids, matrix in parts:
                self.touched += [(key_type, *one) for one in zip(key_ids, matrix[0].tolist(), strict=True)]
        self.basis = make_basis(STREAM, {**self.basis.by_partition(), batch.partition_id: batch.next})
        if work.watermark != LOWEST:
            self.watermark = max(work.watermark, self.watermark or work.watermark)
        self.partitions = list(self.intake.partition_numbers)


def touched_by(known: fold.Known) -> Iterator[tuple[str, str, int]]:
    """Key type, key and time of each event under the key types of the groups that it feeds; of what may be amended under all."""
    content = pack_content(world_registry().pack)
    users: dict[str, set[str]] = {}
    for group in content["groups"]:
        for name in content["events"]:
            if fold._uses(group, name):
                users.setdefault(name, set()).add(group["key_type"])

    def keys(event_type: str, payload: Mapping[str, Any], key_types: Iterable[str], ts: int) -> Iterator[tuple[str, str, int]]:
        for key_type in key_types:
            if fold._has_key(payload, content, key_type, event_type):
                yield key_type, payload[content["events"][event_type]["keys"][key_type]], ts

    for event in known.events.values():
        fed = {world_registry().groups[ref].key_type for ref in event.groups}
        is_amendable = "amendments" in content["events"][event.event_type] and fed
        yield from keys(event.event_type, event.payload, users[event.event_type] if is_amendable else fed, event.ts)
    for one in known.amendments.values():
        yield from keys(one.event_type, one.payload, users[one.event_type], one.target_ts)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(worlds(), st.sampled_from((1, 4, 100)), st.booleans(), st.randoms(use_true_random=False))
def test_each_record_has_the_fate_that_the_oracle_gives_it(world: World, size: int, dense: bool, chance: Random) -> None:
    kept = Kept(dense)
    for batch in record_batches(world.records, size, dense=dense):
        kept.commit(batch, lost=chance.random() < 0.3)
    known = fold.known_events(world.records, world.basis, PINS, pack_content(world_registry().pack), SKEW)
    foreign = sum(record.envelope["run_id"] != PINS["run_id"] for record in world.records)
    assert kept.counts["records"] == len(world.records)
    assert kept.counts["applied"] == known.applied
    assert kept.counts["duplicates"] == known.duplicates
    assert kept.counts["ignored"] == known.unknown
    assert kept.counts["failed"] == len(known.failures) + foreign  # no projection of the other run is active here
    assert kept.counts["partial"] == len(known.group_failures)
    assert kept.anomalies == known.anomalies
    assert sorted(kept.touched) == sorted(touched_by(known))
    assert kept.watermark == known.watermark
    assert len(np.unique(kept.identities[:, :4], axis=0)) == len(kept.identities) == known.applied


@given(worlds(), st.booleans())
def test_records_that_were_taken_in_are_refused(world: World, dense: bool) -> None:
    kept = Kept(dense)
    for batch in record_batches(world.records, 3, dense=dense):
        kept.commit(batch, lost=False)
        with pytest.raises(ProjectionConflict, match="do not continue"):
            kept.intake.fold(kept.row(), kept.intake.route(RUN, batch), FoldedBatch())


def payments(*seconds: int, admitted_at: int = START + 1_000 * SECOND) -> RecordBatch:
    """Payments at START and so many seconds, in one partition."""
    records = [
        Record("p0", offset, admitted_at, payment(f"e-{offset}", second * SECOND)) for offset, second in enumerate(seconds)
    ]
    return record_batches(records, len(records))[0]


def taken(batch: RecordBatch, watermark: int | None = None) -> FoldedBatch:
    kept, work = Kept(dense=True), FoldedBatch()
    kept.watermark = watermark
    kept.intake.fold(kept.row(), kept.intake.route(RUN, batch), work)
    return work


def test_late_is_what_stands_at_or_behind_the_horizon() -> None:
    batch = payments(9, 10, 11, 500)
    assert taken(batch, START + 10 * SECOND + RETAINED).counts["p0"]["late"] == 2
    assert taken(batch, START + 10 * SECOND + RETAINED - 1).counts["p0"]["late"] == 1
    assert taken(batch).counts["p0"]["late"] == 0


def test_records_that_cannot_be_read_are_counted_and_told() -> None:
    batch = replace(payments(1, 2, 3), unreadable=(UnreadableRecord(3, RefusalReason.NOT_I_JSON, "no JSON"),))
    work = taken(batch)
    assert work.counts["p0"] == {"records": 4, "failed": 1, "ignored": 0, "applied": 3, "duplicates": 0}
    assert work.failures == [("p0", "3", "", "", 0, "MALFORMED_PAYLOAD", "NOT_I_JSON: no JSON", "", False)]


def test_an_event_from_the_future_is_told_with_how_far_it_is_ahead() -> None:
    work = taken(payments(1, 1_000_001, admitted_at=START + SECOND))
    assert [failure[5] for failure in work.failures] == ["FUTURE_EVENT"]
    assert work.failures[0][6] == f"event time is 1000000 s past its admission; allowed {SKEW // SECOND} s"
