"""Fuzz: a million requests that are almost right, or hardly HTTP, against the service."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import uvloop
from starlette.types import ASGIApp

from benchmarks.load import post
from benchmarks.servers import plane_app, service
from benchmarks.world import ACCOUNTS, MERCHANTS, fill, profile, request
from ofp_platform.api.build_examples import intent_example
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.reader import Reader
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.torture.fuzz.client import LIMIT_SECONDS, Seen, shout, talk
from ofp_platform_tests.torture.fuzz.raw import raw_requests
from ofp_platform_tests.torture.fuzz.requests import Requests, Sent
from ofp_platform_tests.torture.own_database import fresh_database
from ofp_platform_tests.torture.process_memory import resident_bytes
from ofp_platform_tests.torture.suite import Run, Suite

REQUESTS, RAW_SHARE = 1_000_000, 0.25
EVENTS = 20_000
QUESTIONS = 300
GROWTH = 200 << 20
"""Bytes that the service may grow by after a tenth of the requests: what it caches, and what waits to be logged, is bounded."""
CACHE = 16 << 20
_COMPARED = 0.01


@dataclass
class Comparison:
    """A share of the answers held against the library: the same hash, or the same refusal."""

    reader: Reader
    chance: random.Random
    compared: int = 0
    different: list[str] = field(default_factory=list)
    bare: int = 0

    def look(self, sent: Sent, status: int, answer: bytes) -> None:
        """See one answer."""
        if status >= 400 and not sent.head_only and b'"kind":"error_response"' not in answer:
            self.bare += 1  # refused below the application, as no HTTP
        if sent.body is None or status not in (200, 400, 404) or self.chance.random() >= _COMPARED:
            return
        self.compared += 1
        try:
            expected = self.reader.answer(sent.body).hash
        except ContractError as refusal:
            expected = refusal.reason.value
        if expected.encode() not in answer:
            self.different.append(f"{status}, the library says {expected}: {sent.body[:300]!r}")


def fuzzed_app(chosen: Profile, dsn: str) -> ASGIApp:
    """The service under test."""
    return plane_app(chosen, dsn, CACHE)


def questions(plane: Plane, seed: int) -> list[tuple[bytes, str]]:
    """Valid requests and the hashes of their answers."""
    row = plane.live()
    assert row is not None
    assert row.watermark is not None
    chance, reader = random.Random(seed), plane.reader(row)
    bodies = [
        request(
            row.watermark - chance.randrange(3_600) * 1_000_000,
            f"customer-{chance.randrange(ACCOUNTS):07d}",
            f"terminal-{chance.randrange(MERCHANTS):07d}",
        )
        for _ in range(QUESTIONS)
    ]
    return [(body, reader.answer(body).hash) for body in bodies]


def torture(run: Run) -> None:
    """The world, the service, the requests."""
    with world(run) as (port, process, valid, comparison):
        fuzz(run, port, process, valid, comparison)


@contextmanager
def world(run: Run) -> Iterator[tuple[int, int, list[tuple[bytes, str]], Comparison]]:
    """A projected log and the service on it: its port and process, valid requests, and the library beside it."""
    dsn = fresh_database(run.dsn, f"fuzz_{run.seed:x}")
    chosen = profile("fuzz", run.folder)
    with Plane.open(chosen, dsn) as plane:
        fill(plane, run.count(EVENTS, least=1_000), seed=run.seed)
        row = plane.ensure_live()
        projector = plane.projector(row)
        while projector.apply_available(max_records=20_000) is not None:
            pass
        comparison = Comparison(plane.reader(plane.row(row.projection_id)), random.Random(run.seed))
        with service(partial(fuzzed_app, chosen, dsn)) as (port, process):
            yield port, process, questions(plane, run.seed), comparison


def fuzz(run: Run, port: int, process: int, valid: list[tuple[bytes, str]], comparison: Comparison) -> None:
    """All requests, in ten parts of each kind at the same time."""
    talked, shouted = Seen(), Seen()
    total = run.count(REQUESTS, least=100)
    raw = round(total * RAW_SHARE)
    intent: dict[str, Any] = intent_example()
    almost = iter(Requests(run.seed, valid, intent, variants=min(20_000, total)))
    starts = [post("/v0/get_features", body) for body, _ in valid] + [sent.data for sent in islice(almost, 200)]
    hardly = raw_requests(run.seed, starts)

    async def both(part: int, of: int) -> None:
        counts = [whole * (part + 1) // of - whole * part // of for whole in (total - raw, raw)]
        await asyncio.gather(
            talk(port, almost, counts[0], talked, comparison.look),
            shout(port, hardly, counts[1], shouted, min(200, 1 + raw // 10)),
        )

    memory = []
    for part in range(10):
        uvloop.run(both(part, 10))
        memory.append(resident_bytes(process))
    wrong = [*talked.wrong, *comparison.different]
    failures, hangs = talked.failures + shouted.failures, talked.hangs + shouted.hangs
    run.claim("requests, answers of 5xx", tried=talked.sent + shouted.sent, failed=len(failures), aim="0")
    reasons = Counter(reason_of(failure) for failure in failures)
    for reason, count in reasons.most_common(5):
        run.fact(f"... {reason}", f"{count:,}")
    run.claim("requests, hangs", tried=talked.sent + shouted.sent, failed=len(hangs), aim="0")
    longest = max(talked.slowest_seconds, shouted.slowest_seconds)
    run.fact(
        "every connection was answered or closed within", f"{longest:.1f} s", aim=f"<= {LIMIT_SECONDS:g} s", reached=not hangs
    )
    run.fact("of these almost right, over kept connections", _counts(talked))
    run.fact("of these hardly HTTP, a connection each", _counts(shouted))
    run.claim(
        "valid requests among them: the same hash", tried=talked.right + len(talked.wrong), failed=len(talked.wrong), aim="0"
    )
    run.claim("answers held against the library", tried=comparison.compared, failed=len(comparison.different), aim="0")
    grown = sum(memory[-1].values()) - sum(memory[0].values())
    alive = bool(memory[-1]) and memory[-1].keys() == memory[0].keys()
    run.fact("the service is the same processes as before", "yes" if alive else "no", aim="yes", reached=alive)
    seen = f"{grown / 2**20:+,.0f} MiB to {sum(memory[-1].values()) / 2**20:,.0f} MiB"
    run.fact("memory after the first tenth", seen, aim=f"<= +{GROWTH >> 20} MiB", reached=grown <= GROWTH)
    run.raw["fuzz"] = {
        "failures": failures[:50],
        "reasons": dict(reasons),
        "hangs": hangs[:50],
        "wrong": wrong[:50],
        "refused_as_no_http": comparison.bare,
        "memory": [sum(one.values()) for one in memory],
    }


def reason_of(failure: str) -> str:
    """What the service gave as its reason, or the first words of the answer where it gave none."""
    return failure.partition('"reason":"')[2].partition('"')[0] or failure[:40]


def _counts(seen: Seen) -> str:
    classes = {name: sum(n for status, n in seen.statuses.items() if status // 100 == name) for name in (2, 4)}
    return f"{classes[2]:,} 2xx, {classes[4]:,} 4xx, {seen.closed:,} closed"


SUITE = Suite("fuzz", "Fuzz: requests that are almost right or hardly HTTP", torture)
