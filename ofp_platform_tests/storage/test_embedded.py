"""The embedded server: durable settings, several processes, a stop that stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ofp_platform.storage.embedded import (
    EmbeddedPostgresError,
    embedded_listens,
    release_embedded,
    start_embedded,
    stop_embedded,
)

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
        Path(name).chmod(0o755)
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
    assert user.pid in json.loads((folder / ".handle_pids.json").read_text())
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
