"""A small HTTP/1.1 load generator over raw sockets: a fixed number of connections, one request in flight on each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What a run measured. Seconds."""

    requests: int
    seconds: float
    latencies: list[float]
    failures: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    def quantile(self, q: float) -> float:
        """A latency quantile, in milliseconds."""
        return self.latencies[min(len(self.latencies) - 1, int(q * len(self.latencies)))] * 1000


def post(path: str, body: bytes) -> bytes:
    """The bytes of one keep-alive POST."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _connection(host: str, port: int, requests: Sequence[bytes], latencies: list[float]) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    failures = 0
    for request in requests:
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        latencies.append(time.perf_counter() - began)
        failures += not head.startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    return failures


async def run(host: str, port: int, requests: Sequence[bytes], connections: int) -> Load:
    """Send all requests, spread over the connections."""
    latencies: list[float] = []
    began = time.perf_counter()
    parts = [requests[index::connections] for index in range(connections)]
    failures = await asyncio.gather(*(_connection(host, port, part, latencies) for part in parts))
    return Load(len(requests), time.perf_counter() - began, sorted(latencies), sum(failures))
