"""Causal reads: whether a basis holds the records that a request names, and what to say when it does not."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import psycopg

from ofp_platform.log.port import EventLog, LogTailLost, LogUnavailable
from ofp_platform.registry.question import RequestFields
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, unavailable
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, Position

Partitions = Callable[[], Collection[str]]
"""Asks the log for the ids of its partitions; it may block, and may raise LogUnavailable."""


@dataclass(frozen=True)
class Incarnations:
    """Which history of the log a position is of; it may ask the log."""

    open_log: Callable[[], EventLog]

    def demand(self, position: Position, index: int, pins: ContextPins) -> None:
        """Refuse a position whose record a recovery lost, or may have lost.

        Raises:
            ContractError: INVALID_REQUEST / BASIS_LOST, UNAVAILABLE / LOG_TAIL_LOST.
        """
        log = self.open_log()
        try:
            log.demand_settled()
        except LogTailLost:
            raise unavailable(Reason.LOG_TAIL_LOST, "the log may have lost records, and is not settled yet", pins) from None
        if log.history.has_lost(position):
            text = f"at_least_basis.{index}: a recovery lost the record at {position.partition_id}:{position.offset}"
            raise invalid(Reason.BASIS_LOST, f"{text}; another may stand there now: send the event again", pins)


def has_reached(basis_text: str, request: RequestFields, incarnations: Incarnations | None = None) -> bool:
    """Whether a basis holds what the request says it must.

    A position of another incarnation than the end of its partition counts only with `incarnations`, which may ask the log.

    Raises:
        ContractError: as `Incarnations.demand`.
    """
    if not request.at_least_basis:
        return True
    basis = Basis.model_validate_json(basis_text)
    if all(basis.contains(position) for position in request.at_least_basis):
        return True
    if incarnations is None or not all(basis.reaches(position) for position in request.at_least_basis):
        return False
    for index, position in enumerate(request.at_least_basis):
        if not basis.contains(position):
            incarnations.demand(position, index, request.context_pins)
    return True


def reaches(basis_text: str, request: RequestFields) -> bool:
    """Whether a basis holds the places that the request names, whichever records stand there."""
    basis = Basis.model_validate_json(basis_text)
    return all(basis.reaches(position) for position in request.at_least_basis or ())


def refuse_foreign(
    basis_text: str, request: RequestFields, partitions: Partitions | None, incarnations: Incarnations | None = None
) -> None:
    """Refuse positions that no basis of this run will ever hold: waiting for them, or asking again, would not help.

    `partitions` is asked only for a partition that the basis does not know yet; while the log does not answer, or without it,
    such a partition may be a new one.

    Raises:
        ContractError: INVALID_REQUEST; the message names the place in at_least_basis.
    """
    basis = Basis.model_validate_json(basis_text)
    known_parts = basis.by_partition()
    listed_partitions: Collection[str] | None = None
    for index, position in enumerate(request.at_least_basis or ()):
        place = f"at_least_basis.{index}"
        if position.stream_name != basis.stream_name:
            text = f"{place}.stream_name: this run is read from stream {basis.stream_name}"
            raise invalid(Reason.INVALID_FIELD, text, request.context_pins)
        part = known_parts.get(position.partition_id)
        if part is not None:
            if not part.counts_like(position):
                text = f"{place}.offset: not an offset of this log, which has the kind {part.offset_kind.value}"
                raise invalid(Reason.INVALID_FIELD, text, request.context_pins)
            if incarnations is not None and part.incarnation != position.incarnation:
                try:
                    incarnations.demand(position, index, request.context_pins)
                except (LogUnavailable, psycopg.Error) as error:
                    if not (isinstance(error, LogUnavailable) or is_transient(error)):
                        raise
            continue
        if partitions is not None and listed_partitions is None:
            try:
                listed_partitions = partitions()
            except LogUnavailable:
                return
            except psycopg.Error as error:
                if not is_transient(error):
                    raise
                return
        if listed_partitions is not None and position.partition_id not in listed_partitions:
            text = f"{place}.partition_id: stream {basis.stream_name} has no such partition"
            raise invalid(Reason.INVALID_FIELD, text, request.context_pins)


def refuse_lost(request: RequestFields, incarnations: Incarnations | None) -> None:
    """Refuse positions that were waited for in vain because a recovery lost their records; the log is asked.

    Raises:
        ContractError: as `Incarnations.demand`.
    """
    if incarnations is None:
        return
    try:
        for index, position in enumerate(request.at_least_basis or ()):
            incarnations.demand(position, index, request.context_pins)
    except (LogUnavailable, psycopg.Error) as error:
        if not (isinstance(error, LogUnavailable) or is_transient(error)):
            raise


def not_reached(request: RequestFields, waited_ms: int) -> ContractError:
    """The refusal after waiting in vain."""
    return unavailable(
        Reason.BASIS_NOT_REACHED,
        f"the basis did not reach at_least_basis within {waited_ms} ms",
        request.context_pins,
    )
