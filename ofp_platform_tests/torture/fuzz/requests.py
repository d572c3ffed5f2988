"""Requests that are almost right: valid ones, mutated in their fields, their bytes, their route, method and headers."""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.keys import KEY

FEATURES = "/v0/get_features"
INTENTS = "/v0/build_intents"
PATHS = ("/health", "/metrics", "/openapi.json", "/docs", "/v0/feature_groups")
_METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "POST", "PROPFIND", "get", "X-" + "Y" * 40)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, -(2**63), 2**64, 10**400, 0.1, -0.0, 1e308, "", " ", "0", "null", "NaN",
    [], {}, [[]], [None], {"": None}, "\x00", "\u202e", "\U0001f600", "e\u0301", "x" * 129, "x" * 5_000, "4111111111111111",
    "2018-04-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2018-02-30T00:00:00Z", "2018-04-01T00:00:60Z",
    "2018-04-01T00:00:00+01:00", "2018-04-01T00:00:00.1234567Z", "+292277026596-12-04T15:30:07Z", "\u0662018-04-01T00:00:00Z",
)  # fmt: skip
_RAW = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-", b"01", b"0x1", b"'x'", b'"\\ud800"', b'"\\udfff\\ud800"', b'"\xff\xfe"',
    b'"\\u0000"', b'"\xed\xa0\x80"', b'"\x00"', b"\xef\xbb\xbf{}", b"{" * 300, b"[" * 5_000, b'{"a":' * 2_000, b"}" * 9, b"",
    b"9" * 5_000, b'"' + b"\xf0\x9f\x98\x80" * 500 + b'"', b"undefined", b"/* */", b"1,",
)  # fmt: skip
_HEADERS = (
    b"content-type: text/plain", b"content-type: application/x-www-form-urlencoded", b"content-type: multipart/form-data",
    b"content-type: application/json; charset=utf-16", b"content-type:", b"accept: image/png", b"authorization: Bearer x",
    b"authorization: \xff\xfe", b"x-request-id: " + b"i" * 200, b"x-request-id: \xc3\xa9", b"x-request-id: a b", b"cookie: a=b",
    b"x-forwarded-for: 1.2.3.4", b"range: bytes=0-1", b"if-none-match: *", b"te: trailers", b"host: [::1", b"host: a\xffb",
    b"accept-encoding: gzip", b"upgrade: h2c", b"upgrade: websocket\r\nconnection: upgrade", b"origin: null",
)  # fmt: skip
_QUERIES = ("", "?", "?a=b", "?" + "a=1&" * 50, "?%ff%00", "?q=%F0%9F%98%80", "?//../..")
_PATHS = (
    "/", "//", "/v0", "/v0/", "/v0/get_features/", "/v0//get_features", "/v0/%67et_features", "/../etc/passwd", "/%00", "/%ff",
    "/v0/snapshots/", "/v0/build_runs/", "/v1/get_features", "*", "/" + "a" * 3_000, "/%E2%80%AE",
)  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """One request. `expected`: the hash that its answer must have; None where anything but a failure is right."""

    data: bytes
    head_only: bool = False
    expected: str | None = None
    body: bytes | None = None


def http(method: str, path: str, headers: Sequence[bytes] = (), body: bytes | None = None) -> bytes:
    """The bytes of a well-framed request."""
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1")]
    if not any(header.startswith(b"host:") for header in headers):
        lines.append(b"host: localhost")
    if not any(header.startswith(b"authorization:") for header in headers):
        lines.append(b"authorization: Bearer " + KEY.encode())
    lines += headers
    if body is not None:
        if not any(header.startswith(b"content-type:") for header in headers):
            lines.append(b"content-type: application/json")
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


class Requests:
    """An endless, seeded supply. `valid`: bodies of get_features with the hashes of their answers."""

    def __init__(self, seed: int, valid: Sequence[tuple[bytes, str]], intent: dict[str, Any], variants: int = 20_000) -> None:
        self._chance = random.Random(seed)
        self._valid = valid
        self._right = [http("POST", FEATURES, (), body) for body, _ in valid]
        self._hashes = [named for _, named in valid]
        self._intent = intent
        self._fields = [self._mutated(orjson.loads(self._chance.choice(valid)[0])) for _ in range(variants)]

    def __iter__(self) -> Iterator[Sent]:
        chance, valid = self._chance, self._valid
        while True:
            kind = chance.random()
            if kind < 0.05:
                place = chance.randrange(len(valid))
                yield Sent(self._right[place], expected=self._hashes[place], body=valid[place][0])
            elif kind < 0.45:
                # a variant made before, some of its bytes changed anew: no two are the same, and all are made fast
                body = self._scrambled(chance.choice(self._fields)) if chance.random() < 0.6 else chance.choice(self._fields)
                yield Sent(http("POST", FEATURES, (), body), body=body)
            elif kind < 0.65:
                body = self._mutated(orjson.loads(chance.choice(valid)[0]))
                yield Sent(http("POST", FEATURES, (), body), body=body)
            elif kind < 0.75:
                yield Sent(http("POST", INTENTS, (), self._mutated(copy.deepcopy(self._intent))))
            else:
                yield self._elsewhere()

    def _elsewhere(self) -> Sent:
        """Another route, method, header or encoding."""
        chance = self._chance
        digits = "".join(chance.choices("0123456789abcdefABG-%", k=chance.choice((1, 8, 63, 64, 65, 500))))
        hashed = chance.choice((chance.choice(self._hashes), digits, digits.lower()))
        path = chance.choice(
            (FEATURES, INTENTS, *PATHS, f"/v0/snapshots/{hashed}", f"/v0/build_runs/{hashed}", chance.choice(_PATHS))
        )
        path += chance.choice(_QUERIES)
        method = chance.choice(_METHODS) if chance.random() < 0.5 else "GET"
        headers = chance.sample(_HEADERS, chance.choice((0, 1, 1, 2)))
        body: bytes | None = None
        if chance.random() < 0.5:
            body = self._valid[chance.randrange(len(self._valid))][0]
            if chance.random() < 0.3:
                body = gzip.compress(body, 1, mtime=0)
                headers.append(b"content-encoding: gzip")
            elif chance.random() < 0.3:
                body = body.decode().encode(chance.choice(("utf-16", "utf-32", "utf-7")))
        return Sent(http(method, path, headers, body), head_only=method == "HEAD")

    def _mutated(self, content: dict[str, Any]) -> bytes:
        """The JSON of an object after a few changes to its fields."""
        chance = self._chance
        for _ in range(chance.choice((1, 1, 2, 4))):
            holder, name = self._somewhere(content)
            change = chance.randrange(7)
            if change == 0:
                del holder[name]
            elif change == 1 and isinstance(holder, dict):
                holder[chance.choice(("extra", "", "__proto__", name + " ", "é", "k" * 300))] = self._value()
            elif change == 2:
                holder[name] = [holder[name]] * chance.choice((0, 1, 2, 150))
            elif change == 3 and isinstance(holder[name], str):
                text = holder[name]
                place = chance.randrange(len(text) + 1)
                holder[name] = (
                    text[:place] + chance.choice(("", "\x00", "9", " ", "ü", "Z", "\U0001f600", "a" * 200)) + text[place:]
                )
            elif change == 4:
                nested: Any = self._value()
                for _ in range(chance.choice((2, 20, 120))):
                    nested = {"a": nested} if chance.random() < 0.5 else [nested]
                holder[name] = nested
            else:
                holder[name] = self._value()
            if not content:
                break
        try:
            return json.dumps(content, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
        except RecursionError:
            return b"[" * 2_000

    def _value(self) -> Any:
        # a copy: the next change may be made inside of it
        return copy.deepcopy(self._chance.choice(_VALUES))

    def _somewhere(self, content: Any) -> tuple[Any, Any]:
        """A container inside the content, not empty, and a place in it."""
        chance = self._chance
        while True:
            name = chance.choice(list(content)) if isinstance(content, dict) else chance.randrange(len(content))
            below = content[name]
            if isinstance(below, dict | list) and below and chance.random() < 0.7:
                content = below
            else:
                return content, name

    def _scrambled(self, body: bytes) -> bytes:
        """Bytes changed without regard to what they mean."""
        chance = self._chance
        if not body:
            return b"\x00"
        place = chance.randrange(len(body))
        change = chance.randrange(6)
        if change == 0:
            return body[:place]
        if change == 1:
            return body[:place] + bytes([chance.randrange(256)]) + body[place + 1 :]
        if change == 2:
            return body[:place] + chance.choice(_RAW) + body[place:]
        if change == 3:
            colon = body.find(b":", place)
            return body[: colon + 1] + chance.choice(_RAW) + body[min(len(body), colon + chance.choice((1, 3, 20))) :]
        if change == 4:
            # the same field twice
            return body[:-1] + b"," + body[1:] if body.startswith(b"{") else body * 2
        return body[place:] + body[:place]
