"""The service over TLS: who trusts it, whom it lets connect, and a certificate that is replaced while it runs."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ofp_platform.api.principals import Principal
from ofp_platform.api.tls import CertificateUnusable, CertificateWatch, ClientCertificate, Tls
from ofp_platform.cli.services.certificates import Authority
from ofp_platform.client import ClientTls, OfpClient, RetryPolicy, ServiceUnreachable
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform_tests.api.fake_port import BODY
from ofp_platform_tests.api.keys import KEY, principal, principals_variable
from ofp_platform_tests.api.test_server import QUESTION, _start

ONCE = RetryPolicy(attempts=1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@contextmanager
def running(tls: Tls, *others: Principal, **environ: str) -> Iterator[str]:
    """The address of a server with these files, for these principals beside the one who may do everything."""
    files = [tls.certificate, tls.key, *([] if tls.client_ca is None else [tls.client_ca])]
    with principals_variable(*others) as principals:
        process = _start("127.0.0.1", "0", "1", "good", OFP_TEST_TLS=os.pathsep.join(map(str, files)), **principals, **environ)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("serving at https://127.0.0.1:"), line + process.stdout.read()
            yield line.removeprefix("serving at ").strip()
        finally:
            process.kill()
            process.communicate()


def answers(address: str, tls: ClientTls | None) -> bool:
    """Whether a client of its own, with a connection of its own, gets the answer."""
    try:
        with OfpClient(address, token=lambda: KEY, tls=tls, retries=ONCE) as ofp:
            return ofp.ask(QUESTION).body == BODY
    except ServiceUnreachable:
        return False


def test_only_who_trusts_its_authority_asks_it(authority: Authority, tmp_path: Path) -> None:
    with running(Tls(*authority.give("localhost", "127.0.0.1"))) as address:
        assert answers(address, ClientTls(ca=authority.root))
        assert not answers(address, None)
        assert not answers(address, ClientTls(ca=Authority(tmp_path, "another").root))
        assert not answers(address.replace("https", "http"), None)
        with OfpClient(address, token=KEY, tls=ClientTls(ca=authority.root)) as ofp:
            page = ofp._http.get("/docs").text
    assert address in page
    assert address.replace("https", "http") not in page


def test_a_certificate_of_another_name_is_not_trusted(authority: Authority) -> None:
    with running(Tls(*authority.give("plane.internal"))) as address:
        assert not answers(address, ClientTls(ca=authority.root))


def test_only_who_shows_a_certificate_of_the_authority_connects(authority: Authority, tmp_path: Path) -> None:
    clients, strangers = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    with running(Tls(*authority.give("localhost", "127.0.0.1"), clients.root)) as address:
        assert answers(address, ClientTls(authority.root, *clients.give("scorer")))
        assert not answers(address, ClientTls(authority.root))
        assert not answers(address, ClientTls(authority.root, *strangers.give("scorer")))


def test_a_certificate_is_replaced_while_it_runs(authority: Authority, tmp_path: Path) -> None:
    next_authority = Authority(tmp_path, "next")
    certificate, key = tmp_path / "service.crt", tmp_path / "service.key"

    def put(files: tuple[Path, Path]) -> None:
        for source, target in zip(files, (certificate, key), strict=True):
            shutil.copy(source, f"{target}.new")
            Path(f"{target}.new").replace(target)

    put(authority.give("localhost", "127.0.0.1"))
    with running(Tls(certificate, key)) as address, OfpClient(address, token=KEY, tls=ClientTls(authority.root)) as standing:
        assert standing.ask(QUESTION).body == BODY
        put(next_authority.give("localhost", "127.0.0.1"))
        deadline = time.monotonic() + 15
        while not answers(address, ClientTls(next_authority.root)):
            assert time.monotonic() < deadline
        assert not answers(address, ClientTls(authority.root))
        assert standing.ask(QUESTION).body == BODY  # its connection goes on


def test_plain_bytes_and_broken_handshakes_leave_it_standing(authority: Authority) -> None:
    with running(Tls(*authority.give("localhost", "127.0.0.1"))) as address:
        port = int(address.rpartition(":")[2])
        for data in (b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00" * 500):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                assert b"HTTP/1.1 200" not in b"".join(iter(lambda sock=sock: sock.recv(4_096), b""))  # type: ignore[misc]
        assert answers(address, ClientTls(ca=authority.root))


def test_files_that_are_no_pair_are_named(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.give("a")
    _, other_key = authority.give("b")
    for tls in (
        Tls(certificate, other_key),
        Tls(tmp_path / "none", key),
        Tls(key, certificate),
        Tls(certificate, key, key),
        Tls(certificate, key, tmp_path / "none"),
    ):
        with pytest.raises(CertificateUnusable, match=str(tls.certificate)):
            tls.context()
    Tls(certificate, key, authority.root).context()


def test_a_pair_that_does_not_fit_leaves_the_old_one(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    certificate, key = authority.give("a")
    other_certificate, other_key = authority.give("b")
    watch, context = CertificateWatch(Tls(certificate, key)), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shutil.copy(other_certificate, certificate)
    watch.refresh(context)
    assert "stays the old one" in caplog.text
    caplog.clear()
    shutil.copy(other_key, key)
    watch.refresh(context)
    key.unlink()
    watch.refresh(context)
    assert caplog.text == ""


def test_a_certificate_is_a_principal_and_one_without_is_nobody(authority: Authority, tmp_path: Path) -> None:
    clients = Authority(tmp_path, "clients")
    scorer_key, scorer = principal("scorer", ["features:read"], certificates=["DNS:scorer.bank"])
    _, metrics = principal("metrics", ["metrics"], certificates=["CN:metrics.bank"])
    _, ended = principal("ended", ["features:read"], certificates=["DNS:ended.bank"], expires_at_utc="2020-01-01T00:00:00Z")
    server = Tls(*authority.give("localhost", "127.0.0.1"), clients.root)

    def ask(address: str, name: str, token: str | None = None) -> str:
        """The reason of the refusal, or nothing."""
        tls = ClientTls(authority.root, *clients.give(name))
        with OfpClient(address, token=token, tls=tls, retries=ONCE, timeout_seconds=20) as ofp:
            try:
                assert ofp.ask(QUESTION).body == BODY
            except ContractError as error:
                return error.reason.value
            return ""

    with running(server, scorer, metrics, ended, OFP_TEST_BY_CERTIFICATE="1") as address:
        assert ask(address, "scorer.bank") == ""
        assert ask(address, "scorer.bank", scorer_key) == ""
        assert ask(address, "scorer.bank", KEY) == "FORBIDDEN"  # of another, who may more
        assert ask(address, "scorer.bank", "no key") == "UNAUTHENTICATED"
        assert ask(address, "metrics.bank") == "FORBIDDEN"
        assert ask(address, "stranger.bank") == "FORBIDDEN"
        assert ask(address, "stranger.bank", KEY) == "FORBIDDEN"  # a good key does not make up for it
        assert ask(address, "ended.bank") == "UNAUTHENTICATED"
    with running(server, scorer) as address:  # a second lock beside the key names nobody
        assert ask(address, "scorer.bank") == "UNAUTHENTICATED"
        assert ask(address, "stranger.bank", scorer_key) == ""


def test_names_of_a_certificate() -> None:
    content = {
        "subject": ((("organizationName", "bank"),), (("commonName", "scorer"),)),
        "subjectAltName": (("DNS", "scorer.bank"), ("URI", "spiffe://bank/scorer"), ("IP Address", "10.0.0.1"), ("email", "a@b")),
        "notAfter": "Jan  1 00:00:00 2030 GMT",
    }
    certificate = ClientCertificate.of(content)
    assert certificate.names == ("DNS:scorer.bank", "URI:spiffe://bank/scorer", "CN:scorer")
    assert certificate.until == 1_893_456_000
    two = {**content, "subject": ((("commonName", "scorer"),), (("commonName", "admin"),))}
    assert ClientCertificate.of(two).names == ("DNS:scorer.bank", "URI:spiffe://bank/scorer")
