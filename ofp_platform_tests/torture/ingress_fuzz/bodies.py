"""Batches for the door: events with something wrong, texts that are hardly JSON, bodies that are cut, doubled or damaged."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson
import pyarrow as pa

NDJSON, ARRAY = "application/x-ndjson", "application/json"
_WORDS: list[Any] = [
    None, True, False, 0, -1, 2**53, 2**64, 10**400, 1.5, 1e308, "", " ", "é", "\u0000", "4111111111111111",
    "4111 1111 1111 1111", "2099-01-01T00:00:00Z", "2026-01-01T00:00:00.000000Z",
    "2026-12-31T23:59:60Z", "0001-01-01T00:00:00Z", "yesterday",
    [], {}, [[]], {"a": {"b": [1, {"c": None}]}}, "x" * 300, "v1", "v9", "transfer", "identity_link", "card_payment", "A" * 70,
]  # fmt: skip
_TEXTS = [
    b"", b" ", b"null", b"[]", b"{}", b"7", b'"text"', b"{", b'{"a":1', b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a":Infinity}',
    b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"a":"\\ud800"}', b'{"a":1e999}', b"[" * 2_000, b'{"a":' * 300, b"\x00",
    b'{"a":1}{"b":2}', b"// no", b"a,b,c",
]  # fmt: skip


@dataclass(frozen=True)
class FuzzedBatch:
    """A request to the door. `records`: how many records it holds as its sender sees it; None: as a whole it is no batch."""

    body: bytes
    content_type: str
    encoding: str | None
    key: str | None
    records: int | None


class FuzzedBatches:
    """An endless source; everything random in it comes from the seed."""

    def __init__(self, seed: int, pins: dict[str, Any], most_records: int) -> None:
        self._chance = Random(seed)
        self._pins = pins
        self._most = most_records
        self._number = self._batches = 0
        self._sent: list[FuzzedBatch] = []

    def __iter__(self) -> Iterator[FuzzedBatch]:
        while True:
            yield self._next()

    def _next(self) -> FuzzedBatch:
        chance = self._chance
        if self._sent and chance.random() < 0.03:
            return chance.choice(self._sent)  # again, as it was
        texts = [self._text() for _ in range(1 + int(chance.paretovariate(0.6)) % self._most)]
        is_array = chance.random() < 0.3
        if is_array:
            texts = [text for text in texts if _is_json(text)]
            body, records = b"[" + b",".join(texts) + b"]", len(texts)
        else:
            records = sum(bool(line.strip()) for text in texts for line in text.split(b"\n"))
            body = b"\n".join(texts) + b"\n" * chance.randrange(3)
        encoding = chance.choice([None, None, "gzip", "zstd"])
        packed = _packed(body, encoding)
        kind = ARRAY if is_array else NDJSON
        self._batches += 1
        key = f"k-{self._batches}" if chance.random() < 0.3 else None
        batch = FuzzedBatch(packed, kind, encoding, key, records or None)
        if chance.random() < 0.06:
            batch = self._damaged(batch)
        elif chance.random() < 0.2:
            self._sent = [*self._sent[-50:], batch]
        return batch

    def _damaged(self, batch: FuzzedBatch) -> FuzzedBatch:
        """A body that is none any more, or may be."""
        chance, body = self._chance, bytearray(batch.body)
        match chance.randrange(5):
            case 0 if batch.encoding is not None or batch.content_type == ARRAY:
                body = body[: chance.randrange(len(body))]
            case 1 if batch.encoding is not None:
                body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
            case 2:
                return FuzzedBatch(batch.body, batch.content_type, chance.choice(["br", "gzip, zstd", "\u00e9"]), batch.key, None)
            case 3:
                return FuzzedBatch(batch.body, chance.choice(["text/plain", "", "application/xml"]), None, batch.key, None)
            case _:
                return FuzzedBatch(
                    batch.body, batch.content_type, batch.encoding, chance.choice(["", "\u00e9", "x" * 200, "a b"]), None
                )
        return FuzzedBatch(bytes(body), batch.content_type, batch.encoding, None, None)

    def _event(self) -> dict[str, Any]:
        chance = self._chance
        self._number += 1
        number = self._number if chance.random() < 0.9 else chance.randrange(self._number)
        payload = {"account_id": f"a-{number % 50}", "amount_minor": number % 1_000, "counterparty_id": f"p-{number % 7}"}
        head = {"event_id": f"e-{number}", "event_type": "transfer", "schema_version": "v1", "ts_utc": "2026-01-01T00:00:00Z"}
        return {**head, **self._pins, "payload": payload}

    def _text(self) -> bytes:
        chance = self._chance
        kind = chance.random()
        if kind < 0.6:
            return orjson.dumps(self._event())
        if kind < 0.9:
            event = self._event()
            for _ in range(chance.randint(1, 2)):
                _CHANGES[chance.randrange(len(_CHANGES))](event, chance)
            return json.dumps(event).encode()
        if kind < 0.95:
            return chance.choice(_TEXTS)
        text = bytearray(orjson.dumps(self._event()))
        for _ in range(chance.randint(1, 3)):
            text[chance.randrange(len(text))] = chance.randrange(256)
        return bytes(text)


def _word(chance: Random) -> Any:
    return deepcopy(chance.choice(_WORDS))  # it may be changed, too


def _put(event: dict[str, Any], chance: Random) -> None:
    event[chance.choice(list(event) or ["a"])] = _word(chance)


def _drop(event: dict[str, Any], chance: Random) -> None:
    if event:
        del event[chance.choice(list(event))]


def _add(event: dict[str, Any], chance: Random) -> None:
    names = ["surplus", "amends", "emitted_at_utc", "platform_run_id", "scenario_run_id", "4111111111111111"]
    event[chance.choice(names)] = _word(chance)


def _put_in_payload(event: dict[str, Any], chance: Random) -> None:
    if isinstance(event.get("payload"), dict):
        event["payload"][chance.choice(["account_id", "amount_minor", "é", "4111111111111111"])] = _word(chance)


_CHANGES: list[Callable[[dict[str, Any], Random], None]] = [_put, _put, _drop, _add, _put_in_payload, _put_in_payload]


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return b'"a":1,"a"' not in text  # read as a whole, one such text spoils an array


def _packed(body: bytes, encoding: str | None) -> bytes:
    if encoding == "gzip":
        return gzip.compress(body, 1, mtime=0)  # the time is no part of the batch
    if encoding == "zstd":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(body)
        return bytes(sink.getvalue())
    return body
