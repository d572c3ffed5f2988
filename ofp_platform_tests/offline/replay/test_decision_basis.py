"""Decisions in chains of bases, and which of them the replay cannot rebuild."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from ofp_platform.offline.replay.decision_basis import DecisionBases, DecisionRow, RecordedDecision, decision_bases
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.position import Basis, basis_text, make_basis
from ofp_platform_tests.oracle.replayed import part_basis


def folded(**ends: int) -> FoldedReplay:
    """A replay of dense partitions that ends at these offsets."""
    parts = tuple(part_basis(name, end) for name, end in sorted(ends.items()))
    return FoldedReplay(Path(), "", 1, tuple(sorted(ends)), parts, 0, 0, 0, 0, 0, {}, {}, {}, (), None, None, 0)


def known(**ends: int) -> Basis:
    return make_basis("s", {name: part_basis(name, end) for name, end in ends.items()})


def decision(number: int, basis: Basis, event: str = "e", kind: str = "payment") -> RecordedDecision:
    return RecordedDecision(f"d{number}", kind, event, 100 + number, basis)


def row(number: int, basis: Basis, chain: int, rank: int) -> DecisionRow:
    return DecisionRow(f"d{number}", 100 + number, sha256_hex(basis_text(basis).encode()), chain, rank)


def told(rows: list[DecisionRow]) -> list[tuple[str, int, str, int, int]]:
    return [(one.decision_id, one.as_of, one.basis_digest, one.chain, one.rank) for one in rows]


def test_each_decision_finds_its_place_in_a_chain() -> None:
    first, second, aside = known(a=1, b=1), known(a=2, b=3), known(a=5)  # `aside` knows nothing of b
    decisions = [decision(4, aside), decision(3, second, "f"), decision(1, second), decision(2, first, kind="refund")]
    found = decision_bases(decisions, folded(a=5, b=3))
    assert [chain.tolist() for chain in found.chains] == [[[1, 1], [2, 3]], [[5, 0]]]
    assert {event: told(rows) for event, rows in found.by_event.items()} == {
        ("payment", "e"): told([row(1, second, 0, 1), row(4, aside, 1, 0)]),
        ("refund", "e"): told([row(2, first, 0, 0)]),
        ("payment", "f"): told([row(3, second, 0, 1)]),
    }


def test_no_decisions_have_no_chains() -> None:
    found = decision_bases([], folded(a=5, b=3))
    assert (found.chains, found.by_event) == ((), {})


def test_a_partition_that_the_replay_does_not_have_may_be_named_at_its_start() -> None:
    found = decision_bases([decision(1, known(a=0, z=0))], folded(a=0))
    assert [chain.tolist() for chain in found.chains] == [[[0]]]
    assert found.chains[0].dtype == np.int64


@pytest.mark.parametrize(
    ("ends", "partition"), [({"a": 6}, "a"), ({"a": 5, "b": 4}, "b"), ({"a": 1, "z": 1}, "z"), ({"z": 1}, "z")]
)
def test_a_basis_that_reaches_past_the_replay_is_refused(ends: dict[str, int], partition: str) -> None:
    with pytest.raises(BuildRefused, match=f"decision d7 knew partition {partition} up to {ends[partition]}") as caught:
        decision_bases([decision(7, known(**ends))], folded(a=5, b=3))
    assert (caught.value.reason, caught.value.field) == (BuildReason.REPLAY_INCOMPLETE, "replay")


@pytest.mark.parametrize("kind", [RecordedDecision, DecisionRow, DecisionBases])
def test_what_was_recorded_does_not_change(kind: type) -> None:
    with pytest.raises(FrozenInstanceError):
        object.__new__(kind).decision_id = "another"


def test_rows_with_the_same_content_are_told_apart() -> None:
    rows = [DecisionRow("d", 1, "b", 0, 0), DecisionRow("d", 1, "b", 0, 0)]
    assert rows[0] != rows[1]
    empty = [decision_bases([], folded(a=1)) for _ in range(2)]
    assert empty[0] != empty[1]
