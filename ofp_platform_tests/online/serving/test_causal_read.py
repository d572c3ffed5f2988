"""When a basis holds what a request must have read, and which positions no basis will ever hold."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from ofp_platform.log.port import LogUnavailable
from ofp_platform.online.serving.causal_read import has_reached, not_reached, refuse_foreign
from ofp_platform.registry.question import PlainRequest
from ofp_platform.vocabulary.errors import ContractError, ErrorCode, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import OffsetKind, PartitionBasis, Position, basis_text, make_basis
from ofp_platform_tests.oracle.strategies import PINS

RUN = ContextPins(**PINS)
DENSE = {name: PartitionBasis(partition_id=name, offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=5) for name in ("a", "b")}
BASIS = basis_text(make_basis("events", DENSE))


def asked(*positions: tuple[str, str, int | str]) -> PlainRequest:
    at_least = tuple(Position(stream_name=stream, partition_id=name, offset=offset) for stream, name, offset in positions)
    return PlainRequest(RUN, "2026-01-01T00:00:00Z", None, at_least, None, None)


NOTHING = PlainRequest(RUN, "2026-01-01T00:00:00Z", None, None, None, None)


@pytest.mark.parametrize(
    ("positions", "holds"),
    [
        ([], True),
        ([("events", "a", 4)], True),
        ([("events", "a", 5)], False),
        ([("events", "a", 4), ("events", "b", 4)], True),
        ([("events", "a", 4), ("events", "b", 5)], False),
        ([("events", "a", 6), ("events", "b", 0)], False),
        ([("events", "c", 0)], False),
        ([("others", "a", 0)], False),
    ],
)
def test_a_basis_is_reached_when_it_holds_every_position(positions: Sequence[tuple[str, str, int]], holds: bool) -> None:
    assert has_reached(BASIS, asked(*positions)) is holds


def test_a_request_that_asks_for_nothing_is_not_held_up() -> None:
    assert has_reached("not even read", NOTHING)
    refuse_foreign(BASIS, NOTHING, None)
    refuse_foreign(BASIS, asked(), None)


def refusal(*positions: tuple[str, str, int | str], partitions: Any = None) -> str:
    with pytest.raises(ContractError) as caught:
        refuse_foreign(BASIS, asked(*positions), partitions)
    assert (caught.value.code, caught.value.reason) == (ErrorCode.INVALID_REQUEST, Reason.INVALID_FIELD)
    assert caught.value.context_pins == RUN
    return caught.value.message


def test_what_no_basis_will_ever_hold_is_refused_by_its_place() -> None:
    assert refusal(("others", "a", 1)).startswith("at_least_basis.0.stream_name: ")
    assert refusal(("an-earlier-name", "a", 1)).startswith("at_least_basis.0.stream_name: ")
    assert refusal(("events", "a", "1")).startswith("at_least_basis.0.offset: ")
    assert refusal(("events", "b", 99), ("events", "a", "1")).startswith("at_least_basis.1.offset: ")
    assert refusal(("events", "c", 1), partitions=lambda: ["a", "b"]).startswith("at_least_basis.0.partition_id: ")
    mixed = ("events", "a", 1), ("events", "d", 1), ("events", "c", 1)
    assert refusal(*mixed, partitions=lambda: ["a", "b", "d"]).startswith("at_least_basis.2.partition_id: ")
    # a position after one of an unknown partition is looked at all the same
    assert refusal(("events", "c", 1), ("others", "a", 1)).startswith("at_least_basis.1.stream_name: ")


def test_a_position_that_a_basis_may_come_to_hold_is_waited_for() -> None:
    refuse_foreign(BASIS, asked(("events", "a", 10**6)), None)
    refuse_foreign(BASIS, asked(("events", "c", 1)), None)  # nobody to ask: it may be a new partition
    refuse_foreign(BASIS, asked(("events", "c", 1)), lambda: ["c"])


def test_the_log_is_asked_once_and_only_about_partitions_that_the_basis_does_not_know() -> None:
    calls: list[None] = []

    def partitions() -> Collection[str]:
        calls.append(None)
        return ["a", "b", "c", "d"]

    refuse_foreign(BASIS, asked(("events", "a", 1), ("events", "b", 9)), partitions)
    assert len(calls) == 0
    refuse_foreign(BASIS, asked(("events", "c", 1), ("events", "d", 9)), partitions)
    assert len(calls) == 1


@pytest.mark.parametrize("failure", [LogUnavailable("down"), psycopg.OperationalError("down"), PoolTimeout("full")])
def test_while_the_log_does_not_answer_a_partition_may_be_new(failure: Exception) -> None:
    def partitions() -> Collection[str]:
        raise failure

    refuse_foreign(BASIS, asked(("events", "c", 1)), partitions)


def test_waiting_in_vain_can_be_retried() -> None:
    refused = not_reached(NOTHING, 250)
    assert (refused.code, refused.reason, refused.retryable) == (ErrorCode.UNAVAILABLE, Reason.BASIS_NOT_REACHED, True)
    assert refused.context_pins == RUN
    assert "250 ms" in refused.message
