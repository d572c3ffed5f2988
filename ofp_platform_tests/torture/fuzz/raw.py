"""Bytes that are hardly HTTP, and what a client may do with its connection after it sent them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from benchmarks.keys import KEY

_LINES = (
    b"", b"GET", b"GET /health", b"GET  /health HTTP/1.1", b"GET /health HTTP/9.9", b"GET /health HTTP/0.9",
    b"GET /health http/1.1",
    b"\x00\x00\x00", b"GET /\x00 HTTP/1.1", b"PRI * HTTP/2.0", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET http://other/health HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"POST /v0/get_features HTTP/1.0",
    b"G\xc3\x89T / HTTP/1.1", b"GET /" + b"a" * 70_000 + b" HTTP/1.1", b"GET /health HTTP/1.1 extra", b"SSH-2.0-x", b"{}",
)  # fmt: skip
_HEADERS = (
    b"host: a", b"host: a\r\nhost: b", b"content-length: 5", b"content-length: -1", b"content-length: 99999999999999999999",
    b"content-length: 1_0", b"content-length: +5", b"content-length: 5\r\ncontent-length: 6", b"content-length: 5, 5",
    b"transfer-encoding: chunked", b"transfer-encoding: gzip, chunked", b"transfer-encoding: identity",
    b"transfer-encoding: chunked\r\ncontent-length: 3", b"x: " + b"y" * 9_000, b": no name", b"no colon", b" folded: x",
    b"bad name: x", b"x: a\x00b", b"x: \x01\x02", b"expect: 100-continue", b"expect: 200-maybe", b"connection: close",
    b"connection: keep-alive, upgrade", b"upgrade: websocket", b"\xff\xff: \xff", b"x:" + b"\t" * 500, b"x: a\r\n b",
)  # fmt: skip
_ADMITTED = (b"host: localhost", b"authorization: Bearer " + KEY.encode(), b"content-type: application/json")
_CHUNKS = (
    b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\nx", b"5\r\nhel", b"5;ext=1\r\nhello\r\n0\r\n\r\n",
    b"0\r\nx: y\r\n\r\n", b"5\nhello\n0\n\n", b"00000000000000005\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n",
)  # fmt: skip


class Then(Enum):
    """What the client does when everything is sent."""

    WAIT = "wait"
    HALF_CLOSE = "half-close"
    LEAVE = "leave"


@dataclass(frozen=True)
class Raw:
    """Bytes to send in these pieces over a connection of their own, and what to do then."""

    pieces: tuple[bytes, ...]
    then: Then


def raw_requests(seed: int, valid: Sequence[bytes], *, waits: float = 0.02) -> Iterator[Raw]:
    """An endless, seeded supply. `valid`: whole requests to start from. `waits`: how many wait for the server to end it."""
    chance = random.Random(seed)
    while True:
        kind = chance.randrange(6)
        if kind == 0:
            data = b"\r\n".join([chance.choice(_LINES), *chance.sample(_HEADERS, chance.randrange(4))]) + b"\r\n\r\n"
        elif kind == 1:
            headers = chance.sample(_HEADERS, chance.randint(1, 6))
            data = (
                b"\r\n".join([b"POST /v0/get_features HTTP/1.1", *chance.choice(((), _ADMITTED)), *headers])
                + b"\r\n\r\n"
                + chance.choice(_CHUNKS)
            )
        elif kind == 2:
            data = b"".join(chance.choice(valid) for _ in range(chance.choice((2, 3, 8, 30))))
        elif kind == 3:
            whole = chance.choice(valid)
            data = whole[: chance.randrange(1, len(whole))]
        elif kind == 4:
            whole = bytearray(chance.choice(valid))
            for _ in range(chance.choice((1, 2, 8))):
                whole[chance.randrange(min(len(whole), 200))] = chance.choice(
                    (0, 10, 13, 32, 58, 127, 255, chance.randrange(256))
                )
            data = bytes(whole)
        else:
            data = chance.randbytes(chance.choice((1, 16, 300, 5_000)))
        cut = chance.randrange(len(data) + 1) if chance.random() < 0.2 else 0
        pieces = (data[:cut], data[cut:]) if 0 < cut < len(data) else (data,)
        drawn = chance.random()
        then = Then.WAIT if drawn < waits else Then.LEAVE if drawn < 0.2 else Then.HALF_CLOSE
        yield Raw(pieces, then)
