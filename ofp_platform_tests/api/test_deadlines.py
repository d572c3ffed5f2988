"""One timer for many waits: each expires in its turn, once, and not when it is forgotten."""

from __future__ import annotations

import asyncio

from ofp_platform.api.deadlines import Deadlines


class Waits:
    """What expired, in order."""

    def __init__(self, seconds: float) -> None:
        self.deadlines: Deadlines[str] = Deadlines(seconds, self._expire)
        self.expired: list[str] = []
        self.at_least_one = asyncio.Event()

    def _expire(self, waiter: str) -> None:
        self.expired.append(waiter)
        self.at_least_one.set()


async def test_in_their_order_and_not_the_forgotten() -> None:
    waits = Waits(0.02)
    for waiter in ("a", "b", "c", "d"):
        waits.deadlines.watch(waiter)
    waits.deadlines.forget("b")
    waits.deadlines.forget("never watched")
    waits.deadlines.watch("a")  # anew, so it is the last one
    while len(waits.expired) < 3:
        await waits.at_least_one.wait()
        waits.at_least_one.clear()
    assert waits.expired == ["c", "d", "a"]


async def test_a_later_waiter_has_its_whole_time_and_the_timer_serves_again() -> None:
    waits = Waits(0.1)
    loop = asyncio.get_running_loop()
    waits.deadlines.watch("first")
    await asyncio.wait([asyncio.ensure_future(waits.at_least_one.wait())], timeout=0.05)
    began = loop.time()
    waits.deadlines.watch("second")
    while len(waits.expired) < 2:
        await waits.at_least_one.wait()
        waits.at_least_one.clear()
    assert loop.time() - began >= 0.09
    waits.deadlines.watch("third")
    await waits.at_least_one.wait()
    assert waits.expired == ["first", "second", "third"]


async def test_an_expiry_may_watch_again() -> None:
    counts: list[int] = []
    done = asyncio.Event()

    def expire(waiter: int) -> None:
        counts.append(waiter)
        if waiter < 3:
            deadlines.watch(waiter + 1)
        else:
            done.set()

    deadlines: Deadlines[int] = Deadlines(0.01, expire)
    deadlines.watch(1)
    await done.wait()
    assert counts == [1, 2, 3]
