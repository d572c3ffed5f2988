"""The embedded server: durable settings, several processes, a stop that stops."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from ofp_platform.storage.embedded import (
    OWNER_ROLE,
    SUPERUSER,
    EmbeddedPostgresError,
    as_role,
    embedded_listens,
    release_embedded,
    start_embedded,
    stop_embedded,
)
from ofp_platform.storage.postgres_programs import postgres_programs
from ofp_platform.storage.schema import migrate
from ofp_platform_tests.other_user import NOBODY, as_nobody, needs_root

USER = """
import sys
from pathlib import Path
import psycopg
from ofp_platform.storage.embedded import start_embedded

dsn = start_embedded(Path(sys.argv[1]))
with psycopg.connect(dsn, autocommit=True) as connection:
    print(connection.execute("SELECT count(*) FROM pg_database WHERE datname = 'ofp'").fetchone()[0], flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ofp-embedded-é-") as name:  # the DSN must quote it
        data = Path(name) / "pg"
        yield data
        stop_embedded(data)


def _running(folder: Path) -> bool:
    return (folder / "postmaster.pid").exists()


def test_settings_are_durable(folder: Path) -> None:
    with psycopg.connect(start_embedded(folder)) as connection:
        for name, value in {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "jit": "off",
            "max_connections": "200",
            "shared_buffers": "512MB",
            "max_wal_size": "4GB",
            "listen_addresses": "",
        }.items():
            row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            assert row == (value,), name
        assert connection.info.dbname == "ofp"


def test_data_survives_a_stop_and_starting_twice_is_one_server(folder: Path) -> None:
    dsn = start_embedded(folder)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (7)")
        assert start_embedded(folder) == dsn
    assert stop_embedded(folder)
    assert not _running(folder)
    assert not stop_embedded(folder)
    with psycopg.connect(start_embedded(folder)) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]
    settings = (folder / "postgresql.conf").read_text()
    assert settings.count("include_if_exists = 'ofp.conf'") == 1


def test_several_processes_share_it_and_the_last_one_stops_it(folder: Path) -> None:
    command = [sys.executable, "-c", USER, str(folder)]
    users = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = users
    try:
        for user in users:
            assert user.stdout is not None
            assert user.stdout.readline() == "1\n"
        first.communicate("\n", timeout=60)
        assert _running(folder)
        second.communicate("\n", timeout=60)
        assert not _running(folder)
    finally:
        for user in users:
            user.kill()
            user.communicate()


def test_a_killed_process_does_not_keep_it_alive(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as user:
        assert user.stdout is not None
        user.stdout.readline()
        user.kill()
    assert _running(folder)
    start_embedded(folder)
    release_embedded(folder)
    assert not _running(folder)


def test_a_killed_server_is_missed_and_started_again(folder: Path) -> None:
    dsn = start_embedded(folder)
    assert embedded_listens(dsn)
    os.kill(int((folder / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    while embedded_listens(dsn):
        time.sleep(0.01)
    assert start_embedded(folder) == dsn  # at once, whether or not the killed process was reaped by then
    assert embedded_listens(dsn)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_folder_that_cannot_be_says_what_to_do(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(EmbeddedPostgresError, match=r"(?s)does not start.*Or use another PostgreSQL"):
        start_embedded(blocked / "pg")


def test_a_folder_of_another_version_says_so(tmp_path: Path) -> None:
    (tmp_path / "pg").mkdir()
    (tmp_path / "pg" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedPostgresError, match="found version 16"):
        start_embedded(tmp_path / "pg")


def test_a_folder_that_pg_ctl_cannot_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"must not contain ' ', '\$'"):
        start_embedded(tmp_path / "my $data")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_outlives_its_server_ends_without_a_word(folder: Path) -> None:
    command = [sys.executable, "-c", USER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "1\n"
        assert stop_embedded(folder)
        assert user.communicate("\n", timeout=60) == ("", "")
    assert user.returncode == 0
    assert not _running(folder)


@pytest.fixture
def long_folder() -> Iterator[Path]:
    """A data folder whose path is too long for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="ofp-embedded-") as name:
        data = Path(name) / ("long" * 40) / "pg"
        yield data
        stop_embedded(data)
        if (memory := data.with_name("pg.socket")).exists():
            shutil.rmtree(memory.read_text().strip(), ignore_errors=True)


def modes_above(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mode for path in folder.parents if path.exists()}


def log_in(dsn: str) -> object:
    with psycopg.connect(dsn, connect_timeout=5) as connection:
        return connection.execute("SELECT current_user").fetchone()


@needs_root
@pytest.mark.parametrize("kind", ["folder", "long_folder"])
def test_another_user_gets_nowhere(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    dsn = start_embedded(folder)
    socket_folder = Path(psycopg.conninfo.conninfo_to_dict(dsn)["host"])
    for address in (dsn, as_role(dsn, SUPERUSER)):
        assert re.match(r"OperationalError.*Permission denied", as_nobody(partial(log_in, address)), re.DOTALL)
    for place in (folder, socket_folder, folder.parent, socket_folder.parent):
        assert as_nobody(partial(os.listdir, place)).startswith("PermissionError")
    # were all folders open: the server asks the kernel who is there
    for place in {folder, *folder.parents, *socket_folder.parents} - modes_above(Path(tempfile.gettempdir()) / "x").keys():
        place.chmod(0o755)
    (folder / ".s.PGSQL.5432").chmod(0o777)
    try:
        for address in (dsn, as_role(dsn, SUPERUSER)):
            assert "Peer authentication failed" in as_nobody(partial(log_in, address))
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("kind", ["folder", "long_folder"])
def test_nothing_that_was_there_is_opened(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    programs = postgres_programs().folder
    before = modes_above(folder) | modes_above(programs) | {programs: programs.stat().st_mode}
    dsn = start_embedded(folder)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT current_user").fetchone() == (OWNER_ROLE,)
    assert {path: path.stat().st_mode for path in before} == before
    made = [folder, *(path for path in folder.parents if path not in before)]
    assert {path.stat().st_mode & 0o7777 for path in made} == {0o700}
    for path in (*folder.rglob("*"), folder.with_name("pg.lock"), folder.with_name("pg.users")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_long_path_is_reached_through_a_folder_of_ones_own(long_folder: Path) -> None:
    dsn = start_embedded(long_folder)
    socket_folder = Path(psycopg.conninfo.conninfo_to_dict(dsn)["host"])
    assert socket_folder.resolve() == long_folder
    own = socket_folder.parent.lstat()
    assert (own.st_uid, own.st_mode & 0o7777) == (os.geteuid(), 0o700)
    assert stop_embedded(long_folder)
    assert start_embedded(long_folder) == dsn
    stop_embedded(long_folder)
    shutil.rmtree(socket_folder.parent)  # as what cleans /tmp does
    with psycopg.connect(start_embedded(long_folder)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("squatter", ["another user", "other rights", "a link", "a file"])
def test_a_squatted_socket_folder_is_refused(long_folder: Path, tmp_path: Path, squatter: str) -> None:
    if squatter == "another user" and os.geteuid() != 0:
        pytest.skip("only root can make a folder of another user")
    start_embedded(long_folder)
    stop_embedded(long_folder)
    place = Path(long_folder.with_name("pg.socket").read_text().strip())
    shutil.rmtree(place)
    if squatter == "a link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "theirs")
    elif squatter == "a file":
        place.touch()
    else:
        place.mkdir(mode=0o700)
        place.chmod(0o755 if squatter == "other rights" else 0o700)
        if squatter == "another user":
            os.chown(place, NOBODY, NOBODY)
    words = {
        "another user": "belongs to user 'nobody'",
        "other rights": "has mode 0755.*chmod 700",
        "a link": "is a symbolic link",
        "a file": "is no folder",
    }
    try:
        with pytest.raises(EmbeddedPostgresError, match=f"(?s)is not started: {place} {words[squatter]}"):
            start_embedded(long_folder)
        assert not _running(long_folder)
    finally:
        place.unlink() if squatter in ("a link", "a file") else place.rmdir()


@needs_root
@pytest.mark.parametrize("name", ["pg.lock", "pg.users"])
def test_a_lock_of_another_user_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    lock = folder.with_name(name)
    lock.touch()
    os.chown(lock, NOBODY, NOBODY)
    with pytest.raises(EmbeddedPostgresError, match="belongs to user 'nobody'"):
        start_embedded(folder)
    lock.unlink()
    target = folder.with_name("target")
    target.write_text("kept")
    lock.symlink_to(target)
    with pytest.raises(EmbeddedPostgresError, match="is a symbolic link"):
        start_embedded(folder)
    assert target.read_text() == "kept"


def test_data_that_others_may_reach_is_refused(folder: Path) -> None:
    start_embedded(folder)
    stop_embedded(folder)
    folder.chmod(0o755)
    with pytest.raises(EmbeddedPostgresError, match="has mode 0755"):
        start_embedded(folder)
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, -1)
        with pytest.raises(EmbeddedPostgresError, match="belongs to user 'nobody'"):
            start_embedded(folder)
        os.chown(folder, postgres_programs().uid, -1)


def test_what_the_server_put_in_the_place_of_a_file_is_not_written_through(folder: Path, tmp_path: Path) -> None:
    start_embedded(folder)
    stop_embedded(folder)
    target = tmp_path / "of-the-service"
    target.write_text("kept")
    for name in ("ofp.conf", "pg_hba.conf", "pg_ident.conf", ".ofp.conf.partial"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    start_embedded(folder)
    assert target.read_text() == "kept"
    assert not (folder / "pg_hba.conf").is_symlink()


def test_the_role_of_the_plane_is_no_superuser(folder: Path) -> None:
    dsn = start_embedded(folder)
    migrate(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert row == (False, False, False, False, False)
        for statement in (
            "COPY (SELECT 1) TO PROGRAM 'cat'",
            "COPY (SELECT 1) TO '/tmp/ofp-written'",
            "SELECT pg_read_file('/etc/passwd')",
            "ALTER SYSTEM SET listen_addresses = '*'",
            "SET ROLE postgres",
            "SET SESSION AUTHORIZATION postgres",
            "CREATE ROLE other SUPERUSER",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_no_setting_opens_the_network(folder: Path) -> None:
    with psycopg.connect(as_role(start_embedded(folder), SUPERUSER), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET listen_addresses = '*'")
        connection.execute("ALTER SYSTEM SET unix_socket_directories = '/tmp'")
    stop_embedded(folder)
    with psycopg.connect(as_role(start_embedded(folder), SUPERUSER)) as connection:
        shown = connection.execute("SELECT current_setting('listen_addresses'), current_setting('unix_socket_directories')")
        assert shown.fetchone() == ("", ".")


def test_a_server_of_an_earlier_version_is_walled_in_and_handed_over(folder: Path) -> None:
    programs = postgres_programs()
    folder.mkdir(mode=0o700)
    os.chown(folder, programs.uid, -1)
    here = programs.data_argument(folder)
    programs.call("initdb", "-D", here, "--auth=trust", "--encoding=utf8", "-U", "postgres", data_dir=folder)
    options = f'-h "" -k {here}'
    programs.call("pg_ctl", "start", "-w", "-o", options, "-l", "log", "-D", here, data_dir=folder)
    old = f"postgresql://postgres@/postgres?host={folder}"
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute("CREATE DATABASE ofp")
    migrate(old.replace("/postgres?", "/ofp?"))
    with psycopg.connect(old.replace("/postgres?", "/ofp?"), autocommit=True) as connection:
        connection.execute("CREATE TABLE public.runs (n bigserial)")
    dsn = start_embedded(folder)
    with psycopg.connect(dsn, autocommit=True) as connection:
        foreign = connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname IN ('ofp', 'public') AND c.relowner <> 'ofp_owner'::regrole"
        ).fetchall()
        assert foreign == []
        connection.execute("INSERT INTO public.runs DEFAULT VALUES")
        connection.execute("ALTER TABLE ofp.chunk ADD COLUMN later int")
    migrate(dsn)
    rules = [line for line in (folder / "pg_hba.conf").read_text().splitlines() if line and not line.startswith("#")]
    assert {rule.split()[3] for rule in rules} == {"peer"}
    if os.geteuid() == 0:
        folder.chmod(0o711)
        folder.parent.chmod(0o711)
        (folder / ".s.PGSQL.5432").chmod(0o777)
        assert "Peer authentication failed" in as_nobody(partial(log_in, as_role(dsn, SUPERUSER)))
        folder.chmod(0o700)


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pg").mkdir(mode=0o700)
    (tmp_path / "pg" / "letter").write_text("to you")
    with pytest.raises(EmbeddedPostgresError, match="holds no PostgreSQL"):
        start_embedded(tmp_path / "pg")
    assert [path.name for path in (tmp_path / "pg").iterdir()] == ["letter"]


def test_an_initialisation_that_was_killed_is_done_again(folder: Path) -> None:
    partial_folder = folder.with_name("pg.partial")
    partial_folder.mkdir()
    (partial_folder / "PG_VERSION").write_text("18\n")
    with psycopg.connect(start_embedded(folder)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not partial_folder.exists()
