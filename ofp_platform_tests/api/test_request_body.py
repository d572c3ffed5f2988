"""Reading a body: late, cut short, in pieces; many readers under one timer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ofp_platform.api.request_body import BodyReader
from ofp_platform.vocabulary.errors import ContractError, Reason


class Client:
    """Sends the given messages, then nothing more for ever."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)

    async def __call__(self) -> dict[str, Any]:
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def refused(reader: BodyReader, client: Client, declared: bytes | None = None) -> Reason:
    with pytest.raises(ContractError) as caught:
        await reader.read(client, declared)
    return caught.value.reason


async def test_in_one_and_in_pieces() -> None:
    reader = BodyReader(10, 5.0)
    assert await reader.read(Client(part(b"abc", more=False)), b"3") == b"abc"
    assert await reader.read(Client(part(b"ab"), part(b""), part(b"c", more=False)), None) == b"abc"
    assert await reader.read(Client({"type": "http.request"}), None) == b""


async def test_too_large() -> None:
    reader = BodyReader(4, 5.0)
    untouched = Client(part(b"abc"))
    assert await refused(reader, untouched, b"5") is Reason.BODY_TOO_LARGE
    assert len(untouched.messages) == 1
    assert await refused(reader, Client(part(b"abc"), part(b"de"))) is Reason.BODY_TOO_LARGE
    assert await reader.read(Client(part(b"abcd", more=False)), b"4") == b"abcd"


@pytest.mark.parametrize("declared", [b"-1", b"", b"1e3", b"9" * 19])
async def test_a_length_that_is_none(declared: bytes) -> None:
    assert await refused(BodyReader(4, 5.0), Client(), declared) is Reason.BODY_INCOMPLETE


async def test_cut_short() -> None:
    reader = BodyReader(10, 5.0)
    assert await refused(reader, Client(part(b"a"), {"type": "http.disconnect"}), b"5") is Reason.BODY_INCOMPLETE
    assert await refused(reader, Client(part(b"a", more=False)), b"5") is Reason.BODY_INCOMPLETE


async def test_late_readers_are_refused_and_prompt_ones_are_not() -> None:
    reader = BodyReader(10, 0.05)
    late = [asyncio.create_task(refused(reader, Client(part(b"a")))) for _ in range(5)]
    prompt = [asyncio.create_task(reader.read(Client(part(b"ab", more=False)), None)) for _ in range(5)]
    assert await asyncio.gather(*prompt) == [b"ab"] * 5
    assert await asyncio.gather(*late) == [Reason.BODY_INCOMPLETE] * 5
    # the timer serves again after it ran out
    assert await refused(reader, Client()) is Reason.BODY_INCOMPLETE
    assert await reader.read(Client(part(b"x", more=False)), None) == b"x"


async def test_a_later_reader_keeps_its_whole_time() -> None:
    reader = BodyReader(10, 0.3)
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(refused(reader, Client()))
    await asyncio.wait({first}, timeout=0.15)
    began = loop.time()
    assert await refused(reader, Client()) is Reason.BODY_INCOMPLETE
    assert loop.time() - began >= 0.29
    assert await first is Reason.BODY_INCOMPLETE


async def test_a_cancellation_by_others_stays_one() -> None:
    task = asyncio.create_task(BodyReader(10, 5.0).read(Client(), None))
    await asyncio.wait({task}, timeout=0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
