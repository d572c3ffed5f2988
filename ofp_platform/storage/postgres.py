"""Connections to PostgreSQL."""

from __future__ import annotations

import logging
import select
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

Pool = ConnectionPool[psycopg.Connection[TupleRow]]

# the pool doubles its pauses up to this age, then tries anew at the next request: an outage is over seconds after its end
_RECONNECT_SECONDS = 2.0

SILENT_SECONDS = 120.0
"""How long one statement may take. Behind a peer that is gone without a word it would take for ever; none here takes long."""
_CHECK_SECONDS = 3.0
_FRESH_SECONDS = 0.01
# for the kernel's part of the same: what is not acknowledged, by a host that is gone, fails. The DSN may say otherwise
_LIVELINESS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
RV = TypeVar("RV")


class DatabaseUnavailable(Exception):
    """PostgreSQL does not answer; worth another attempt later."""


class AnsweredConnection(psycopg.Connection[TupleRow]):
    """A connection that gives a statement up, and itself, when the server is silent: psycopg would wait for good."""

    silent_seconds: float | None = None
    _answered_at = float("-inf")

    @property
    def has_just_answered(self) -> bool:
        """Whether it answered a moment ago, and nothing has come since: not even the end of the connection."""
        if time.monotonic() - self._answered_at > _FRESH_SECONDS or self.closed:
            return False
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return not poll.poll(0)

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """See psycopg.

        Raises:
            OperationalError: no answer in time. The connection is closed: what became of the statement is not known.
        """
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        bound = self.silent_seconds or SILENT_SECONDS
        try:
            answer = super().wait(gen, interval, bound)
            self._answered_at = time.monotonic()
            return answer
        except _WaitTimeout:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server has not answered for {bound:g} s") from None


def connect(dsn: str, **settings: Any) -> AnsweredConnection:
    """A connection of one's own, as those of the pool are: a silent server is an error in time.

    Raises:
        psycopg.OperationalError: it cannot be made.
    """
    connection = AnsweredConnection.connect(dsn, **_liveliness(dsn), **settings)
    _settle(connection)
    return connection


def _liveliness(dsn: str) -> dict[str, Any]:
    options = psycopg.conninfo.conninfo_to_dict(dsn)
    return {name: value for name, value in _LIVELINESS.items() if name not in options}


def _settle(connection: psycopg.Connection[TupleRow]) -> None:
    """Settings of every new connection, whatever environment, role or database say: times in the one form that psycopg reads."""
    if not (connection.info.parameter_status("DateStyle") or "").startswith("ISO"):
        with connection.transaction():
            connection.execute("SET datestyle TO ISO")


def _check(connection: psycopg.Connection[TupleRow]) -> None:
    """Whether a pooled connection still works; asked before each use, so a silent one must not take long, and one that has just
    answered is not asked.
    """
    if isinstance(connection, AnsweredConnection) and connection.has_just_answered:
        return
    with answered_within(connection, _CHECK_SECONDS):
        ConnectionPool.check_connection(connection)


@contextmanager
def answered_within(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Inside the block, a statement that takes longer is given up, and the connection with it."""
    if not isinstance(connection, AnsweredConnection):
        yield
        return
    before, connection.silent_seconds = connection.silent_seconds, seconds
    try:
        yield
    finally:
        connection.silent_seconds = before


def _settled(settings: Mapping[str, str]) -> Callable[[psycopg.Connection[TupleRow]], None]:
    def settle(connection: psycopg.Connection[TupleRow]) -> None:
        _settle(connection)
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))

    return settle


def open_pool(dsn: str, *, max_size: int = 8, timeout_seconds: float = 10.0, settings: Mapping[str, str] | None = None) -> Pool:
    """An open pool of autocommit connections: a statement alone is its own transaction, more need `.transaction()`.

    `timeout_seconds` bounds the wait for a free connection, `SILENT_SECONDS` that for the end of a statement. `settings`: of the
    server, for each session.
    Connections that died are replaced by the pool. The caller closes it (it is a context manager).

    Raises:
        DatabaseUnavailable: no connection within `timeout_seconds`.
    """
    pool: Pool = ConnectionPool(
        dsn,
        connection_class=AnsweredConnection,
        min_size=1,
        max_size=max_size,
        timeout=timeout_seconds,
        reconnect_timeout=_RECONNECT_SECONDS,
        open=False,
        check=_check,
        configure=_settled(settings or {}),
        kwargs={"autocommit": True, **_liveliness(dsn)},
    )
    _OPENING.add(pool.name)
    try:
        pool.open(wait=True, timeout=timeout_seconds)
    except psycopg.OperationalError as error:
        pool.close()
        raise DatabaseUnavailable(unreachable(dsn, _cause(dsn, error))) from error
    finally:
        _OPENING.discard(pool.name)
    return pool


_OPENING: set[str] = set()
_CAUSE_SECONDS = 2


class _WithoutOpening(logging.Filter):
    """Drops the lines about each failed attempt of a pool that opens: `open_pool` raises with the cause, once."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (isinstance(record.args, tuple) and record.args and record.args[0] in _OPENING)


logging.getLogger("psycopg.pool").addFilter(_WithoutOpening())


def _cause(dsn: str, error: Exception) -> Exception:
    """Why no connection was to be had: a pool says only that it waited in vain."""
    try:
        psycopg.connect(dsn, connect_timeout=_CAUSE_SECONDS).close()
    except psycopg.OperationalError as cause:
        return cause
    return error


_BESIDE = 5


@contextmanager
def one_snapshot(pool: Pool) -> Iterator[psycopg.Connection[TupleRow]]:
    """A connection in a transaction all of whose statements see the database as it was at the first of them."""
    with pool.connection() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield connection


def keeps_sessions(dsn: str) -> bool:
    """Whether a connection stays with one session of the server, as LISTEN, advisory locks and prepared statements need.

    Behind a pooler that gives out a session for a transaction, two connections are told the same server process, or one
    connection two. A few transactions are left open meanwhile, so that this shows without other load.

    Raises:
        psycopg.OperationalError: the server does not answer, or has not as many connections.
    """
    with ExitStack() as stack:
        first = stack.enter_context(connect(dsn, autocommit=True))
        session = _server_process(first)
        others = []
        for _ in range(_BESIDE):
            other = stack.enter_context(connect(dsn, autocommit=True))
            stack.enter_context(other.transaction())
            others.append(_server_process(other))
        return session not in others and _server_process(first) == session


def _server_process(connection: psycopg.Connection[TupleRow]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return -1 if row is None else int(row[0])


def takes_writes(connection: psycopg.Connection[TupleRow]) -> bool:
    """Whether a transaction that begins now may write: a standby, or a server set to read only, does not take it."""
    row = connection.execute("SELECT current_setting('transaction_read_only')").fetchone()
    return row is not None and row[0] == "off"


def unreachable(dsn: str, error: Exception) -> str:
    """Describe a server that does not answer; nothing of the DSN but host and database."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    where = f"host {parts.get('host', 'localhost')!r}, port {parts.get('port', 5432)}, database {parts.get('dbname', '')!r}"
    reason = " ".join(str(error).removesuffix(_LIBPQ_QUESTION).split())
    return f"PostgreSQL ({where}) does not answer: {reason}. Is it running, and is the DSN right? `ofp doctor` looks at both"


_LIBPQ_QUESTION = "\n\tIs the server running on that host and accepting TCP/IP connections?"


def sqlalchemy_url(dsn: str) -> str:
    """The URL by which SQLAlchemy connects where libpq would: it reads neither `postgres://` nor `name=value` pairs."""
    scheme, colon, rest = dsn.partition("://")
    if colon and scheme in ("postgres", "postgresql"):
        return f"postgresql://{rest}"
    parts = {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(dsn).items() if value is not None}
    who = quote(parts.pop("user", ""), safe="")
    if "password" in parts:
        who += f":{quote(parts.pop('password'), safe='')}"
    database = quote(parts.pop("dbname", ""), safe="")
    return f"postgresql://{who and who + '@'}/{database}" + (f"?{urlencode(parts)}" if parts else "")


class DsnNotCarried(Exception):
    """A DSN asks for something that the service's driver cannot do; the text names it. Nothing was connected to."""


_BY_ARGUMENT = {
    "host": "host",
    "port": "port",
    "user": "user",
    "password": "password",
    "passfile": "passfile",
    "dbname": "database",
    "service": "service",
    "sslmode": "ssl",
    "target_session_attrs": "target_session_attrs",
    "krbsrvname": "krbsrvname",
}
# asyncpg takes these in a DSN of its own form only
_BY_QUERY = (
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
)
_BY_STARTUP = ("application_name", "options")
# of no meaning there, or without another effect than when to give up, which each use of the driver bounds itself
_WITHOUT_EFFECT = frozenset(
    [
        "connect_timeout",
        "fallback_application_name",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "scram_client_key",
        "scram_server_key",
        "sslcompression",
        "sslsni",
        "tcp_user_timeout",
    ]
)
_AS_ASYNCPG_DOES = {
    "channel_binding": ("disable", "prefer"),
    "client_encoding": ("auto", "UTF8", "utf8", "UTF-8", "utf-8"),
    "gssencmode": ("disable", "prefer"),
    "load_balance_hosts": ("disable",),
    "sslcertmode": ("allow",),
}


def asyncpg_arguments(dsn: str, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The keyword arguments with which asyncpg connects where libpq would, and with as much proof of who answers.

    Of several hosts it tries one after the other, as libpq does, and takes one that `target_session_attrs` accepts.
    `settings`: of the server, for the session.

    Raises:
        DsnNotCarried: the DSN demands something that asyncpg does not do: it would be left out without a word.
    """
    parts: dict[str, Any] = {name: value for name, value in psycopg.conninfo.conninfo_to_dict(dsn).items() if value is not None}
    if "hostaddr" in parts and "host" not in parts:
        parts["host"] = parts.pop("hostaddr")
    if parts.get("sslrootcert") == "system":
        parts["sslrootcert"] = _system_roots()
        parts.setdefault("sslmode", "verify-full")
    for name in ("host", "port"):
        if "," in str(parts.get(name, "")):
            parts[name] = str(parts[name]).split(",")
    if isinstance(ports := parts.get("port"), list):
        parts["port"] = [int(port or 5432) for port in ports]
    arguments = {_BY_ARGUMENT[name]: value for name, value in parts.items() if name in _BY_ARGUMENT}
    query = {name: value for name, value in parts.items() if name in _BY_QUERY}
    if query:
        arguments["dsn"] = f"postgresql://?{urlencode(query)}"
    startup = {name: str(value) for name, value in parts.items() if name in _BY_STARTUP} | dict(settings or {})
    if startup:
        arguments["server_settings"] = startup
    for name in parts.keys() - _BY_ARGUMENT.keys() - set(_BY_QUERY) - set(_BY_STARTUP) - _WITHOUT_EFFECT:
        if str(parts[name]) not in _AS_ASYNCPG_DOES.get(name, ()):
            raise DsnNotCarried(
                f"the DSN says {name}, with a value that the driver of the service (asyncpg) does not honour: it would connect"
                " without. Take it out of the DSN of the service"
            )
    return arguments


def _system_roots() -> str:
    """The file of the certificates that this system trusts, as libpq's `sslrootcert=system` means.

    Raises:
        DsnNotCarried: the system has none in one file.
    """
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None:
        raise DsnNotCarried("the DSN says sslrootcert=system, and this system has no file of trusted certificates: name one")
    return paths.cafile
