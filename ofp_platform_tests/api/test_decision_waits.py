"""Waiting for decisions: none is missed, whenever it comes; nobody waits for ever; who waits is told of what fails."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from ofp_platform.api import decision_waits
from ofp_platform.api.decision_waits import DecisionWaits
from ofp_platform.vocabulary.errors import ContractError, Reason, unavailable
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis


class Stream:
    """Decisions in memory, told as a log tells them."""

    def __init__(self) -> None:
        self.decided: dict[str, bytes] = {}
        self.fault: Exception | None = None
        self.waits = 0
        self._changed = threading.Condition()

    def decide(self, event_id: str) -> None:
        with self._changed:
            self.decided[event_id] = event_id.encode()
            self._changed.notify_all()

    def fail(self, fault: Exception) -> None:
        with self._changed:
            self.fault = fault
            self._changed.notify_all()

    def look(self, event_ids: Sequence[str]) -> dict[str, bytes]:
        return {name: self.decided[name] for name in event_ids if name in self.decided}

    def ends(self) -> Basis:
        part = PartitionBasis(partition_id="0000", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=len(self.decided))
        return Basis(stream_name="decisions", partitions=(part,))

    def wait(self, basis: Basis, timeout_seconds: float) -> bool:
        self.waits += 1
        with self._changed:
            self._changed.wait_for(lambda: self.fault is not None or self.ends() != basis, timeout_seconds)
        if self.fault is not None:
            raise self.fault
        return self.ends() != basis


def words_of(error: Exception) -> ContractError:
    if isinstance(error, ContractError):
        return error
    if isinstance(error, ConnectionError):
        return unavailable(Reason.STORE_DOWN, "down")
    raise error


def waits_for(stream: Stream, seconds: float = 60.0) -> DecisionWaits:
    return DecisionWaits(lambda: stream, stream.look, words_of, seconds)


async def test_what_is_decided_before_meanwhile_and_after_is_found() -> None:
    stream = Stream()
    waits = waits_for(stream)
    stream.decide("before")
    assert await waits.decision_on("before") == b"before"
    assert stream.waits == 0  # nothing was waited for
    names = [f"e-{number}" for number in range(200)]
    tasks = [asyncio.create_task(waits.decision_on(name)) for name in [*names, *names]]
    deciding = asyncio.gather(*(asyncio.to_thread(stream.decide, name) for name in names))
    assert await asyncio.gather(*tasks) == [name.encode() for name in [*names, *names]]
    await deciding
    assert waits._waiting == {}
    await waits.close()


async def test_an_event_that_nobody_decides_on_is_pending_after_a_while() -> None:
    stream = Stream()
    waits = waits_for(stream, seconds=0.05)
    with pytest.raises(ContractError) as refused:
        await waits.decision_on("never")
    assert refused.value.reason is Reason.DECISION_PENDING
    assert waits._waiting == {}
    await waits.close()


@pytest.mark.parametrize("fault", [ConnectionError("gone"), RuntimeError("a defect")])
async def test_who_waits_is_told_of_what_fails_and_the_next_one_waits_anew(fault: Exception) -> None:
    stream = Stream()
    waits = waits_for(stream)
    task = asyncio.create_task(waits.decision_on("1"))
    while not stream.waits:
        await asyncio.sleep(0.001)
    stream.fail(fault)
    with pytest.raises((ContractError, RuntimeError)) as told:
        await task
    assert "down" in str(told.value) or told.value is fault
    stream.fault = None
    other = asyncio.create_task(waits.decision_on("2"))
    await asyncio.to_thread(stream.decide, "2")
    assert await other == b"2"
    await waits.close()


async def test_too_many_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_waits, "_MOST_WAITING", 1)
    stream = Stream()
    waits = waits_for(stream)
    task = asyncio.create_task(waits.decision_on("1"))
    while not stream.waits:
        await asyncio.sleep(0.001)
    with pytest.raises(ContractError) as refused:
        await waits.decision_on("2")
    assert refused.value.reason is Reason.OVERLOADED
    await waits.close()
    with pytest.raises(ContractError) as ended:
        await task
    assert ended.value.reason is Reason.DECISION_PENDING
