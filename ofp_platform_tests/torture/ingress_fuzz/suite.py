"""Fuzz of ingress: a million records, and the batches around them, against the HTTP door; not one without its receipt."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

import orjson
import uvloop

from benchmarks.bench_ingress import service
from benchmarks.world import profile
from ofp_platform.ingress.class_map import class_map_in_force
from ofp_platform.ingress.reconciliation import reconcile_ingress
from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform_tests.torture.ingress_fuzz.bodies import FuzzedBatch, FuzzedBatches
from ofp_platform_tests.torture.own_database import fresh_database
from ofp_platform_tests.torture.suite import Run, Suite

RECORDS = 1_000_000
_MOST_RECORDS = 1_000
_CONNECTIONS = 4
_LIMIT_SECONDS = 30.0
_STATUSES = frozenset({200, 400, 401, 403, 404, 408, 409, 413, 415, 421, 429, 503})


@dataclass
class Tally:
    """What came of the requests. `receipts`: of answers that were no repetition."""

    requests: int = 0
    records: int = 0
    receipts: int = 0
    refused: int = 0
    repeated: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)

    def look(self, batch: FuzzedBatch, status: int, body: bytes) -> None:
        """See one answer."""
        self.requests += 1
        if status not in _STATUSES or (status != 200 and b'"kind":"error_response"' not in body) or b'"INTERNAL"' in body:
            self.faults.append(f"{status} {body[:200]!r} for {batch.body[:200]!r}")
            return
        if status != 200:
            self.refused += 1
            self.reasons[orjson.loads(body)["reason"]] += 1
            if batch.records is not None and status != 429 and batch.encoding is None and status not in (400, 413):
                self.lost.append(f"a batch of {batch.records} was refused as a whole: {body[:200]!r}")
            return
        answer = orjson.loads(body)
        receipts = answer["receipts"]
        if [receipt["place"] for receipt in receipts] != list(range(len(receipts))):
            self.lost.append("receipts are not one for each place")
        if batch.records is not None:
            self.records += batch.records
            if len(receipts) != batch.records:
                self.lost.append(f"{len(receipts)} receipts for {batch.records} records: {batch.body[:200]!r}")
        if answer["repeated"]:
            self.repeated += 1
            return
        self.receipts += len(receipts)
        self.outcomes.update(receipt.get("reason", receipt["outcome"]) for receipt in receipts)


def torture(run: Run) -> None:
    """See the rows."""
    dsn = fresh_database(run.dsn, f"ingress_fuzz_{run.seed:x}")
    declared = profile("ingress-fuzz", run.folder).model_copy(
        update={"pack": "mule_rings", "partition_key": "payload.account_id", "context_stream": "fuzz-links"}
    )
    tally = Tally()
    source = iter(FuzzedBatches(run.seed, declared.context_pins.wire(), _MOST_RECORDS))
    with service(declared, run.folder, dsn) as (address, key):
        uvloop.run(_send(urlsplit(address), key, source, run.count(RECORDS, 2_000), tally))
    with Plane.open(declared, dsn) as plane, plane.pool.connection() as connection:
        class_map = class_map_in_force(declared, profile_pack(declared))
        result = reconcile_ingress(connection, declared.context_pins, class_map, plane.log, plane.context_log(create=True))
    wanted = run.count(RECORDS, 2_000)
    sent_records = tally.records
    run.claim(
        "requests, answers of 5xx but the contract's, and answers of no contract",
        tried=tally.requests,
        failed=len(tally.faults),
        aim="0",
    )
    run.claim("requests, hangs", tried=tally.requests, failed=len(tally.hangs), aim="0")
    run.fact("records in batches that were answered", f"{sent_records:,}", aim=f">= {wanted:,}", reached=sent_records >= wanted)
    run.claim("records, receipts lost or doubled", tried=sent_records, failed=len(tally.lost), aim="0")
    run.fact(
        "receipts in the store, and in answers",
        f"{result.sent_count:,} and {tally.receipts:,}",
        aim="equal",
        reached=result.sent_count == tally.receipts > 0,
    )
    admitted = tally.outcomes["ADMIT"]
    run.fact(
        "admitted by receipts, and in the log",
        f"{admitted:,} and {result.in_log:,}",
        aim="equal",
        reached=admitted == result.admitted_count == result.in_log > 0,
    )
    run.claim("records held against the log, differences", tried=result.in_log, failed=result.differing, aim="0")
    run.fact("batches refused as a whole; repeated under their key", f"{tally.refused:,}; {tally.repeated:,}")
    seen = ", ".join(f"{name} {count:,}" for name, count in tally.outcomes.most_common())
    run.fact("outcomes and reasons", seen, aim=">= 10 kinds", reached=len(tally.outcomes) >= 10)
    run.raw["faults"] = tally.faults[:20]
    run.raw["lost"] = tally.lost[:20]
    run.raw["refused"] = dict(tally.reasons)
    run.raw["differences"] = result.differences


async def _send(address: SplitResult, key: str, source: Iterator[FuzzedBatch], records: int, tally: Tally) -> None:
    async def connection() -> None:
        while tally.records < records and len(tally.faults) + len(tally.hangs) < 100:
            reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1 << 24)
            try:
                while tally.records < records and len(tally.faults) < 100:
                    batch = next(source)
                    async with asyncio.timeout(_LIMIT_SECONDS):
                        status, body, goes_on = await _ask(reader, writer, key, batch)
                    tally.look(batch, status, body)
                    if not goes_on:
                        break
            except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
                tally.hangs.append(f"{type(error).__name__}: {batch.body[:200]!r}")
            finally:
                writer.close()

    await asyncio.gather(*(connection() for _ in range(_CONNECTIONS)))


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str, batch: FuzzedBatch
) -> tuple[int, bytes, bool]:
    """Status and body of the answer, and whether the connection may carry another request."""
    headers = [("host", "localhost"), ("authorization", f"Bearer {key}"), ("content-length", str(len(batch.body)))]
    headers += [("content-type", batch.content_type)] if batch.content_type else []
    headers += [("content-encoding", batch.encoding)] if batch.encoding is not None else []
    headers += [("idempotency-key", batch.key)] if batch.key is not None else []
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    writer.write(f"POST /v0/events HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + batch.body)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    return int(head.split(b" ", 2)[1]), body, b"connection: close" not in head


SUITE = Suite("ingress_fuzz", "Fuzz of ingress: records and batches that are almost right, and a receipt for each", torture)
