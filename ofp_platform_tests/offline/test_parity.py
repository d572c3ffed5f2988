"""Parity of what a small plane served: MATCH at every basis, and named evidence for every planted damage."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.known_events import FoldedReplay
from ofp_platform.offline.parity import ParityRuns
from ofp_platform.offline.parity_anchor import ParityAnchor
from ofp_platform.offline.rebuilding import ReplayedRun
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import load_pack
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of
from ofp_platform.vocabulary.envelope import ijson_bytes
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.offline.parity_record import ParityOutcome, ParityRecord, UncheckableReason
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform_tests.oracle.fold import Record
from ofp_platform_tests.oracle.rebuilt import (
    decision_anchor,
    decision_of,
    kept,
    parity,
    replayed,
    runs_of,
    snapshot_anchor,
    without,
)
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import ACCOUNTS, LATENESS, MERCHANTS, PACK, SECOND, START, worlds

STREAMS = (f"parity-{number}" for number in itertools.count())
KEYS = [*(("account", one) for one in (*ACCOUNTS, "a-never")), *(("merchant", one) for one in MERCHANTS)]
GROUPS = [("every", "v1"), ("ratios", "v2"), ("shop", "v1")]
MATCH, MISMATCH, UNCHECKABLE = ParityOutcome


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


def ask(plane: SmallPlane, as_of: int, keys: list[tuple[str, str]] = KEYS, groups: list[tuple[str, str]] = GROUPS) -> Answer | None:
    try:
        return plane.reader.answer(plane.request(keys, groups, as_of, {"amount": 5}))
    except ContractError:
        return None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    worlds(max_events=30, partitions=("0000", "0001")),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 35), st.sampled_from((-1, 0, 1))), min_size=1, max_size=4),
    st.sampled_from((0, LATENESS)),
    st.sampled_from((1, 3, 256)),
)
def test_everything_that_was_served_at_any_basis_is_rebuilt(
    pool: Pool, world: Any, sizes: list[int], moments: list[tuple[int, int]], lateness: int, chunk_events: int
) -> None:
    plane = SmallPlane(pool, next(STREAMS), allowed_lateness=lateness, chunk_events=chunk_events)
    plane.load(world.records)
    projector, batches = plane.projector(), itertools.cycle(sizes)
    answers: list[Answer] = []
    while True:
        for second, side in moments:
            answers += [answer for answer in [ask(plane, START + second * SECOND + side)] if answer is not None]
        if projector.apply_available(max_records=next(batches)) is None:
            break
    with tempfile.TemporaryDirectory() as folder:
        runs = runs_of(plane, replayed(plane, Path(folder) / "fold"))
        anchors = [snapshot_anchor(answer) for answer in answers]
        anchors += [decision_anchor(decision_of(answer, plane)) for answer in answers]
        for record in parity(anchors, runs):
            assert record.outcome is MATCH, record
