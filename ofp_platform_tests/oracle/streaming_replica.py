"""A primary PostgreSQL and an asynchronous streaming replica of it, of the wheel's own programs, for tests of failovers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from ofp_platform.storage.postgres_programs import PostgresPrograms, postgres_programs
from ofp_platform.storage.schema import migrate

_SETTINGS = "fsync = off\nshared_buffers = 32MB\nmax_connections = 40\nwal_keep_size = 64MB\nlisten_addresses = ''\n"


@dataclass
class Server:
    """One server: the folder of its socket, and in it that of its data."""

    folder: Path
    programs: PostgresPrograms

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/ofp?host={self.folder}"

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def call(self, program: str, *arguments: str) -> None:
        self.programs.call(program, *arguments, data_dir=self.folder)

    def start(self) -> None:
        options = f"-c unix_socket_directories={self.folder}"
        self.call("pg_ctl", "-w", "-o", options, "-l", str(self.folder / "log"), "-D", self.data, "start")

    def kill(self) -> None:
        """As the machine dies: nothing is flushed, nobody is told."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self.call("pg_ctl", "-w", "-m", "immediate", "-D", self.data, "stop")

    def promote(self) -> None:
        self.call("pg_ctl", "-w", "-D", self.data, "promote")


@dataclass
class ReplicatedServer:
    """A primary and its replica. What was committed before `cut_off` is in both, what comes after in the primary alone."""

    primary: Server
    replica: Server

    @property
    def dsn(self) -> str:
        """Whichever of the two takes writes."""
        hosts = f"{self.primary.folder},{self.replica.folder}"
        return f"postgresql://postgres@/ofp?host={hosts}&target_session_attrs=read-write"

    def catch_up(self) -> None:
        """Wait until the replica has replayed what the primary has."""
        with psycopg.connect(self.primary.dsn, autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        with psycopg.connect(self.replica.dsn, autocommit=True) as connection:
            while not self._has_replayed(connection, row[0]):
                connection.execute("SELECT pg_sleep(0.01)")

    def cut_off(self) -> None:
        """Stop the replication for good."""
        self.catch_up()
        with psycopg.connect(self.replica.dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
            connection.execute("SELECT pg_reload_conf()")
            while connection.execute("SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'").fetchone() != (0,):
                connection.execute("SELECT pg_sleep(0.01)")

    def fail_over(self) -> None:
        """Kill the primary and promote the replica."""
        self.primary.kill()
        self.replica.promote()

    def _has_replayed(self, connection: psycopg.Connection, place: str) -> bool:
        return connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (place,)).fetchone() == (True,)


@contextmanager
def replicated_server() -> Iterator[ReplicatedServer]:
    """A migrated primary with a replica that follows it; both end with the context."""
    root = Path(tempfile.mkdtemp(prefix="ofp-rep-", dir="/tmp"))
    programs = postgres_programs()
    root.chmod(0o755)
    primary, replica = Server(root / "a", programs), Server(root / "b", programs)
    for server in (primary, replica):
        server.folder.mkdir(mode=0o700)
        os.chown(server.folder, programs.uid, -1)
    try:
        primary.call("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", primary.data)
        with (primary.folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)
        primary.start()
        with psycopg.connect(f"postgresql://postgres@/postgres?host={primary.folder}", autocommit=True) as connection:
            connection.execute("CREATE DATABASE ofp")
        migrate(primary.dsn)
        primary.call(
            "pg_basebackup", "-h", str(primary.folder), "-U", "postgres", "-D", replica.data, "-R", "-c", "fast", "--no-sync"
        )
        replica.start()
        yield ReplicatedServer(primary, replica)
    finally:
        primary.kill()
        replica.kill()
        shutil.rmtree(root)
