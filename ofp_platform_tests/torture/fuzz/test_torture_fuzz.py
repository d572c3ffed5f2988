"""The fuzz suite at a small size; what the mutations are made of; and that its checks are not blind."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofp_platform.vocabulary.errors import ContractError
from ofp_platform_tests.torture.fuzz.client import Seen, shout, talk
from ofp_platform_tests.torture.fuzz.raw import Raw, Then, raw_requests
from ofp_platform_tests.torture.fuzz.requests import Requests, Sent, http
from ofp_platform_tests.torture.fuzz.suite import SUITE
from ofp_platform_tests.torture.suite import Run

VALID = [(b'{"feature_keys":[{"key_type":"account","key_id":"a"}],"as_of_time_utc":"2024-05-01T12:00:00Z"}', "0" * 64)]
INTENT = {"kind": "ofs_build_intent", "context_pins": {"run_id": "r"}}


def test_fuzz(embedded_server: str, tmp_path: Path) -> None:
    run = Run(0.001, 7, embedded_server, tmp_path)
    SUITE.torture(run)
    assert [row for row in run.rows if row.reached is False] == [], run.raw
    assert sum(row.reached is True for row in run.rows) == 7


def test_a_seed_gives_the_same_requests_and_they_differ_from_each_other() -> None:
    one, other = (list(islice(Requests(3, VALID, INTENT, 50), 2_000)) for _ in range(2))
    assert one == other
    assert len({sent.data for sent in one}) > 400
    assert list(islice(raw_requests(3, [b"x" * 300]), 500)) == list(islice(raw_requests(3, [b"x" * 300]), 500))


@settings(max_examples=50)
@given(body=st.binary(max_size=200), path=st.sampled_from(("/a", "/b?c=d")))
def test_framing_is_right_whatever_the_body(body: bytes, path: str) -> None:
    head, _, rest = http("POST", path, (), body).partition(b"\r\n\r\n")
    assert rest == body
    assert b"content-length: %d" % len(body) in head


async def _answering(answer: bytes) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(1)
            writer.write(answer)
            await writer.drain()
            if not answer:
                await reader.read()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


def _sources() -> tuple[Iterator[Sent], Iterator[Raw]]:
    return iter([Sent(http("GET", "/"), expected="0" * 64)]), iter([Raw((b"x\r\n",), Then.WAIT)])


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n", b""])
async def test_a_failure_and_a_hang_are_seen(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofp_platform_tests.torture.fuzz.client.LIMIT_SECONDS", 0.2)
    almost, hardly = _sources()
    talked, shouted = Seen(), Seen()
    async with await _answering(answer) as server:
        port = server.sockets[0].getsockname()[1]
        await talk(port, almost, 1, talked, lambda *_: None, connections=1)
        await shout(port, hardly, 1, shouted, connections=1)
        if serving := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(serving)
    for seen in (talked, shouted):
        assert (len(seen.failures), len(seen.hangs)) == ((1, 0) if answer else (0, 1))
    assert len(talked.wrong) == (1 if answer else 0)


def test_variants_are_seldom_valid_json_twice() -> None:
    bodies = [sent.body for sent in islice(Requests(5, VALID, INTENT, 50), 500) if sent.body is not None]
    broken = 0
    for body in bodies:
        try:
            json.loads(body)
        except (ValueError, ContractError, RecursionError):
            broken += 1
    assert 0 < broken < len(bodies)
