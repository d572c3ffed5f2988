"""The bases of a build's decisions: each decision, and the rank of its basis in its chain (see `knowledge`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofp_platform.offline.replay.knowledge import chains_of
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.position import Basis, basis_text, order
from ofp_platform.vocabulary.serving import GraphVersion

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RecordedDecision:
    """A recorded decision about an event: as-of in microseconds, and the basis it was served at.

    `position`: partition id and offset of the record that was decided on; one id may have several contents. None: any of them.
    `graph_version`: that its vector was resolved by, if it was.
    """

    decision_id: str
    event_type: str
    event_id: str
    as_of: int
    basis: Basis
    position: tuple[str, int | str] | None = None
    graph_version: GraphVersion | None = None


@dataclass(frozen=True, eq=False)
class DecisionRow:
    """One decision: SHA-256 of the text of its basis, its chain, and its rank in the chain.

    `position`: number of the partition, and position (see `EventShard`) of the record that was decided on; `graph_version` as
    recorded.
    """

    decision_id: str
    as_of: int
    basis_digest: str
    chain: int
    rank: int
    position: tuple[int, int] | None = None
    graph_version: GraphVersion | None = None


@dataclass(frozen=True, eq=False)
class DecisionBases:
    """All decisions of a build. `chains`: int64[L, P] each, per basis and partition number the position it ends before;
    `by_event`: (event type, event id) to its decisions, in the order of their ids."""

    chains: tuple[Int64s, ...]
    by_event: dict[tuple[str, str], list[DecisionRow]]


NO_DECISIONS = DecisionBases((), {})


def decision_bases(decisions: Iterable[RecordedDecision], folded_replay: FoldedReplay) -> DecisionBases:
    """Order the decisions' bases in chains. The decisions are held in memory: some hundred bytes each.

    Raises:
        BuildRefused: REPLAY_INCOMPLETE, a basis reaches past the replay.
    """
    sorted_decisions = sorted(decisions, key=lambda decision: decision.decision_id)
    texts = [basis_text(decision.basis) for decision in sorted_decisions]
    distinct: dict[str, Int64s] = {}
    for decision, text in zip(sorted_decisions, texts, strict=True):
        if text not in distinct:
            distinct[text] = _bounds(decision, folded_replay)
    bounds = np.stack(list(distinct.values())) if distinct else np.empty((0, len(folded_replay.partitions)), np.int64)
    chains = chains_of(bounds)
    ranks = dict(zip(distinct, zip(chains.chain.tolist(), chains.rank.tolist(), strict=True), strict=True))
    by_event: dict[tuple[str, str], list[DecisionRow]] = {}
    digests = {text: sha256_hex(text.encode()) for text in distinct}
    positions = record_places([decision.position for decision in sorted_decisions], folded_replay)
    for decision, text, position in zip(sorted_decisions, texts, positions, strict=True):
        row = DecisionRow(decision.decision_id, decision.as_of, digests[text], *ranks[text], position, decision.graph_version)
        by_event.setdefault((decision.event_type, decision.event_id), []).append(row)
    return DecisionBases(chains.chains, by_event)


def record_places(records: Sequence[tuple[str, int | str] | None], folded_replay: FoldedReplay) -> list[tuple[int, int] | None]:
    """Where records (partition id and offset) stand in the replay: number of the partition, position; (-1, -1): not in it."""
    numbers = {name: number for number, name in enumerate(folded_replay.partitions)}
    places: list[tuple[int, int] | None] = [None if record is None else (-1, -1) for record in records]
    of_partition: dict[int, list[tuple[int, int | str]]] = {}
    for index, record in enumerate(records):
        if record is not None and record[0] in numbers:
            of_partition.setdefault(numbers[record[0]], []).append((index, record[1]))
    for number, offsets in of_partition.items():
        end = folded_replay.ends[number]
        behind = folded_replay.bounds(number, [end.after(offset) for _, offset in offsets])
        for (index, _), position in zip(offsets, (behind - 1).tolist(), strict=True):
            places[index] = number, position
    return places


def _bounds(decision: RecordedDecision, folded_replay: FoldedReplay) -> Int64s:
    parts = decision.basis.by_partition()
    ends = dict(zip(folded_replay.partitions, folded_replay.ends, strict=True))
    for name, part in parts.items():
        end = order(ends[name].offset) if name in ends else 0
        if order(part.offset) > max(end, 0):
            message = f"decision {decision.decision_id} knew partition {name} up to {part.offset}; the replay ends before"
            raise BuildRefused(BuildReason.REPLAY_INCOMPLETE, message, "replay")
    return np.array([folded_replay.bound(parts[name]) if name in parts else 0 for name in folded_replay.partitions], np.int64)
