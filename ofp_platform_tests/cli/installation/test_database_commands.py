"""`ofp database`: what it prints makes roles, and what it registers holds."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from ofp_platform.storage.embedded import as_role
from ofp_platform.storage.roles import SESSION_LIMITS, Job
from ofp_platform_tests.cli.program import Ofp


@pytest.fixture
def prefix(embedded_server: str, dsn: str) -> Iterator[str]:
    """Roles of the test's own, made by what the command prints; dropped with all that they were given."""
    name = f"t{uuid.uuid4().hex[:12]}"
    yield name
    with psycopg.connect(as_role(dsn, "postgres"), autocommit=True) as inside:
        for job in Job:
            role = sql.Identifier(f"{name}_{job}")
            inside.execute(sql.SQL("DROP OWNED BY {}").format(role))
            inside.execute(sql.SQL("DROP ROLE {}").format(role))


def test_roles_of_another_name_do_their_job(ofp: Ofp, embedded_server: str, dsn: str, prefix: str) -> None:
    printed = ofp("database", "sql", "--prefix", prefix)
    assert printed.code == 0
    with psycopg.connect(embedded_server, autocommit=True) as administrator:
        administrator.execute(printed.out)
    role = f"{prefix}_serving"
    theirs = as_role(dsn, role)
    with psycopg.connect(theirs, autocommit=True) as connection:
        for setting, value in SESSION_LIMITS[Job.SERVING].items():
            assert connection.execute("SELECT current_setting(%s)", (setting,)).fetchone() == (value,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT count(*) FROM ofp.projection")
        outcome = ofp("database", "register", role, "serving", OFP_DATABASE_URL=dsn)
        assert outcome.out == f"{role} has the job serving, for the run of the profile\n"
        assert connection.execute("SELECT count(*) FROM ofp.projection").fetchone() == (0,)
        assert [role, "serving", "1"] in _roles(ofp, dsn)
        assert ofp("database", "register", role, "auditor", "--every-run", OFP_DATABASE_URL=dsn).code == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO ofp.snapshot_index DEFAULT VALUES")
        assert [role, "auditor", "every run"] in _roles(ofp, dsn)


def _roles(ofp: Ofp, dsn: str) -> list[list[str]]:
    return [re.split(" {2,}", line) for line in ofp("database", "roles", OFP_DATABASE_URL=dsn).out.splitlines()]


def test_a_role_or_job_that_is_not_there(ofp: Ofp, dsn: str) -> None:
    assert (
        "there is no job 'king'; there are ingress," in ofp("database", "register", "x", "king", OFP_DATABASE_URL=dsn).refused()
    )
    missing = ofp("database", "register", "nobody_here", "serving", OFP_DATABASE_URL=dsn)
    assert "there is no role 'nobody_here'" in missing.refused()
    assert "nobody_here" not in ofp("database", "roles", OFP_DATABASE_URL=dsn).out


def test_a_role_cannot_register_itself(ofp: Ofp, dsn: str) -> None:
    outcome = ofp("database", "register", "ofp_serving", "offline", OFP_DATABASE_URL=as_role(dsn, "ofp_serving"))
    assert "the database does not let this role do that" in outcome.refused()
