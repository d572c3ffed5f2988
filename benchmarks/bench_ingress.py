"""The door beside the library's own append: batches, single events in an open loop, and how soon an event is servable.

`python -m benchmarks.bench_ingress`: the same transfers, in batches of 1,000, appended by the library and admitted by the door,
by turns in one process; then over HTTP to `ofp ingress serve` with one worker; then single events at a fixed rate, each with its
time counted from when it was due; then, with a projector beside it, from the sending of an event until a basis that has it is
visible. All on the machine of the service.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from urllib.parse import SplitResult, urlsplit

import orjson
import uvloop

from benchmarks.figures import Figures, Row
from benchmarks.world import PINS, fresh_database, profile
from ofp_platform.client import EventSender
from ofp_platform.ingress.class_map import class_map_in_force
from ofp_platform.ingress.open_door import open_door
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.api.keys import principal, principals_variable

AIM_RATE, AIM_RATIO, AIM_SINGLE_MS, AIM_SERVABLE_MS = 40_000, 0.5, 10.0, 100.0
BATCH = 1_000
_CUSTOMERS = 5_000
_CONNECTIONS = 24


def events(first: int) -> Iterator[dict[str, Any]]:
    """Transactions without end, each of another customer than the one before."""
    number = first
    while True:
        payload = {
            "amount_minor": 100 + number,
            "customer_id": f"customer-{number % _CUSTOMERS:07d}",
            "terminal_id": "terminal-0000001",
        }
        head = {"event_id": f"tx-{number:09d}", "event_type": "transaction", "schema_version": "v1"}
        yield {**head, "ts_utc": "2018-04-01T00:00:00Z", **PINS.wire(), "payload": payload}
        number += 1


def batches(first: int, records: int) -> list[list[dict[str, Any]]]:
    """So many records in batches."""
    source = events(first)
    return [list(islice(source, BATCH)) for _ in range(records // BATCH)]


def in_process(folder: Path, dsn: str, records: int, turns: int) -> tuple[list[float], list[float]]:
    """Records a second of the library's append and of the door, turn by turn."""
    appends, admissions = [], []
    with open_pool(dsn) as pool:
        plain = PostgresLog.create(pool, "plain", 4, "payload.customer_id")
        traffic = PostgresLog.create(pool, "door", 4, "payload.customer_id")
        declared = profile("ingress", folder)
        class_map = class_map_in_force(declared, profile_pack(declared))
        door = open_door(pool, traffic, None, ObjectStore(str(folder / "objects")), PINS, class_map)
        for turn in range(turns):
            of_turn = batches(turn * records, records)
            began = time.perf_counter()
            for batch in of_turn:
                plain.append(batch)
            appends.append(records / (time.perf_counter() - began))
            began = time.perf_counter()
            for batch in of_turn:
                door.admit(batch, "bench")
            admissions.append(records / (time.perf_counter() - began))
    return appends, admissions


@contextmanager
def service(declared: Profile, folder: Path, dsn: str) -> Iterator[tuple[str, str]]:
    """`ofp ingress serve` with one worker: its address and a key."""
    path = folder / "profile.yaml"  # JSON is YAML
    path.write_text(declared.model_dump_json(exclude_none=True))
    key, producer = principal("bench", ["events:write"])
    with principals_variable(producer) as variables:
        environment = {**os.environ, "OFP_HOME": str(folder), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": str(path), **variables}
        command = [sys.executable, "-m", "ofp_platform.cli.main", "ingress", "serve", "--port", "0", "--rate", "0"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if "serving at" not in line:
                    raise SystemExit(f"the door did not start: {line}")
                yield line.partition("serving at ")[2].strip(), key
            finally:
                process.terminate()


def warm(address: str, key: str) -> None:
    """Send one event."""
    with EventSender(address, token=key) as sender:
        sender.send(list(islice(events(5 * 10**7), 1)))


def with_client(address: str, key: str, records: int) -> float:
    """Records a second of the typed client, from two threads: it makes texts, compresses them and reads receipts into models."""
    with EventSender(address, token=key) as sender:
        of_two = batches(2 * 10**7, records)
        began = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(sender.send, of_two))
        return records / (time.perf_counter() - began)


def over_http(address: str, key: str, records: int, senders: int, first: int) -> float:
    """Records a second of so many connections that send texts made before, and wait for the receipts of each."""
    bodies = [b"\n".join(map(orjson.dumps, batch)) for batch in batches(first, records)]
    return uvloop.run(_flood(urlsplit(address), key, bodies, records, senders))


async def _flood(address: SplitResult, key: str, bodies: Sequence[bytes], records: int, senders: int) -> float:
    waiting = iter(bodies)
    began = time.perf_counter()

    async def sender() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1 << 24)
        for body in waiting:
            await _post(reader, writer, key, "application/x-ndjson", body)
        writer.close()

    await asyncio.gather(*(sender() for _ in range(senders)))
    return records / (time.perf_counter() - began)


async def _post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str, content_type: str, body: bytes) -> None:
    head = f"POST /v0/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ncontent-type: {content_type}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not answer.startswith(b"http/1.1 200 "):
        raise SystemExit(f"a batch was not admitted: {answer[:60]!r}")
    await reader.readexactly(int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0]))


def open_loop(address: str, key: str, rate: int, seconds: float, first: int) -> list[float]:
    """Milliseconds of single events at a fixed rate, each from when it was due until its receipt came.

    From few connections of one event loop: a client with a thread for each request takes more of the machine than the door.
    """
    bodies = [orjson.dumps([event]) for event in islice(events(first), int(rate * seconds))]
    gc.collect()
    return uvloop.run(send_at_rate(urlsplit(address), key, bodies, rate, time.perf_counter() + 0.1))


async def send_at_rate(address: SplitResult, key: str, bodies: Sequence[bytes], rate: int, began: float) -> list[float]:
    """Milliseconds of requests at a fixed rate from `began` on (of the performance counter), each from when it was due."""
    took = [0.0] * len(bodies)
    waiting: asyncio.Queue[int | None] = asyncio.Queue()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while (number := await waiting.get()) is not None:
            await _post(reader, writer, key, "application/json", bodies[number])
            took[number] = (time.perf_counter() - began - number / rate) * 1e3
        writer.close()

    connections = [asyncio.create_task(connection()) for _ in range(_CONNECTIONS)]
    for number in range(len(bodies)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        waiting.put_nowait(number)
    for _ in connections:
        waiting.put_nowait(None)
    await asyncio.gather(*connections)
    return took


def servable(declared: Profile, dsn: str, address: str, key: str, rate: int, seconds: float) -> list[float]:
    """Milliseconds from the sending of a small batch until the basis of the live projection has it, a projector beside it."""
    stop = threading.Event()
    took: list[float] = []
    with Plane.open(declared, dsn, max_connections=6) as plane:
        row = plane.ensure_live()
        projector = plane.projector(row)

        def project() -> None:
            while not stop.is_set():
                if projector.apply_available(max_records=2_000) is None:
                    plane.log.wait(plane.row(row.projection_id).basis, 0.05)

        driver = threading.Thread(target=project)
        driver.start()
        size, source = 20, events(4 * 10**7)
        with EventSender(address, token=key) as sender:
            began = time.perf_counter()
            for turn in range(int(rate * seconds / size)):
                time.sleep(max(0.0, began + turn * size / rate - time.perf_counter()))
                sent_at = time.perf_counter()
                answer = sender.send(list(islice(source, size)))
                ends: Mapping[str, int] = _ends(answer.receipts)
                while not _has(plane.row(row.projection_id).basis.by_partition(), ends):
                    time.sleep(0.0005)
                took.append((time.perf_counter() - sent_at) * 1e3)
        stop.set()
        driver.join()
    return took


def _ends(receipts: Sequence[Any]) -> dict[str, int]:
    ends: dict[str, int] = {}
    for receipt in receipts:
        ends[receipt.position.partition_id] = max(ends.get(receipt.position.partition_id, 0), int(receipt.position.offset) + 1)
    return ends


def _has(parts: Mapping[str, Any], ends: Mapping[str, int]) -> bool:
    return all(name in parts and int(parts[name].offset) >= end for name, end in ends.items())


def p99(milliseconds: Sequence[float]) -> float:
    """Of so many."""
    return quantiles(milliseconds, n=100)[98]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=50_000, help="of a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of an open loop")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dsn = fresh_database(folder, "ingress")
        declared = profile("ingress", folder)
        try:
            appends, admissions = in_process(folder, dsn, arguments.records, arguments.turns)
            with service(declared, folder, dsn) as (address, key):
                warm(address, key)  # it opens its door, and loads what it needs
                alone = over_http(address, key, arguments.records, 1, 10**7)
                of_two = over_http(address, key, arguments.records, 2, 11 * 10**6)
                typed = with_client(address, key, arguments.records)
                open_loop(address, key, 500, arguments.seconds / 2, 6 * 10**7)  # connections, plans, pages of new indexes
                singles = open_loop(address, key, 500, arguments.seconds, 3 * 10**7)
                fresh = servable(declared, dsn, address, key, 1_000, arguments.seconds)
        finally:
            stop_embedded(folder / "postgres")
    ratio = median(admissions) / median(appends)
    single_p99, fresh_p99 = p99(singles), p99(fresh)
    rows = [
        Row("the library's append, batches of 1,000 envelopes, one thread, durable", f"{median(appends):,.0f}/s"),
        Row("the door: the same with identity and receipt of each", f"{median(admissions):,.0f}/s"),
        Row("the door over the library's append, same run", f"{ratio:.2f}x", f">= {AIM_RATIO:g}x", ratio >= AIM_RATIO),
        Row("over HTTP, one worker, one sender of ready texts", f"{alone:,.0f}/s"),
        Row("over HTTP, one worker, two senders of ready texts", f"{of_two:,.0f}/s", f">= {AIM_RATE:,}/s", of_two >= AIM_RATE),
        Row("over HTTP, one worker, the typed client from two threads", f"{typed:,.0f}/s"),
        Row("single events over HTTP at 500/s, open loop, p50", f"{median(singles):.1f} ms"),
        Row(
            "single events over HTTP at 500/s, open loop, p99",
            f"{single_p99:.1f} ms",
            f"<= {AIM_SINGLE_MS:g} ms",
            single_p99 <= AIM_SINGLE_MS,
        ),
        Row("from sending to servable at 1,000/s, batches of 20, p50", f"{median(fresh):.1f} ms"),
        Row(
            "from sending to servable at 1,000/s, batches of 20, p99",
            f"{fresh_p99:.1f} ms",
            f"<= {AIM_SERVABLE_MS:g} ms",
            fresh_p99 <= AIM_SERVABLE_MS,
        ),
    ]
    figures = Figures(
        suite="ingress",
        kind="bench",
        title="Ingress",
        rows=tuple(rows),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw={"appends": appends, "admissions": admissions, "singles": singles, "servable": fresh},
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
