"""A copy of the embedded server's data, and a server out of a copy.

A server that is put back begins another timeline, as one after a failover does: so the log notices (`log_server()`), and takes
nothing before it is known what the archive has beyond it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import psycopg
from psycopg import conninfo, sql

from ofp_platform.storage.embedded import SUPERUSER, EmbeddedPostgresError, as_role, release_embedded, start_embedded
from ofp_platform.storage.postgres_programs import PostgresPrograms, ProgramFailed, postgres_programs
from ofp_platform.storage.private_files import PRIVATE_FOLDER

_MANIFEST = "backup_manifest"
# no files but those of the copy; the first state that is whole is the one to go on from, and it is a new timeline
_RECOVERY = {
    "restore_command": "false",
    "recovery_target": "immediate",
    "recovery_target_action": "promote",
}


class BackupDamaged(Exception):
    """A copy is not what was copied; the text names the file."""


def back_up_embedded(data_dir: Path, target: Path) -> None:
    """Copy the data of the server, which goes on meanwhile, to a folder that is not there yet; whole or not at all.

    Raises:
        EmbeddedPostgresError: the server does not start, or the copy cannot be made or does not verify.
    """
    dsn = as_role(start_embedded(data_dir), SUPERUSER)
    host = str(conninfo.conninfo_to_dict(dsn)["host"])
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=PRIVATE_FOLDER)
    options = ["--host", host, "--username", SUPERUSER, "--no-password"]
    options += ["--wal-method", "stream", "--checkpoint", "fast", "--manifest-checksums", "SHA256"]
    try:
        # for the user of this process, root too: what only copies is run by whoever is let in
        programs = PostgresPrograms(postgres_programs().folder, None)
        programs.call("pg_basebackup", "--pgdata", str(partial), *options, data_dir=partial)
        verify_backup(partial)
    except (ProgramFailed, BackupDamaged) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise EmbeddedPostgresError(f"the server in {data_dir} could not be copied to {target}: {error}") from error
    partial.rename(target)


def verify_backup(source: Path) -> None:
    """Hold a copy against its manifest: the manifest by its own checksum, then every file, and that none is missing.

    The log of writes (`pg_wal`) is not in a manifest: a server does not start from a copy without what it needs of it. (The
    wheel's own pg_verifybackup crashes.)

    Raises:
        BackupDamaged: it is not what was copied; the text says which file.
    """
    try:
        text = (source / _MANIFEST).read_bytes()
        manifest = json.loads(text)
        covered, stated = text[: text.rindex(b'"Manifest-Checksum"')], manifest["Manifest-Checksum"]
        files = {entry["Path"]: (entry["Size"], entry["Checksum"]) for entry in manifest["Files"]}
    except (OSError, ValueError, KeyError) as error:
        raise BackupDamaged(f"there is no whole {_MANIFEST} in it ({type(error).__name__})") from error
    if hashlib.sha256(covered).hexdigest() != stated:
        raise BackupDamaged(f"its {_MANIFEST} is not as it was written")
    for name, (size, checksum) in sorted(files.items()):
        path = source / name
        if not path.is_file() or path.stat().st_size != size or _digest(path) != checksum:
            raise BackupDamaged(f"{name} is not as it was copied")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def restore_embedded(source: Path, data_dir: Path) -> None:
    """Make the server of `data_dir`, which must not be there, out of a copy; it has run once, and stands.

    Raises:
        EmbeddedPostgresError: there is one already, the copy is not whole, or the server does not start from it.
    """
    if data_dir.exists() and any(data_dir.iterdir()):
        raise EmbeddedPostgresError(
            f"there is a server in {data_dir} already: move it away first, it may have what the copy lacks"
        )
    try:
        verify_backup(source)
    except (BackupDamaged, OSError) as error:
        raise EmbeddedPostgresError(f"{source} is no whole copy of a server: {error}") from error
    partial = data_dir.with_name(data_dir.name + ".restored")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, symlinks=True)
    partial.chmod(PRIVATE_FOLDER)
    with (partial / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in _RECOVERY.items())
    (partial / "recovery.signal").touch(mode=0o600)
    owner = postgres_programs().uid
    if owner != os.geteuid():
        for path in (partial, *partial.rglob("*")):
            os.chown(path, owner, -1, follow_symlinks=False)
    partial.rename(data_dir)
    dsn = as_role(start_embedded(data_dir), SUPERUSER)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for name in _RECOVERY:
                connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name)))
    finally:
        release_embedded(data_dir)
