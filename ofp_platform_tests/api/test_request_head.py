"""Hosts, origins and types of bodies."""

from __future__ import annotations

import pytest

from ofp_platform.api.request_head import OwnHosts, check_head
from ofp_platform.vocabulary.errors import ContractError, Reason

SERVER = ("127.0.0.1", 8000)
JSON = (b"content-type", b"application/json")


def reason(*headers: tuple[bytes, bytes], names: tuple[str, ...] = (), server: tuple[str, int] | None = SERVER) -> Reason | None:
    try:
        check_head(list(headers), server, OwnHosts(names), has_body=True)
    except ContractError as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    "host",
    [
        b"localhost",
        b"LOCALHOST:8000",
        b"127.0.0.1:9",
        b"[::1]:8000",
        b"[::1]",
        b"plane.internal",
        b"Plane.Internal:443",
        b"10.0.0.7",
    ],
)
def test_own_hosts(host: bytes) -> None:
    hosts = OwnHosts(["plane.internal"])
    for _ in range(2):
        assert hosts.holds(host, ("10.0.0.7", 8000))


@pytest.mark.parametrize(
    "host",
    [
        None,
        b"",
        b"evil.example",
        b"evil.example:8000",
        b"localhost.evil.example",
        b"localhost@evil.example",
        b"localhost:8000.evil.example",
        b"localhost:8000/evil",
        b"127.0.0.1.evil.example",
        b"[::1].evil.example",
        b"[::1",
        b"10.0.0.8",
        b"0.0.0.0",
        b"localhost ",
        b"\xff",
    ],
)
def test_hosts_of_others(host: bytes | None) -> None:
    hosts = OwnHosts(["plane.internal"])
    for _ in range(2):
        assert not hosts.holds(host, ("10.0.0.7", 8000))


def test_known_hosts_are_bounded() -> None:
    hosts = OwnHosts()
    for port in range(1_000):
        assert hosts.holds(b"localhost:%d" % port, None)
    assert len(hosts._known_hosts) <= 256


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"host", b"localhost"), JSON], None),
        ([(b"host", b"localhost"), (b"content-type", b"Application/JSON; charset=utf-8")], None),
        ([(b"host", b"localhost:8000"), JSON, (b"origin", b"http://localhost:8000")], None),
        ([(b"host", b"localhost:8000"), JSON, (b"origin", b"https://localhost:8000")], None),
        ([JSON], Reason.FOREIGN_HOST),
        ([(b"host", b"evil.example"), JSON], Reason.FOREIGN_HOST),
        ([(b"host", b"evil.example"), JSON, (b"origin", b"http://evil.example")], Reason.FOREIGN_HOST),
        ([(b"host", b"localhost:8000"), JSON, (b"origin", b"http://localhost:3000")], Reason.FOREIGN_ORIGIN),
        ([(b"host", b"localhost:8000"), JSON, (b"origin", b"http://localhost")], Reason.FOREIGN_ORIGIN),
        ([(b"host", b"localhost:8000"), JSON, (b"origin", b"null")], Reason.FOREIGN_ORIGIN),
        ([(b"host", b"localhost:8000"), JSON, (b"origin", b"")], Reason.FOREIGN_ORIGIN),
        ([(b"host", b"localhost"), (b"content-type", b"text/plain")], Reason.UNSUPPORTED_MEDIA_TYPE),
        ([(b"host", b"localhost"), (b"content-type", b"text/plain; application/json")], Reason.UNSUPPORTED_MEDIA_TYPE),
        ([(b"host", b"localhost"), (b"content-type", b"application/jsonp")], Reason.UNSUPPORTED_MEDIA_TYPE),
        ([(b"host", b"localhost")], Reason.UNSUPPORTED_MEDIA_TYPE),
        ([(b"host", b"localhost"), (b"host", b"localhost"), JSON], Reason.INVALID_FIELD),
        ([(b"host", b"localhost"), JSON, (b"content-type", b"text/plain")], Reason.INVALID_FIELD),
        ([(b"host", b"localhost"), JSON, (b"authorization", b"a"), (b"authorization", b"b")], Reason.INVALID_FIELD),
    ],
)
def test_heads(headers: list[tuple[bytes, bytes]], expected: Reason | None) -> None:
    assert reason(*headers) is expected
