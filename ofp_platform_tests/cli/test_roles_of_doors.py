"""Each command connects in the role of its job: a trigger of the server notes who logs in, whatever the program says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.main import get_command

from ofp_platform.cli.main import app
from ofp_platform.online.plane import Plane
from ofp_platform.orchestration.resources import BuildContextResource, FeatureReaderResource, PlaneResource
from ofp_platform.storage.embedded import SUPERUSER, as_role
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.oracle.simulated_log import append, profile, write_profile

HASH, REASON = "0" * 64, ("--reason", "x")
ACTED = ("--actor", "x", *REASON)
OWNER = {"migrate", "retention", "database register", "log trim", "log accept", "archive restore", "run cancel", "run work"}
OWNER |= {"bundle publish", "bundle approve", "bundle activate", "bundle rollback", "bundle retire", "model retrain"}
"""The schema, rights, runs, and taking away or putting back what others can only add."""
DOORS: dict[str, tuple[str, tuple[str, ...]]] = {
    "action list": ("auditor", ()),
    "action request": ("ingress", ("hold_account", "account:a", "--reference", "ticket-1", *REASON)),
    "action run": ("executor", ("--once",)),
    "action settle": ("executor", ("00000000", "--done", *REASON)),
    "action show": ("auditor", ("00000000",)),
    "apply": ("offline", ("card_payments", "--plan", "00000000", *REASON)),
    "archive list": ("offline", ()),
    "archive restore": ("owner", ("--dry-run",)),
    "archive run": ("offline", ()),
    "archive verify": ("offline", ()),
    "audit append": ("offline", ()),
    "audit cosign": ("auditor", ()),
    "audit key rotate": ("offline", (HASH, *REASON)),
    "audit prove": ("auditor", (HASH,)),
    "audit verify": ("auditor", ()),
    "build prune": ("offline", ()),
    "bundle activate": ("owner", ("card_payments", *ACTED)),
    "bundle approve": ("owner", ("card_payments", *ACTED)),
    "bundle export": ("auditor", ("card_payments", "--openlineage", "FILE")),
    "bundle list": ("auditor", ()),
    "bundle publish": ("owner", ("card_payments", *ACTED)),
    "bundle resolve": ("auditor", ()),
    "bundle retire": ("owner", ("card_payments", *ACTED)),
    "bundle rollback": ("owner", ("card_payments", *ACTED)),
    "bundle show": ("auditor", ("card_payments",)),
    "case act": ("offline", (HASH, "--action", "hold", "--target", "account:a", *REASON)),
    "case assert": ("offline", (HASH, "fraud")),
    "case close": ("offline", (HASH, *REASON)),
    "case collect": ("offline", ()),
    "case list": ("auditor", ()),
    "case note": ("offline", (HASH, "--text", "x")),
    "case reopen": ("offline", (HASH, *REASON)),
    "case settle": ("offline", ()),
    "case show": ("auditor", (HASH,)),
    "case trigger": ("offline", ("e-1", "--class", "card_payment", *REASON)),
    "catalog list": ("auditor", ()),
    "catalog show": ("auditor", ("account_activity",)),
    "database register": ("owner", ("nobody", "serving", "--every-run")),
    "database roles": ("auditor", ()),
    "dataset list": ("offline", ()),
    "decide": ("offline serving", ("--url", "http://127.0.0.1:1", "--token", "x", "--count", "1")),
    "doctor": ("auditor owner", ()),
    "facts publish": ("offline", ("facts/1",)),
    "facts show": ("offline", ("facts/1",)),
    "features get": ("serving", ("--key", "account:a", "--group", "account_activity:v1", "--as-of", "2026-01-03T00:00:00Z")),
    "decider show": ("auditor", ()),
    "decision replay": ("auditor", ()),
    "decision show": ("auditor", (HASH,)),
    "decision whatif": ("auditor", ("--as-known-now",)),
    "governance list": ("auditor", ()),
    "governance reconcile": ("auditor", ()),
    "id list": ("offline", ()),
    "identity catch-up": ("projector", ()),
    "identity show": ("auditor", ("account:a",)),
    "identity status": ("auditor", ()),
    "ingress archive": ("offline", ()),
    "ingress receipts": ("auditor", ()),
    "ingress reconcile": ("auditor", ()),
    "ingress settle": ("ingress", ()),
    "intent list": ("offline", ()),
    "intent new": ("offline", ("mine",)),
    "intent show": ("offline", (HASH,)),
    "intent cancel": ("offline", (HASH,)),
    "intent retry": ("offline", (HASH,)),
    "labels load": ("offline", ()),
    "labels show": ("offline", ()),
    "log accept": ("owner", ("0000", *REASON)),
    "log append": ("ingress", ("FILE",)),
    "log ends": ("auditor", ()),
    "log show": ("auditor", ("0000:1",)),
    "log trim": ("owner", ("--archived", "--dry-run")),
    "migrate": ("owner", ()),
    "model retrain": ("owner", ("rows:00000000", "--actor", "x")),
    "parity corrections": ("offline", ()),
    "parity run": ("offline", ()),
    "parity show": ("auditor", ()),
    "plan": ("offline", ("card_payments",)),
    "posture challenge": ("decider", ("--wait", "0.1")),
    "posture hold": ("decider", ("HOLD", *REASON)),
    "posture release": ("decider", REASON),
    "posture show": ("auditor", ()),
    "projection list": ("auditor", ()),
    "projection rebuild": ("projector", ()),
    "projection reshard": ("projector", ("1", "2")),
    "projection retire": ("projector", ("1",)),
    "projector anomalies": ("auditor", ()),
    "projector catch-up": ("projector", ()),
    "projector failures": ("auditor", ()),
    "projector status": ("auditor", ()),
    "quarantine list": ("auditor", ()),
    "quarantine show": ("auditor", ("1",)),
    "quarantine replay": ("ingress", ("1", *REASON)),
    "registry check": ("auditor", ("card_payments", "--store")),
    "retention": ("owner", ("--dry-run",)),
    "rollback": ("projector", REASON),
    "run cancel": ("owner", REASON),
    "run list": ("auditor", ()),
    "run show": ("auditor", ()),
    "run work": ("owner", ()),
    "snapshot explain": ("auditor", (HASH, "--feature", "f")),
    "snapshot rebuild": ("auditor", (HASH,)),
    "snapshot reindex": ("offline", ()),
    "snapshot show": ("auditor", (HASH,)),
}
"""By command: the roles that it logs in as, and what is called. It need not succeed: who logs in is looked at."""
WITHOUT_DATABASE = {
    "ingress class-map",
    "access list",
    "audit key new",
    "identity mint",
    "init",
    "mcp serve",
    "model train",
    "pack from-feast",
    "pack infer",
    "principal add",
}
WITHOUT_DATABASE |= {"principal distrust", "principal issuers", "principal list", "principal revoke", "principal rotate"}
WITHOUT_DATABASE |= {"principal trust", "profile diff", "profile show", "registry diff"}
WITHOUT_DATABASE |= {"world list", "world make", "world seal", "world show", "world verify"}
WITHOUT_DATABASE |= {"registry show", "database sql", "dataset show", "dataset diff", "dataset load"}
ELSEWHERE = {"backup", "restore", "services up", "services down", "services run", "demo", "up"}
"""Servers of their own; `demo` and `up` start commands that are walked through here."""
AS_A_NEIGHBOUR = {
    "archive keep": "archive run",
    "build run": "build prune",
    "dataset export": "dataset list",
    "dataset from-entities": "intent new",
    "dataset verify": "dataset list",
    "id adjudicate": "id list",
    "intent check": "plan",
    "intent submit": "intent new",
    "intent wait": "intent list",
    "labels append": "labels load",
    "log import": "log append",
    "ingress admit": "log append",
    "ingress serve": "log append",
    "world stream": "log append",
    "projection switch": "projection rebuild",
    "decider run": "posture hold",
    "posture watch": "posture hold",
    "projector run": "projector catch-up",
    "run end": "run cancel",
    "run request": "run cancel",
    "serve": "features get",
}
"""Commands that take a file, or run until they are stopped: of the same role, which their own tests run them in."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    for name, one in getattr(command, "commands", {}).items():
        yield from leaves(one, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path)


def test_every_command_has_a_role() -> None:
    assert sorted([*DOORS, *WITHOUT_DATABASE, *ELSEWHERE, *AS_A_NEIGHBOUR]) == sorted(leaves(get_command(app)))
    assert {name for name, (roles, _) in DOORS.items() if roles == "owner"} == OWNER


@pytest.fixture(scope="module")
def world(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A plane with some events, and the trigger."""
    folder = tmp_path_factory.mktemp("doors")
    with psycopg.connect(as_role(module_dsn, SUPERUSER), autocommit=True) as connection:
        connection.execute("CREATE TABLE public.login (role text)")
        connection.execute("""
            CREATE FUNCTION public.note_login() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
            $$ BEGIN INSERT INTO public.login VALUES (session_user); END $$""")
        connection.execute("CREATE EVENT TRIGGER note_login ON login EXECUTE FUNCTION public.note_login()")
        connection.execute("ALTER EVENT TRIGGER note_login ENABLE ALWAYS")
    with Plane.open(profile(folder), module_dsn) as plane:
        append(plane.log)
        plane.ensure_live()
    (folder / "FILE").write_text("")
    return {"OFP_HOME": str(folder), "OFP_DATABASE_URL": module_dsn, "OFP_PROFILE": str(write_profile(folder))}


@pytest.fixture
def logins(world: dict[str, str]) -> Iterator[Callable[[], set[str]]]:
    """Who logged in since the last call."""
    with psycopg.connect(as_role(world["OFP_DATABASE_URL"], SUPERUSER), autocommit=True) as connection:

        def since() -> set[str]:
            rows = connection.execute("DELETE FROM public.login WHERE role <> %s RETURNING role", (SUPERUSER,)).fetchall()
            return {role.removeprefix("ofp_") for (role,) in rows}

        since()
        yield since


def test_each_command_connects_in_the_role_of_its_job(world: dict[str, str], logins: Callable[[], set[str]]) -> None:
    roles = {}
    for name in ["projector catch-up", *DOORS]:
        arguments = [str(Path(world["OFP_HOME"]) / one) if one == "FILE" else one for one in DOORS[name][1]]
        outcome = call(*name.split(), *arguments, **world)
        assert (outcome.code in (0, 1), "permission denied" in outcome.err) == (True, False), outcome
        roles[name] = " ".join(sorted(logins()))
    assert roles == {name: expected for name, (expected, _) in DOORS.items()}


def test_dagster_connects_in_the_role_of_the_work(
    world: dict[str, str], logins: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in world.items():
        monkeypatch.setenv(name, value)
    plane, builds, reader = PlaneResource(), BuildContextResource(), FeatureReaderResource()
    with plane.open():
        assert logins() - {"owner"} == {"projector"}  # the owner looks once a process whether the schema is there
    with plane.open("offline"), plane.open_pool():
        assert logins() == {"offline"}
    with builds.open():
        assert logins() == {"offline"}
    with reader.open():
        assert logins() == {"serving"}
