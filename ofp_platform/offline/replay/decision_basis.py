"""What decisions knew, row by row: each decision of a build, and the place of its basis in its chain (see `knowledge`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofp_platform.offline.replay.knowledge import chains_of
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.position import Basis, basis_text, order

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RecordedDecision:
    """What a recorded decision says of the event that it decided: as-of in microseconds, and the basis it was served."""

    decision_id: str
    event_type: str
    event_id: str
    as_of: int
    basis: Basis


@dataclass(frozen=True, eq=False)
class DecidedRow:
    """One decision, placed: SHA-256 of the text of its basis, chain, and place in the chain."""

    decision_id: str
    as_of: int
    basis_digest: str
    chain: int
    rank: int


@dataclass(frozen=True, eq=False)
class DecisionBases:
    """All decisions of a build. `chains`: int64[L, P] each, per basis and partition number the position it ends before;
    `by_event`: (event type, event id) to its decisions, in the order of their ids."""

    chains: tuple[Int64s, ...]
    by_event: dict[tuple[str, str], list[DecidedRow]]


def decision_bases(decisions: Iterable[RecordedDecision], folded: FoldedReplay) -> DecisionBases:
    """Place decisions in chains. What they say is held in memory: some hundred bytes each.

    Raises:
        BuildRefused: REPLAY_INCOMPLETE, a basis reaches past the replay.
    """
    listed = sorted(decisions, key=lambda one: one.decision_id)
    texts = [basis_text(one.basis) for one in listed]
    distinct: dict[str, Int64s] = {}
    for one, text in zip(listed, texts, strict=True):
        if text not in distinct:
            distinct[text] = _bounds(one, folded)
    bounds = np.stack(list(distinct.values())) if distinct else np.empty((0, len(folded.partitions)), np.int64)
    placed = chains_of(bounds)
    places = dict(zip(distinct, zip(placed.chain.tolist(), placed.rank.tolist(), strict=True), strict=True))
    by_event: dict[tuple[str, str], list[DecidedRow]] = {}
    digests = {text: sha256_hex(text.encode()) for text in distinct}
    for one, text in zip(listed, texts, strict=True):
        row = DecidedRow(one.decision_id, one.as_of, digests[text], *places[text])
        by_event.setdefault((one.event_type, one.event_id), []).append(row)
    return DecisionBases(placed.chains, by_event)


def _bounds(decision: RecordedDecision, folded: FoldedReplay) -> Int64s:
    parts = decision.basis.by_partition()
    ends = dict(zip(folded.partitions, folded.ends, strict=True))
    for name, part in parts.items():
        end = order(ends[name].offset) if name in ends else 0
        if order(part.offset) > max(end, 0):
            message = f"decision {decision.decision_id} knew partition {name} up to {part.offset}; the replay ends before"
            raise BuildRefused(BuildReason.REPLAY_INCOMPLETE, message, "replay")
    return np.array([folded.bound(parts[name]) if name in parts else 0 for name in folded.partitions], np.int64)
