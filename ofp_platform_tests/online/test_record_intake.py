"""What a commit takes in, without a store: each record has the fate that the oracle gives it, whatever is lost and told again."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.log.port import RecordBatch
from ofp_platform.online.projection import ProjectionConflict, ProjectionRow
from ofp_platform.online.record_intake import FoldedBatch, RecordIntake
from ofp_platform.registry.pack import pack_content
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, make_basis
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.replayed import STREAM, record_batches, world_registry
from ofp_platform_tests.oracle.strategies import PINS, SECOND, SKEW, World, worlds

RUN = ContextPins(**PINS)
RETAINED = 40 * 86_400 * SECOND


class Kept:
    """What a store would keep of the commits, and a projection's row as it would stand there."""

    def __init__(self, dense: bool) -> None:
        self.intake = RecordIntake(world_registry(), SKEW, RETAINED, dense=dense)
        self.identities: list[bytes] = []
        self.counts: Counter[str] = Counter()
        self.anomalies = 0
        self.basis: Basis = make_basis(STREAM, {})
        self.watermark: int | None = None
        self.partitions: list[str] = []

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
            self.intake.remember(self.identities, set(), [*self.partitions])
            self.commit(batch, lost=False)
            return
        self.identities += [words.tobytes() for words in work.identities if len(words)]
        for counts in work.counts.values():
            self.counts.update(counts)
        self.anomalies += len(work.anomalies)
        self.basis = make_basis(STREAM, {**self.basis.by_partition(), batch.partition_id: batch.next})
        if work.counts[batch.partition_id]["applied"]:
            self.watermark = max(work.max_ts, self.watermark or work.max_ts)
        self.partitions = list(self.intake.partition_numbers)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(worlds(), st.sampled_from((1, 4, 100)), st.booleans(), st.randoms(use_true_random=False))
def test_each_record_has_the_fate_that_the_oracle_gives_it(world: World, size: int, dense: bool, chance: Random) -> None:
    kept = Kept(dense)
    for batch in record_batches(world.records, size, dense=dense):
        kept.commit(batch, lost=chance.random() < 0.3)
    known = fold.known_events(world.records, world.basis, PINS, pack_content(world_registry().pack), SKEW)
    foreign = sum(record.envelope["run_id"] != PINS["run_id"] for record in world.records)
    assert kept.counts["records"] == len(world.records)
    assert kept.counts["applied"] == len(known.events)
    assert kept.counts["duplicates"] == known.duplicates
    assert kept.counts["ignored"] == known.unknown
    assert kept.counts["failed"] == len(known.failures) + foreign  # no projection of the other run is active here
    assert kept.anomalies == known.anomalies
    assert kept.watermark == known.watermark
    words = np.frombuffer(b"".join(kept.identities), np.uint64).reshape(-1, kept.intake.words)
    assert len(np.unique(words[:, :4], axis=0)) == len(words) == len(known.events)


@given(worlds(), st.booleans())
def test_records_that_were_taken_in_are_refused(world: World, dense: bool) -> None:
    kept = Kept(dense)
    for batch in record_batches(world.records, 3, dense=dense):
        kept.commit(batch, lost=False)
        with pytest.raises(ProjectionConflict, match="do not continue"):
            kept.intake.fold(kept.row(), kept.intake.route(RUN, batch), FoldedBatch())
