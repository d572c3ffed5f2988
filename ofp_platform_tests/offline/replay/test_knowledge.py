"""Bases as numbers: bounds and watermarks against the oracle on dense and sparse logs, chains, and the sorted index."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofp_platform.offline.replay.event_index import EventIndex
from ofp_platform.offline.replay.event_names import EventNames
from ofp_platform.offline.replay.knowledge import NEVER_KNOWN, Knowledge, chains_of, known_from
from ofp_platform.offline.replay.known_events import FoldedReplay, fold_replay
from ofp_platform.registry.pack import pack_content
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan, ReplayBasis
from ofp_platform.vocabulary.position import Basis, OffsetKind, make_basis
from ofp_platform_tests.oracle import fold
from ofp_platform_tests.oracle.replayed import basis_of, part_basis, record_batches, sparse, world_registry
from ofp_platform_tests.oracle.strategies import ACCOUNTS, PINS, SKEW, worlds

CONTENT = pack_content(world_registry().pack)
EVER = np.array([-(2**62)]), np.array([2**62])


ACCOUNT_GROUPS = {(group["name"], group["version"]) for group in CONTENT["groups"] if group["key_type"] == "account"}


@settings(max_examples=40)
@given(worlds(max_events=25), st.booleans(), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=5))
def test_a_basis_knows_what_the_oracle_says(world: Any, dense: bool, cuts: list[tuple[int, int]]) -> None:
    registry, whole = world_registry(), dict(world.basis)
    with tempfile.TemporaryDirectory() as folder:
        folded = fold_replay(
            record_batches(world.records, dense=dense), registry, ContextPins(**PINS), SKEW, Path(folder) / "fold", shards=2
        )
        if not whole:
            return
        knowledge = Knowledge(folded, ReplayBasis.up_to(basis_of(whole, dense=dense)))
        ends = [{name: min(cut, whole[name]) for name, cut in zip(sorted(whole), pair, strict=False)} for pair in cuts]
        bases = [basis_of(one, dense=dense) for one in ends]
        assert [knowledge.lacks(basis) for basis in bases] == [None] * len(bases)
        bounds = knowledge.bounds(bases)
        known = [fold.known_events(world.records, one, PINS, CONTENT, SKEW) for one in ends]
        assert knowledge.watermarks(bounds) == [one.watermark for one in known]
        chains = chains_of(bounds)
        index, names = EventIndex(folded, registry), EventNames(folded)
        for account in ACCOUNTS:
            events = index.events("account", [account], *EVER)
            for number, wanted in enumerate(known):
                oracles = sorted(
                    (identity[1], event.ts)
                    for identity, event in wanted.events.items()
                    if (event.groups if "amendments" in CONTENT["events"][event.event_type] else event.groups & ACCOUNT_GROUPS)
                    and fold._touches(event, CONTENT, "account", account)
                )
                oracles += [
                    (identity[1], one.ts)
                    for identity, one in wanted.amendments.items()
                    if fold.amends_key(one, CONTENT, "account", account)
                ]
                mask = events.is_known(bounds[number])
                refs = names.refs(events, np.flatnonzero(mask))
                assert sorted((one.event_id, fold.micros(one.event_time_utc)) for one in refs) == sorted(oracles)
                ranks = known_from(chains.chains[chains.chain[number]], events.matrix.shape[1], events.copies)
                assert (ranks <= chains.rank[number]).tolist() == mask.tolist()
                offsets = {one.offset for one in refs}
                stated = {record.offset if dense else sparse(record.offset) for record in world.records}
                assert offsets <= stated


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_along_a_chain_every_basis_holds_the_one_before(pairs: list[tuple[int, int]]) -> None:
    bounds = np.array(pairs, np.int64)
    chains = chains_of(bounds)
    for number, own in enumerate(bounds):
        assert (chains.chains[chains.chain[number]][chains.rank[number]] == own).all()
    for chain in chains.chains:
        assert (np.diff(chain, axis=0) >= 0).all()


def dense(**ends: int) -> Basis:
    return make_basis("s", {name: part_basis(name, end) for name, end in ends.items()})


def knowledge(starts: dict[str, int], **ends: int) -> Knowledge:
    spans = tuple(
        PartitionSpan(partition_id=name, offset_kind=OffsetKind.EXCLUSIVE_NEXT, start=starts.get(name, 0), next=end)
        for name, end in sorted(ends.items())
    )
    parts = tuple(part_basis(name, end) for name, end in sorted(ends.items()))
    folded = FoldedReplay(Path(), "", 1, tuple(sorted(ends)), parts, 0, 0, 0, 0, 0, {}, {}, {}, (), None, None, 0)
    return Knowledge(folded, ReplayBasis(stream_name="s", partitions=spans))


@pytest.mark.parametrize("basis", [dense(a=5, b=3), dense(a=4), dense(a=0, b=0), dense(b=1), dense(), dense(a=1, z=0)])
def test_a_replay_from_the_first_record_on_holds_what_it_reaches(basis: Basis) -> None:
    assert knowledge({}, a=5, b=3).lacks(basis) is None


@pytest.mark.parametrize(
    ("basis", "words"),
    [
        (dense(a=6, b=3), "the basis knows partition a up to 6; the replay ends at 5"),
        (dense(a=5, b=4), "the basis knows partition b up to 4; the replay ends at 3"),
        (dense(a=1, c=1), "the basis knows partition c up to 1; the replay ends at its start"),
        (dense(z=1), "the basis knows partition z up to 1; the replay does not have it"),
    ],
)
def test_what_a_replay_lacks_is_said_of_the_first_partition(basis: Basis, words: str) -> None:
    assert knowledge({}, a=5, b=3, c=0).lacks(basis) == words


def test_a_replay_that_begins_later_or_is_of_another_stream_lacks_everything() -> None:
    late = knowledge({"b": 1}, a=5, b=3).lacks(dense(a=1))
    assert late == "the replay of partition b begins behind its first record; what came before is not in it"
    other = knowledge({}, a=5).lacks(dense(a=1).model_copy(update={"stream_name": "t"}))
    assert other == "the basis is of stream t, the replay of s"


def test_bounds_are_told_by_basis_and_partition() -> None:
    found = knowledge({}, a=5, b=3).bounds([dense(a=4, b=2), dense(b=1), dense()])
    assert (found.tolist(), found.dtype) == ([[4, 2], [0, 1], [0, 0]], np.int64)
    assert knowledge({}, a=5).bounds([]).shape == (0, 1)


def test_chains_are_filled_in_order() -> None:
    found = chains_of(np.array([[2, 2], [0, 3], [1, 1], [2, 2], [0, 0]], np.int64))
    assert [chain.tolist() for chain in found.chains] == [[[0, 0], [1, 1], [2, 2]], [[0, 3]]]
    assert found.chain.tolist() == [0, 1, 0, 0, 0]
    assert found.rank.tolist() == [2, 0, 1, 2, 0]


def test_the_first_basis_of_a_chain_that_holds_any_copy_counts() -> None:
    assert NEVER_KNOWN == 4_611_686_018_427_387_904
    chain = np.array([[0, 0], [2, 0], [2, 5], [9, 9]], np.int64)
    copies = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 8], [1, 1, 4], [2, 0, 2], [3, 1, 9]], np.int64)
    assert known_from(chain, 5, copies).tolist() == [1, 2, 3, NEVER_KNOWN, NEVER_KNOWN]


def test_an_event_behind_every_basis_of_a_chain_is_never_known() -> None:
    copies = np.array([[0, 0, 2], [1, 0, 5], [1, 1, 0]], np.int64)
    assert known_from(np.array([[1, 0], [3, 0]]), 2, copies).tolist() == [1, NEVER_KNOWN]
    assert known_from(np.array([[1, 0], [3, 1]]), 2, copies).tolist() == [1, 1]


def test_a_span_of_time_is_open_on_the_left_and_closed_on_the_right(tmp_path: Path) -> None:
    records = [
        fold.Record(
            "p0",
            offset,
            fold.micros("2026-01-02T00:00:00Z"),
            {
                "event_id": f"e-{offset}",
                "event_type": "refund",
                "schema_version": "1",
                "ts_utc": f"2026-01-01T00:00:0{offset}Z",
                **PINS,
                "payload": {"account_id": f"a-{offset % 2}", "amount": 1, "shop": "x"},
            },
        )
        for offset in range(6)
    ]
    folded = fold_replay(record_batches(records), world_registry(), ContextPins(**PINS), SKEW, tmp_path / "fold", shards=5)
    index = EventIndex(folded, world_registry())
    start = fold.micros("2026-01-01T00:00:00Z")
    after, until = np.array([start, start - 1, start]), np.array([start + 4_000_000, start + 5_000_000, start + 9_000_000])
    found = index.events("account", ["a-0", "a-1", "a-never"], after, until)
    sizes = (found.ends - found.starts).tolist()
    assert sizes == [2, 3, 0]
    assert sorted(found.copies[:, 0].tolist()) == list(range(5))
    again = EventIndex(folded, world_registry())
    again.prepare(["account"], 2)
    assert again.events("account", ["a-0", "a-1", "a-never"], after, until).matrix.tolist() == found.matrix.tolist()
