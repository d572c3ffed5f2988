"""The recorded decisions that a build is compared with: those of its run whose recorded basis lies inside the replay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from psycopg import Connection

from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.storage.decision_records import decision_ids_in, ids_by_basis, read_decisions
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis

_PAGE = 10_000


def anchors_in(pool: Pool, pins: ContextPins, basis: ReplayBasis) -> tuple[str, ...]:
    """The ids of the run's decisions whose event and recorded basis lie inside the replay, sorted.

    Raises:
        BuildRefused: STORE_UNAVAILABLE.
    """
    with answering(), pool.connection() as connection:
        candidates = decision_ids_in(connection, pins, basis)
        pages = (candidates[start : start + _PAGE] for start in range(0, len(candidates), _PAGE))
        ids_of_bases = (group for page in pages for group in ids_by_basis(connection, page))
        return tuple(
            sorted(
                decision_id for recorded_basis, ids in ids_of_bases if basis.contains_end(recorded_basis) for decision_id in ids
            )
        )


def named_anchors(pool: Pool, pins: ContextPins, basis: ReplayBasis, decision_ids: Sequence[str]) -> tuple[str, ...]:
    """The decisions that an intent lists, sorted.

    Raises:
        BuildRefused: PARITY_ANCHOR_UNRESOLVED: one is not recorded, is of another run, or knew more or less than the replay
            holds; STORE_UNAVAILABLE.
    """
    with answering(), pool.connection() as connection:
        for index, (_, record) in enumerate(_records(connection, decision_ids)):
            field = f"decision_ids.{index}"
            if record is None or record.context_pins != pins:
                raise _refusal(field, "no such decision of this run is recorded")
            if record.input_basis is None:
                raise _refusal(field, "this decision was made without a vector: there is nothing to rebuild")
            if not basis.contains_end(record.input_basis):
                raise _refusal(field, "the basis that this decision recorded does not lie inside the replay basis")
    return tuple(sorted(decision_ids))


def _records(connection: Connection[Any], decision_ids: Sequence[str]) -> Iterator[tuple[str, DecisionRecord | None]]:
    """The records of the ids in their order, a page at a time."""
    for start in range(0, len(decision_ids), _PAGE):
        page = decision_ids[start : start + _PAGE]
        records = read_decisions(connection, page)
        yield from ((decision_id, records.get(decision_id)) for decision_id in page)


def _refusal(field: str, message: str) -> BuildRefused:
    return BuildRefused(BuildReason.PARITY_ANCHOR_UNRESOLVED, message, field)
