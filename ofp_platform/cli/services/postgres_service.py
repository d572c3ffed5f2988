"""A PostgreSQL that is reached by TCP, verified TLS and passwords alone, with a role for each job."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
from psycopg import conninfo, sql

from ofp_platform.cli.processes import Child
from ofp_platform.cli.services.certificates import Authority
from ofp_platform.cli.services.ports import free_ports
from ofp_platform.cli.services.tls_front import tls_front
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.storage.postgres_programs import PostgresPrograms, ProgramFailed, postgres_programs
from ofp_platform.storage.private_files import put_private_file
from ofp_platform.storage.roles import Job, default_role, role_statements

DATABASE, OWNER, SUPERUSER = "ofp", "ofp_owner", "postgres"
_READY_SECONDS, _POLL_SECONDS = 60.0, 0.05
_SYSTEM_PROGRAMS = Path("/usr/lib/postgresql")
_PASSWORDS = "postgres.passwords"
_ACCESS = "# Written by ofp services: nobody without a password{tls}.\n{kind} all all 127.0.0.1/32 scram-sha-256\n"


@dataclass
class PostgresService:
    """One server. `port`: where clients connect. Made by `postgres_service`; the same data and ports each time it is started."""

    folder: Path
    data: Path
    output: Path
    authority: Authority
    programs: PostgresPrograms
    has_tls: bool
    server_port: int
    port: int = 0
    passwords: dict[str, str] = field(default_factory=lambda: {name: secrets.token_urlsafe(24) for name in _role_names()})
    child: Child | None = None

    name = "PostgreSQL"

    @property
    def version(self) -> str:
        """The server in words."""
        by = "in the server itself" if self.has_tls else "in front of it: the server was built without"
        return f"{self.programs.folder.parent}, TLS {by}"

    def dsn(self, role: str = OWNER, database: str = DATABASE) -> str:
        """How a role connects: verified TLS, the password from a file that is ours alone."""
        return str(
            conninfo.make_conninfo(
                host="localhost",
                port=self.port,
                user=role,
                dbname=database,
                sslmode="verify-full",
                sslrootcert=str(self.authority.root),
                passfile=str(self.folder / _PASSWORDS),
            )
        )

    def start(self) -> None:
        """Start the server, which may have been killed, and wait until it answers.

        Raises:
            CommandRefused: it ended, or does not answer.
        """
        data = self.data
        command = [str(self.programs.folder / "postgres"), "-D", str(data)]
        settings = {"cwd": data, "umask": 0o077, **self.programs.identity()}
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            (data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed: nobody but this command starts it
            # SIGINT ends sessions; SIGTERM would wait for them
            child = Child(self.name, command, {}, self.output, stop_signal=signal.SIGINT, settings=settings)
            try:
                if self._answers(child, deadline):
                    self.child = child
                    return
                # a session of a server that was killed may take a moment to notice
                if "still in use" not in child.text() or time.monotonic() > deadline:
                    raise child.failure()
            except BaseException:
                child.stop()
                raise

    def _answers(self, child: Child, deadline: float) -> bool:
        while time.monotonic() < deadline and not child.ended:
            try:
                psycopg.connect(self.dsn(SUPERUSER, "postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(_POLL_SECONDS)
            else:
                return True
        return False

    def make(self) -> None:
        """Make the data folder, the password file and the server's certificate.

        Raises:
            CommandRefused: `initdb` does not work.
        """
        data, uid = self.data, self.programs.uid
        put_private_file(data.parent, "password", self.passwords[SUPERUSER], uid)
        options = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--username", SUPERUSER, "--no-instructions")
        try:
            password = f"--pwfile={data.parent / 'password'}"
            self.programs.call("initdb", "-D", str(data), *options, password, data_dir=data.parent)
        except ProgramFailed as error:
            raise CommandRefused(f"PostgreSQL cannot be set up: {error}") from error
        finally:
            (data.parent / "password").unlink(missing_ok=True)
        certificate, key = self.authority.give("localhost", "127.0.0.1")
        put_private_file(data, "server.crt", certificate.read_text(), uid)
        put_private_file(data, "server.key", key.read_text(), uid)
        tls = {"tls": " and without TLS" if self.has_tls else "", "kind": "hostssl" if self.has_tls else "host"}
        put_private_file(data, "pg_hba.conf", _ACCESS.format(**tls), uid)
        settings = {
            "listen_addresses": "'127.0.0.1'",
            "port": self.server_port,
            "unix_socket_directories": "''",
            "ssl": "on" if self.has_tls else "off",
            "max_connections": 200,
            "timezone": "'UTC'",
            "log_timezone": "'UTC'",
            "jit": "off",
        }
        put_private_file(data, "postgresql.auto.conf", "".join(f"{name} = {value}\n" for name, value in settings.items()), uid)
        lines = [f"localhost:*:*:{role}:{password}\n" for role, password in self.passwords.items()]
        put_private_file(self.folder, _PASSWORDS, "".join(lines), os.geteuid())

    def make_roles(self) -> None:
        """The owner and the role of each job, with their passwords, and the database of the plane."""
        with psycopg.connect(self.dsn(SUPERUSER, "postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(OWNER)))
            for job in Job:
                for statement in role_statements(default_role(job), job):
                    connection.execute(statement)
            for role, password in self.passwords.items():
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password)))
            names = sql.Identifier(DATABASE), sql.Identifier(OWNER)
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))


@contextmanager
def postgres_service(folder: Path, output: Path, authority: Authority) -> Iterator[PostgresService]:
    """A new server that runs; it ends with the context, and its data goes. `folder`: for the file of passwords.

    The newest server of the system that was built with TLS serves; else the packaged one, with TLS in front of it.

    Raises:
        CommandRefused: it cannot be set up, or does not start.
    """
    try:
        packaged_programs = postgres_programs()
    except ProgramFailed as error:
        raise CommandRefused(f"PostgreSQL cannot be started: {error}") from error
    system = _programs_with_tls(_SYSTEM_PROGRAMS)
    programs = packaged_programs if system is None else replace(packaged_programs, folder=system)
    (port,) = free_ports(1)
    # a server of another user than this one would not reach a folder of ours
    above = folder if programs.user is None else None
    with tempfile.TemporaryDirectory(prefix="ofp-postgres-", dir=above) as name:
        os.chown(name, programs.uid, -1)
        service = PostgresService(folder, Path(name) / "data", output, authority, programs, system is not None, port)
        service.make()
        with _front(service) as service.port:
            service.start()
            try:
                service.make_roles()
                yield service
            finally:
                if service.child is not None:
                    service.child.stop()


@contextmanager
def _front(service: PostgresService) -> Iterator[int]:
    if service.has_tls:
        yield service.server_port
        return
    certificate = service.data / "server.crt", service.data / "server.key"
    with tls_front(("127.0.0.1", service.server_port), certificate) as front:
        yield front.port


def _role_names() -> list[str]:
    return [SUPERUSER, OWNER, *(default_role(job) for job in Job)]


def _programs_with_tls(versions: Path) -> Path | None:
    """The folder of the programs of the newest server there that can speak TLS; None: there is none."""
    folders = sorted(versions.glob("*/bin"), key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0), reverse=True)
    for folder in folders:
        if not shutil.which("initdb", path=str(folder)) or not shutil.which("pg_config", path=str(folder)):
            continue
        configure = subprocess.run([str(folder / "pg_config"), "--configure"], capture_output=True, text=True, check=False)
        if "openssl" in configure.stdout:
            return folder
    return None
