"""What decisions knew, as one number for each event and row: bases that follow each other form a chain.

Along a chain every basis holds the one before it. So "the event is in the row's basis" is a comparison: the place of the
first basis of the chain that holds the event, against the place of the row's own. Decisions that one projection served form
one chain; bases that do not follow each other are spread over several, and rows of each are computed by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofp_platform.offline.key_shards import EventShard
from ofp_platform.offline.known_events import FoldedReplay
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.position import Basis, basis_text, order

Int64s = npt.NDArray[np.int64]
NEVER_KNOWN = 2**62


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
    places = _chains(distinct)
    count = max((chain for chain, _ in places.values()), default=-1) + 1
    chains = []
    for chain in range(count):
        own = sorted((rank, text) for text, (where, rank) in places.items() if where == chain)
        chains.append(np.stack([distinct[text] for _, text in own]))
    by_event: dict[tuple[str, str], list[DecidedRow]] = {}
    digests = {text: sha256_hex(text.encode()) for text in distinct}
    for one, text in zip(listed, texts, strict=True):
        row = DecidedRow(one.decision_id, one.as_of, digests[text], *places[text])
        by_event.setdefault((one.event_type, one.event_id), []).append(row)
    return DecisionBases(tuple(chains), by_event)


def known_from(chain: Int64s, events: EventShard) -> Int64s:
    """int64[N]: the place in the chain of the first basis that holds the event, NEVER_KNOWN when none does."""
    found = np.full(events.matrix.shape[1], NEVER_KNOWN, np.int64)
    for partition in range(chain.shape[1]):
        own = events.copies[events.copies[:, 1] == partition]
        ranks = np.searchsorted(chain[:, partition], own[:, 2], side="right").astype(np.int64)
        ranks[ranks == len(chain)] = NEVER_KNOWN
        np.minimum.at(found, own[:, 0], ranks)
    return found


def _bounds(decision: RecordedDecision, folded: FoldedReplay) -> Int64s:
    parts = decision.basis.by_partition()
    ends = dict(zip(folded.partitions, folded.ends, strict=True))
    for name, part in parts.items():
        end = order(ends[name].offset) if name in ends else 0
        if order(part.offset) > max(end, 0):
            message = f"decision {decision.decision_id} knew partition {name} up to {part.offset}; the replay ends before"
            raise BuildRefused(BuildReason.REPLAY_INCOMPLETE, message, "replay")
    return np.array([folded.bound(parts[name]) if name in parts else 0 for name in folded.partitions], np.int64)


def _chains(distinct: dict[str, Int64s]) -> dict[str, tuple[int, int]]:
    """Text of a basis to (chain, place in it): each goes behind the first chain whose last it holds."""
    lasts: list[Int64s] = []
    lengths: list[int] = []
    places = {}
    for text, bounds in sorted(distinct.items(), key=lambda one: (int(one[1].sum()), one[0])):
        chain = next((number for number, last in enumerate(lasts) if (last <= bounds).all()), len(lasts))
        if chain == len(lasts):
            lasts.append(bounds)
            lengths.append(0)
        lasts[chain] = bounds
        places[text] = chain, lengths[chain]
        lengths[chain] += 1
    return places
