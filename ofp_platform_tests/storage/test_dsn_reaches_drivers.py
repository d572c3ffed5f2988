"""Everything that a DSN says reaches both drivers: who is let in, who is believed, and what is refused rather than left out."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg import conninfo

from ofp_platform.cli.services.certificates import Authority
from ofp_platform.cli.services.tls_front import TlsFront, tls_front
from ofp_platform.online.serving.async_reader import STORE_ERRORS
from ofp_platform.storage.postgres import _WITHOUT_EFFECT, DatabaseUnavailable, DsnNotCarried, asyncpg_arguments, open_pool
from ofp_platform.storage.transient import is_transient
from ofp_platform_tests.cli.program import call

QUESTION = "SELECT current_setting('application_name') || '/' || current_setting('statement_timeout')"


def by_psycopg(dsn: str) -> Any:
    with open_pool(dsn, max_size=1, timeout_seconds=3.0) as pool, pool.connection() as connection:
        return connection.execute(QUESTION).fetchone()[0]  # type: ignore[index]


def by_asyncpg(dsn: str) -> Any:
    async def ask() -> Any:
        connection = await asyncpg.connect(**asyncpg_arguments(dsn), timeout=10)
        try:
            return await connection.fetchval(QUESTION)
        finally:
            await connection.close()

    return asyncio.run(ask())


DRIVERS = pytest.mark.parametrize("driver", [by_psycopg, by_asyncpg])
REFUSED = (*STORE_ERRORS, DatabaseUnavailable, asyncpg.InternalClientError, ssl.SSLError)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "another")


@pytest.fixture(scope="module")
def socket_path(module_dsn: str) -> Path:
    return Path(str(conninfo.conninfo_to_dict(module_dsn)["host"])) / ".s.PGSQL.5432"


@pytest.fixture(scope="module")
def server(socket_path: Path, authority: Authority) -> Iterator[TlsFront]:
    """A server with a certificate for `localhost`, and not for its address."""
    with tls_front(socket_path, authority.give("localhost")) as front:
        yield front


@pytest.fixture(scope="module")
def strict_server(socket_path: Path, authority: Authority) -> Iterator[TlsFront]:
    """One that lets in who shows a certificate."""
    with tls_front(socket_path, authority.give("localhost"), authority.root) as front:
        yield front


@pytest.fixture
def of(module_dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A DSN of the test's database behind a front, with more settings."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # nobody's own ~/.postgresql
    parts = conninfo.conninfo_to_dict(module_dsn)

    def made(front: TlsFront, **settings: Any) -> str:
        settings = {"host": "localhost", "port": front.port, **settings}
        return conninfo.make_conninfo(user=parts["user"], dbname=parts["dbname"], **settings)

    return made


@DRIVERS
def test_a_server_that_proves_its_name_is_believed(driver: Any, of: Any, server: TlsFront, authority: Authority) -> None:
    before = server.encrypted
    driver(of(server, sslmode="verify-full", sslrootcert=authority.root))
    assert server.encrypted > before
    driver(of(server, host="127.0.0.1", sslmode="verify-ca", sslrootcert=authority.root))  # the name is not asked for


@DRIVERS
@pytest.mark.parametrize("fault", ["of another authority", "for another name", "nobody to trust"])
def test_one_that_does_not_is_refused(
    driver: Any, of: Any, server: TlsFront, authority: Authority, stranger: Authority, fault: str
) -> None:
    dsn = {
        "of another authority": of(server, sslmode="verify-full", sslrootcert=stranger.root),
        "for another name": of(server, host="127.0.0.1", sslmode="verify-full", sslrootcert=authority.root),
        "nobody to trust": of(server, sslmode="verify-full"),
    }[fault]
    with pytest.raises(REFUSED):
        driver(dsn)


@DRIVERS
def test_a_client_shows_its_certificate(driver: Any, of: Any, strict_server: TlsFront, authority: Authority) -> None:
    proven = {"sslmode": "verify-full", "sslrootcert": authority.root}
    with pytest.raises(REFUSED):
        driver(of(strict_server, **proven))
    certificate, key = authority.give("the-service")
    driver(of(strict_server, **proven, sslcert=certificate, sslkey=key))


@DRIVERS
def test_of_several_hosts_the_next_one_is_taken(driver: Any, of: Any, server: TlsFront, authority: Authority) -> None:
    driver(
        of(
            server,
            host="localhost,localhost",
            port=f"1,{server.port}",
            target_session_attrs="read-write",
            sslmode="verify-full",
            sslrootcert=authority.root,
        )
    )
    with pytest.raises(REFUSED):  # there is no standby among them
        driver(of(server, target_session_attrs="standby", sslmode="verify-full", sslrootcert=authority.root))


@DRIVERS
def test_settings_of_the_session_arrive(driver: Any, of: Any, server: TlsFront) -> None:
    dsn = of(server, sslmode="require", application_name="a name", options="-c statement_timeout=54321")
    assert driver(dsn) == "a name/54321ms"


@pytest.mark.parametrize(
    "setting",
    [
        {"channel_binding": "require"},
        {"require_auth": "scram-sha-256"},
        {"requirepeer": "postgres"},
        {"hostaddr": "127.0.0.1"},
        {"gssencmode": "require"},
        {"sslcrldir": "/crl"},
        {"sslcertmode": "require"},
        {"load_balance_hosts": "random"},
        {"replication": "database"},
    ],
)
def test_what_the_other_driver_cannot_do_is_refused(setting: dict[str, str]) -> None:
    (name,) = setting
    with pytest.raises(DsnNotCarried, match=name):
        asyncpg_arguments(conninfo.make_conninfo(host="db", dbname="plane", **setting))


def test_every_setting_of_libpq_is_carried_or_refused() -> None:
    plain = asyncpg_arguments("host=db")
    unsaid = []
    for option in psycopg.pq.Conninfo.get_defaults():
        name = option.keyword.decode()
        try:
            carried = asyncpg_arguments(conninfo.make_conninfo(**{"host": "db", name: "7"})) != plain
        except (DsnNotCarried, psycopg.ProgrammingError):
            carried = True
        if not carried:
            unsaid.append(name)
    assert set(unsaid) <= _WITHOUT_EFFECT


def test_the_service_refuses_before_it_starts(module_dsn: str, tmp_path: Path) -> None:
    dsn = conninfo.make_conninfo(module_dsn, channel_binding="require")
    outcome = call("serve", "--home", str(tmp_path), OFP_DATABASE_URL=dsn)
    assert "channel_binding" in outcome.refused()


def test_no_host_that_takes_writes_is_an_outage(of: Any, server: TlsFront) -> None:
    with pytest.raises(STORE_ERRORS) as caught:
        by_asyncpg(of(server, target_session_attrs="standby", sslmode="require"))
    assert is_transient(caught.value)


def test_an_address_alone_is_where_it_connects() -> None:
    assert asyncpg_arguments("hostaddr=10.0.0.1 dbname=plane") == {"host": "10.0.0.1", "database": "plane"}
