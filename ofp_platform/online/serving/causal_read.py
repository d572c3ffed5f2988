"""Causal reads: whether a basis holds the records that a request names, and what to say when it does not."""

from __future__ import annotations

from collections.abc import Callable, Collection

import psycopg

from ofp_platform.log.port import LogUnavailable
from ofp_platform.registry.question import RequestFields
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, unavailable
from ofp_platform.vocabulary.position import Basis

Partitions = Callable[[], Collection[str]]
"""Asks the log for the ids of its partitions; it may block, and may raise LogUnavailable."""


def has_reached(basis_text: str, request: RequestFields) -> bool:
    """Whether a basis holds what the request says it must."""
    if not request.at_least_basis:
        return True
    basis = Basis.model_validate_json(basis_text)
    return all(basis.contains(position) for position in request.at_least_basis)


def refuse_foreign(basis_text: str, request: RequestFields, partitions: Partitions | None) -> None:
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


def not_reached(request: RequestFields, waited_ms: int) -> ContractError:
    """The refusal after waiting in vain."""
    return unavailable(
        Reason.BASIS_NOT_REACHED,
        f"the basis did not reach at_least_basis within {waited_ms} ms",
        request.context_pins,
    )
