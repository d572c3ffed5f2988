"""A real PostgreSQL out of a wheel, in a folder: the default store of a machine that has none.

The server listens on a Unix socket in its data folder and on no network address. Only the user of this process is let in: the
folder is closed to all others, and the server asks the kernel who is there (`peer`). The role of the DSN is no superuser.
Every process that uses the server holds a lock; the last one to exit stops it.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from ofp_platform.storage.postgres_programs import VERSION, PostgresPrograms, ProgramFailed, postgres_programs, service_user
from ofp_platform.storage.private_files import (
    PRIVATE_FOLDER,
    NotPrivate,
    exclusive_file,
    make_private_folder,
    open_own_file,
    put_private_file,
    read_beside_links,
    require_private_folder,
    user_name,
)
from ofp_platform.storage.roles import Job, default_role, role_statements

DATABASE = "ofp"
OWNER_ROLE = "ofp_owner"
STARTUP_SECONDS = 120.0
SUPERUSER = "postgres"
_UNSAFE = re.compile(r"[^\w./+,@=:~-]")
_SOCKET_NAME = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes of sockaddr_un.sun_path, without its end
_SHORT_PATHS = "/tmp"
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
_ACCESS = """\
# Written by ofp_platform.storage.embedded at every start: the one user of this installation, by what the kernel says.
local all all peer map=ofp
local replication all peer map=ofp
"""
# on the command line, where no file of settings and no ALTER SYSTEM can say otherwise
_WALLS = "-c listen_addresses= -c unix_socket_directories=. -c unix_socket_permissions=0700"


class EmbeddedPostgresError(Exception):
    """The embedded server cannot be started or stopped; the text says what to do."""


@dataclass(frozen=True, slots=True)
class _Use:
    """That this process uses a server: a shared lock, which the kernel takes back however the process ends."""

    descriptor: int
    pid: int


_USES: dict[Path, _Use] = {}


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
        make_private_folder(data_dir.parent)
        with exclusive_file(_lock_path(data_dir)):
            programs = postgres_programs()
            _require_data(programs, data_dir)
            _write_settings(programs, data_dir)
            folder = _socket_folder(data_dir)
            _start(programs, data_dir, folder)
            _hold(data_dir)
            _prepare_database(_dsn(folder, SUPERUSER, "postgres"), _dsn(folder, SUPERUSER, DATABASE))
            return _dsn(folder, OWNER_ROLE, DATABASE)
    except NotPrivate as error:
        raise EmbeddedPostgresError(f"the embedded PostgreSQL in {data_dir} is not started: {error}") from error
    except (OSError, ProgramFailed, psycopg.Error, subprocess.SubprocessError) as error:
        raise EmbeddedPostgresError(_advice(data_dir, error)) from error


def as_role(dsn: str, role: str) -> str:
    """The DSN of the same embedded server and database for another role; `SUPERUSER` prepares, and nothing runs as it."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    return _dsn(Path(str(parts["host"])), role, str(parts["dbname"]))


def embedded_listens(dsn: str) -> bool:
    """Whether a server listens where `start_embedded` said; False when it is gone, however it ended."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    return _listens(Path(str(parts["host"])))


def release_embedded(data_dir: Path) -> None:
    """Give this process's use back now instead of at exit; the server stops if it was the last one.

    Raises:
        EmbeddedPostgresError: it does not stop.
    """
    data_dir = data_dir.expanduser().resolve()
    use = _USES.get(data_dir)
    if use is None or use.pid != os.getpid():
        return  # a fork of the process that uses it
    del _USES[data_dir]
    try:
        if (data_dir / "PG_VERSION").exists():  # else somebody removed the folder meanwhile
            with exclusive_file(_lock_path(data_dir)):
                fcntl.flock(use.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _stop(data_dir)
    except BlockingIOError:
        pass  # others use it
    finally:
        os.close(use.descriptor)


def stop_embedded(data_dir: Path) -> bool:
    """Stop the server in `data_dir` for everybody. True if it ran.

    Raises:
        EmbeddedPostgresError: it does not stop.
    """
    data_dir = data_dir.expanduser().resolve()
    if not (data_dir / "postmaster.pid").exists():
        return False
    with exclusive_file(_lock_path(data_dir)):
        return _stop(data_dir)


def _lock_path(data_dir: Path) -> Path:
    return data_dir.with_name(data_dir.name + ".lock")


def _dsn(folder: Path, role: str, database: str) -> str:
    return f"postgresql://{role}@/{database}?host={quote(str(folder), safe='/')}"


def _hold(data_dir: Path) -> None:
    """Say that this process uses the server; called under the lock, so nobody stops it meanwhile."""
    use = _USES.get(data_dir)
    if use is not None and use.pid == os.getpid():
        return
    descriptor = open_own_file(data_dir.with_name(data_dir.name + ".users"))
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    _USES[data_dir] = _Use(descriptor, os.getpid())
    atexit.register(_release_at_exit, data_dir)


def _release_at_exit(data_dir: Path) -> None:
    try:
        release_embedded(data_dir)
    except (EmbeddedPostgresError, NotPrivate, OSError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)  # words: a stack trace here would hide what the program itself said last


def _require_data(programs: PostgresPrograms, data_dir: Path) -> None:
    """The data folder: looked at, or made whole under another name first."""
    if data_dir.exists() and any(data_dir.iterdir()):
        if not (data_dir / "PG_VERSION").exists():
            raise ProgramFailed("the folder is not empty, and holds no PostgreSQL. Choose another one")
        version = read_beside_links(data_dir, "PG_VERSION").strip()
        if version != str(VERSION):
            raise ProgramFailed(
                f"found version {version} in it, but the programs are of version {VERSION}. Dump it with those of version"
                f" {version}, or choose another folder"
            )
        require_private_folder(data_dir, programs.uid)
        return
    if data_dir.exists() and (owner := data_dir.lstat().st_uid) not in (os.geteuid(), programs.uid):
        raise NotPrivate(f"{data_dir} belongs to {user_name(owner)}, not to {user_name(os.geteuid())}: choose another folder")
    partial = data_dir.with_name(data_dir.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)  # an initialisation that was killed; nobody else is at it, by the lock
    partial.mkdir(mode=PRIVATE_FOLDER)
    if programs.user is not None:
        os.chown(partial, programs.uid, -1)
    options = ("--auth=peer", "--encoding=UTF8", "--locale=C", "--username", SUPERUSER, "--no-instructions")
    programs.call("initdb", "-D", programs.data_argument(partial), *options, data_dir=partial)
    partial.rename(data_dir)


def _write_settings(programs: PostgresPrograms, data_dir: Path) -> None:
    put_private_file(data_dir, _SETTINGS_FILE, _SETTINGS, programs.uid)
    put_private_file(data_dir, "pg_hba.conf", _ACCESS, programs.uid)
    name = service_user().replace('"', '""')
    put_private_file(data_dir, "pg_ident.conf", f'ofp "{name}" all\n', programs.uid)
    line = f"include_if_exists = '{_SETTINGS_FILE}'"
    main = read_beside_links(data_dir, "postgresql.conf")
    if line not in main:
        put_private_file(data_dir, "postgresql.conf", f"{main}\n{line}\n", programs.uid)


def _socket_folder(data_dir: Path) -> Path:
    """By what name the socket is reached: the data folder, or a link to it where the socket's path would be too long.

    The link lies in a folder of ours that no other user may enter, under a name that nobody can know before: the home
    remembers it.
    """
    if _fits(data_dir):
        return data_dir
    memory = data_dir.with_name(data_dir.name + ".socket")
    if memory.exists():
        folder = Path(read_beside_links(memory.parent, memory.name).strip())
        if os.path.lexists(folder):
            require_private_folder(folder, os.geteuid())
            if (folder / "postgres").is_symlink() and (folder / "postgres").readlink() == data_dir:
                return folder / "postgres"
    folder = Path(tempfile.mkdtemp(prefix="ofp-", dir=_runtime_folder()))
    require_private_folder(folder, os.geteuid())
    (folder / "postgres").symlink_to(data_dir)
    put_private_file(memory.parent, memory.name, f"{folder}\n", os.geteuid())
    return folder / "postgres"


def _runtime_folder() -> Path:
    """The runtime folder that the system made for this user, if it is what it should be, and short enough; else /tmp."""
    of_user = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if of_user.is_absolute() and _fits(of_user / "ofp-12345678" / "postgres"):
        with suppress(NotPrivate, OSError):
            require_private_folder(of_user, os.geteuid())
            return of_user
    return Path(_SHORT_PATHS)


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH


def _listens(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(folder / _SOCKET_NAME))
        except BlockingIOError:
            return True  # it is there, and busy
        except OSError:
            return False
    return True


def _server_pid(data_dir: Path) -> int | None:
    """The process that the folder names as its server, if it is alive and one: an id may be another's by now."""
    try:
        pid = int(read_beside_links(data_dir, "postmaster.pid").split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None
    if not Path("/proc/self").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        return pid
    with suppress(OSError):  # gone, or killed and not reaped yet
        if os.path.samestat(os.stat(f"/proc/{pid}/cwd"), data_dir.stat()):
            return pid
    return None


def _start(programs: PostgresPrograms, data_dir: Path, folder: Path) -> None:
    """Start it, unless it runs; one that an earlier version of this module left running is started anew, behind its walls."""
    deadline = time.monotonic() + STARTUP_SECONDS
    if _server_pid(data_dir) is not None:
        if "unix_socket_permissions=0700" in read_beside_links(data_dir, "postmaster.opts"):
            _await_listening(data_dir, folder, deadline)
            programs.call("pg_ctl", "reload", "-D", programs.data_argument(data_dir), data_dir=data_dir)
            return
        _stop(data_dir)
    while True:
        if _listens(folder):
            raise ProgramFailed("a server that is no process of this machine, or of this container, listens in it already")
        _forget_reused_id(data_dir)
        arguments = ("-w", "-t", f"{STARTUP_SECONDS:.0f}", "-l", "log", "-o", _WALLS)
        try:
            programs.call("pg_ctl", "start", "-D", programs.data_argument(data_dir), *arguments, data_dir=data_dir)
            _await_listening(data_dir, folder, deadline)
            return
        except ProgramFailed:
            # the children of a server that was killed hold its memory for a moment, and it may not start before they are gone
            if time.monotonic() > deadline or not _memory_is_in_use(data_dir):
                raise
            time.sleep(0.25)


def _forget_reused_id(data_dir: Path) -> None:
    """A server looks whether the process of its predecessor is alive. One that is alive and no server had its id later."""
    for name in ("postmaster.pid", f"{_SOCKET_NAME}.lock"):
        with suppress(FileNotFoundError, IndexError, ValueError):
            pid = int(read_beside_links(data_dir, name).split()[0])
            if Path(f"/proc/{pid}").exists():
                (data_dir / name).unlink()


def _memory_is_in_use(data_dir: Path) -> bool:
    lines = read_beside_links(data_dir, "log").splitlines()[-5:]
    return any("still in use" in line for line in lines)


def _await_listening(data_dir: Path, folder: Path, deadline: float) -> None:
    """Recovery after a crash may take longer than pg_ctl waits, and the server goes on meanwhile."""
    while not _listens(folder):
        if _server_pid(data_dir) is None:
            raise ProgramFailed("the server ended while it started")
        if time.monotonic() > deadline:
            raise ProgramFailed("a process of its id is there and does not listen")
        time.sleep(0.1)


def _stop(data_dir: Path) -> bool:
    """Stop it; False if it did not run."""
    if _server_pid(data_dir) is None:
        return False
    programs = postgres_programs()
    try:
        programs.call("pg_ctl", "stop", "-D", programs.data_argument(data_dir), "-w", "-m", "fast", "-t", "60", data_dir=data_dir)
    except ProgramFailed as error:
        if _server_pid(data_dir) is None:
            return True  # it ended by itself meanwhile
        raise EmbeddedPostgresError(
            f"the embedded PostgreSQL in {data_dir} did not stop within 60 seconds. "
            f"Its log is {data_dir / 'log'}; its process id is the first line of {data_dir / 'postmaster.pid'}."
        ) from error
    return True


_ROLE_EXISTS = "SELECT 1 FROM pg_roles WHERE rolname = %s"
# what an earlier version made belongs to the superuser; extensions and the catalogue stay its own
_HAND_OVER = """
DO $$
DECLARE it record;
BEGIN
    FOR it IN SELECT nspname FROM pg_namespace WHERE nspname = 'ofp' OR nspname = 'public' LOOP
        EXECUTE format('ALTER SCHEMA %I OWNER TO ofp_owner', it.nspname);
    END LOOP;
    FOR it IN
        SELECT c.oid::regclass AS name, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('ofp', 'public') AND pg_get_userbyid(c.relowner) = 'postgres'
            AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
        ORDER BY c.relkind = 'S'
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO ofp_owner', it.name);
    END LOOP;
    FOR it IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('ofp', 'public') AND pg_get_userbyid(p.proowner) = 'postgres'
    LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO ofp_owner', it.name);
    END LOOP;
    FOR it IN
        SELECT t.oid::regtype AS name FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname IN ('ofp', 'public') AND t.typtype IN ('e', 'd') AND pg_get_userbyid(t.typowner) = 'postgres'
    LOOP
        EXECUTE format('ALTER TYPE %s OWNER TO ofp_owner', it.name);
    END LOOP;
END $$
"""


def _prepare_database(maintenance: str, plane: str) -> None:
    """The roles of the product, none a superuser, and its database; one of an earlier version is handed over to its owner."""
    with psycopg.connect(maintenance, autocommit=True, connect_timeout=10) as connection:
        deadline = time.monotonic() + STARTUP_SECONDS
        while connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):  # one that was put back
            if time.monotonic() > deadline:
                raise ProgramFailed("it is in recovery, and does not end it")
            time.sleep(0.1)
        if connection.execute(_ROLE_EXISTS, (OWNER_ROLE,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(OWNER_ROLE)))
        for job in Job:
            if connection.execute(_ROLE_EXISTS, (default_role(job),)).fetchone() is None:
                with connection.transaction():
                    for statement in role_statements(default_role(job), job):
                        connection.execute(statement)
        owner = connection.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
        names = {"database": sql.Identifier(DATABASE), "role": sql.Identifier(OWNER_ROLE)}
        if owner is None:
            connection.execute(sql.SQL("CREATE DATABASE {database} OWNER {role}").format(**names))
            return
        if owner == (OWNER_ROLE,):
            return
        with psycopg.connect(plane, autocommit=True, connect_timeout=10) as inside:
            inside.execute(_HAND_OVER)
        connection.execute(sql.SQL("ALTER DATABASE {database} OWNER TO {role}").format(**names))


def _advice(data_dir: Path, error: BaseException) -> str:
    return (
        f"the embedded PostgreSQL in {data_dir} does not start: {error}\n"
        f"  - Its own log says why: {data_dir / 'log'}\n"
        "  - As root it needs `useradd`, because PostgreSQL refuses to run as root; an ordinary user needs nothing.\n"
        "  - The folder must be on a local disk that you may write to. Or use another PostgreSQL by its DSN."
    )
