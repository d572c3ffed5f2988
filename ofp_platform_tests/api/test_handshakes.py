"""Connections that never finish a TLS handshake, against a real server."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from ofp_platform.api.tls import Tls
from ofp_platform.cli.services.certificates import Authority
from ofp_platform.client import ClientTls
from ofp_platform_tests.api.test_tls import answers, running

HANDSHAKES = 16


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ClientTls]]:
    authority = Authority(tmp_path_factory.mktemp("tls"), "authority")
    with running(Tls(*authority.give("localhost", "127.0.0.1")), OFP_TEST_HANDSHAKES=str(HANDSHAKES)) as address:
        yield address, ClientTls(ca=authority.root)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def connect(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(address)), timeout=20)


def listener(address: str) -> psutil.Process:
    """The process that listens at the address, of those that this one started."""
    for child in psutil.Process().children():
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port_of(address) for one in child.net_connections()):
            return child
    raise AssertionError(f"no child of this process listens at {address}")


def ends(sock: socket.socket) -> bool:
    """Whether the server ended the connection, before this gives up waiting."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("first_bytes", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_handshake_that_is_never_finished_ends_in_time(service: tuple[str, ClientTls], first_bytes: bytes) -> None:
    address, tls = service
    with connect(address) as sock:
        sock.sendall(first_bytes)
        assert ends(sock)
        assert answers(address, tls)


def test_half_open_handshakes_displace_themselves_and_nobody_who_asks(service: tuple[str, ClientTls]) -> None:
    address, tls = service
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(address)) for _ in range(5 * HANDSHAKES)]
        assert answers(address, tls)
        assert all(ends(sock) for sock in socks[: 4 * HANDSHAKES])
        assert answers(address, tls)


def test_many_who_ask_at_once_are_answered(service: tuple[str, ClientTls]) -> None:
    address, tls = service
    assert all(answers(address, tls) for _ in range(2 * HANDSHAKES))


def test_a_stop_does_not_wait_for_handshakes(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    with running(Tls(*authority.give("localhost", "127.0.0.1"))) as address, connect(address) as sock:
        assert answers(address, ClientTls(ca=authority.root))
        owner = listener(address)
        owner.send_signal(signal.SIGTERM)
        assert ends(sock)
        assert owner.wait(20) == 0
