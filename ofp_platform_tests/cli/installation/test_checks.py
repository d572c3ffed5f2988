"""`ofp doctor`, on an installation that is well and on broken ones."""

from __future__ import annotations

import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest

from ofp_platform.api.examples import health_example
from ofp_platform.cli.demo.replay import project_available
from ofp_platform.cli.environment import Environment
from ofp_platform.cli.installation import checks
from ofp_platform.cli.installation.checks import State, examine, free_port, home_rights, packages, python_version
from ofp_platform.cli.installation.local_principals import ensure_local_principals
from ofp_platform.log import kinesis
from ofp_platform_tests.cli.program import Ofp
from ofp_platform_tests.log.conftest import FakeKinesis
from ofp_platform_tests.oracle.simulated_log import append, write_profile

FIRST = "shardId-000000000000"


def found(environment: Environment) -> dict[str, checks.Finding]:
    return {finding.subject: finding for finding in examine(environment)}


def test_a_plane_that_is_well(on_plane: Ofp) -> None:
    outcome = on_plane("doctor")
    assert outcome.code == 0, outcome.out
    assert outcome.out.splitlines()[-1] == "nothing is wrong"
    assert "WRONG" not in outcome.out
    for subject in ("Python", "packages", "home", "profile", "pack", "object store", "database", "schema", "log", "projector"):
        assert f"ok    {subject}: " in outcome.out
    assert "ok    pack against the store: no published group version is redefined (7 in the store)\n" in outcome.out


def test_it_changes_nothing(ofp: Ofp, dsn: str, plane_home: dict[str, str]) -> None:
    first, second = (ofp("doctor", OFP_DATABASE_URL=dsn) for _ in range(2))
    assert first.code == second.code == 0
    assert (
        "note  log: no stream card-payments yet\n      -> ofp log append, ofp projector run, ofp up or ofp demo makes it\n"
        in second.out
    )


def test_a_database_that_is_down(ofp: Ofp) -> None:
    outcome = ofp("doctor")
    assert outcome.code == 1
    assert "WRONG database: connection failed: " in outcome.out
    assert "-> look at OFP_DATABASE_URL, and whether that server runs\n" in outcome.out
    assert outcome.out.splitlines()[-1].endswith("checks found something wrong")


def test_a_dsn_that_is_none(tmp_path: Path) -> None:
    database = found(Environment(home=tmp_path, database_url="postgres//x"))["database"]
    assert (database.state, database.result.partition(",")[0]) == (State.WRONG, "OFP_DATABASE_URL is not a PostgreSQL DSN")


def test_a_schema_that_is_old(tmp_path: Path, empty_dsn: str) -> None:
    schema = found(Environment(home=tmp_path, database_url=empty_dsn))["schema"]
    assert (schema.state, schema.advice) == (State.WRONG, "ofp migrate (ofp demo and ofp up do it, too)")


def test_a_profile_with_a_typo_and_one_with_a_bad_pack(tmp_path: Path, empty_dsn: str) -> None:
    profile = tmp_path / "profile.yaml"
    shipped = Path(checks.__file__).parents[1] / "profiles" / "demo.yaml"
    profile.write_text(shipped.read_text() + "streem_name: x\n")
    wrong = found(Environment(home=tmp_path, database_url=empty_dsn))
    assert wrong["profile"].state is State.WRONG
    assert "profile.yaml: streem_name: " in wrong["profile"].result
    assert "pack" not in wrong
    (tmp_path / "pack.yaml").write_text("pack_id: x\n")
    profile.write_text(shipped.read_text().replace("pack: card_payments", f"pack: {tmp_path}/pack.yaml"))
    pack = found(Environment(home=tmp_path, database_url=empty_dsn))["pack"]
    assert pack.state is State.WRONG
    assert pack.advice == f"correct it, then: ofp registry check {tmp_path}/pack.yaml"


def test_an_object_store_that_takes_nothing(tmp_path: Path, empty_dsn: str) -> None:
    (tmp_path / "objects").write_text("a file in the way")
    assert found(Environment(home=tmp_path, database_url=empty_dsn))["object store"].state is State.WRONG


def test_a_home_that_is_no_folder(tmp_path: Path, empty_dsn: str) -> None:
    (tmp_path / "file").write_text("")
    home = found(Environment(home=tmp_path / "file" / "home", database_url=empty_dsn))["home"]
    assert (home.state, home.advice) == (State.WRONG, "choose another with --home or OFP_HOME")


def test_a_dagster_home_without_its_file(tmp_path: Path, empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    environment = Environment(home=tmp_path, database_url=empty_dsn)
    assert found(environment)["Dagster"].state is State.WRONG
    (tmp_path / "dagster.yaml").write_text("")
    assert found(environment)["Dagster"].state is State.WELL


def test_principals_that_cannot_be_used(tmp_path: Path, empty_dsn: str) -> None:
    environment = Environment(home=tmp_path, database_url=empty_dsn)
    assert found(environment)["principals"].state is State.NOTE
    ensure_local_principals(environment, environment.load_profile().context_pins)
    principals = found(environment)["principals"]
    assert (principals.state, principals.result[:2]) == (State.WELL, "4 ")
    environment.principals_file.write_text("{}")
    assert found(environment)["principals"].state is State.WRONG


def test_a_pooler_and_a_read_only_server_are_named(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.sessions(dsn).state is State.WELL
    read_only = psycopg.conninfo.make_conninfo(dsn, options="-c default_transaction_read_only=on")
    finding = checks.sessions(read_only)
    assert (finding.state, "read-only" in finding.result) == (State.WRONG, True)
    monkeypatch.setattr(checks, "keeps_sessions", lambda _dsn: False)
    finding = checks.sessions(dsn)
    assert (finding.state, "pool_mode" in finding.result) == (State.WRONG, True)
    assert "pool_mode = session" in finding.advice


def test_interpreters_packages_and_ports() -> None:
    assert python_version((3, 11)).state is State.WELL
    assert python_version((3, 10)).state is State.WRONG
    assert python_version((3, 14)).state is State.WRONG
    assert packages(["typer>=0.15", "boto3-stubs; extra == 'dev'"]).result == "all 1 are installed"
    assert packages(["typer", "no-such-package>=1"]).result == "not installed: no-such-package"
    assert packages([]).advice == "make setup"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port, "HTTP service").state is State.NOTE
    assert free_port(port, "HTTP service").result == "free for the HTTP service"


@pytest.fixture
def fake_kinesis(monkeypatch: pytest.MonkeyPatch) -> FakeKinesis:
    """Every client of Kinesis is this one."""
    fake = FakeKinesis()
    monkeypatch.setattr(kinesis, "kinesis_client", lambda *_arguments, **_settings: fake)
    monkeypatch.setattr(checks.boto3, "client", lambda *_arguments, **_settings: fake)
    return fake


@pytest.fixture
def kinesis_environment(fake_kinesis: FakeKinesis, dsn: str, tmp_path: Path) -> Environment:
    """A plane on Kinesis that has applied all of its log, of one shard; nothing is archived."""
    path = write_profile(tmp_path, log_kind="kinesis", partitions=1)
    environment = Environment(home=tmp_path, database_url=dsn, profile=str(path))
    with environment.open_plane("owner", create_stream=True) as plane:
        append(plane.log)
        project_available(plane.projector(plane.ensure_live()), 1_000, lambda records: None)
    return environment


def test_the_retention_of_kinesis_is_shown_and_an_archive_that_lags_is_named(
    kinesis_environment: Environment, fake_kinesis: FakeKinesis
) -> None:
    log = found(kinesis_environment)["log"]
    assert (log.state, "keeps records for 24 hours" in log.result) == (State.WELL, True)
    fake_kinesis.pass_time(hours=13)
    log = found(kinesis_environment)["log"]
    assert (log.state, "not archived has used 54%" in log.result) == (State.WRONG, True)
    assert log.advice.startswith("ofp archive run --to-head")


def test_a_shard_that_expired_unread_is_named(kinesis_environment: Environment, fake_kinesis: FakeKinesis) -> None:
    with kinesis_environment.open_plane("owner") as plane:
        append(plane.log)
    fake_kinesis.split(FIRST)
    fake_kinesis.pass_time(hours=30)
    log = found(kinesis_environment)["log"]
    assert log.state is State.WRONG
    assert FIRST in log.result
    assert "reading cannot go on" in log.result


def test_a_shard_that_was_quiet_for_too_long_is_named(kinesis_environment: Environment, fake_kinesis: FakeKinesis) -> None:
    fake_kinesis.pass_time(hours=30)
    log = found(kinesis_environment)["log"]
    assert log.state is State.WRONG, log
    assert FIRST in log.result


class _Ill(BaseHTTPRequestHandler):
    """A service of which a background task ended."""

    def do_GET(self) -> None:
        health = health_example() | {"state": "RED", "reasons": ["TASK_ENDED:health monitor:KeyError"]}
        body = json.dumps(health).encode()
        self.send_response(503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Nothing on stderr."""


def test_a_background_task_that_ended_is_named() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Ill) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            finding = free_port(server.server_address[1], "HTTP service")
        finally:
            server.shutdown()
            thread.join()
    assert finding.state is State.WRONG
    assert finding.result == "the HTTP service of the plane is RED: TASK_ENDED:health monitor:KeyError"


def test_a_projector_that_died_is_named(kinesis_environment: Environment) -> None:
    projector = found(kinesis_environment)["projector"]
    assert (projector.state, "no continuous driver runs" in projector.result) == (State.WELL, True)
    with kinesis_environment.open_plane("owner") as plane, plane.pool.connection() as connection:
        connection.execute("INSERT INTO ofp.projection_driver SELECT projection_id FROM ofp.projection")
    projector = found(kinesis_environment)["projector"]
    assert (projector.state, projector.advice) == (State.WRONG, "ofp projector run")
    assert projector.result.endswith("no continuous driver runs, and the last one was not stopped: it died")


def test_an_old_home_that_others_reach_is_named_with_its_mending(tmp_path: Path) -> None:
    home, socket_folder = tmp_path / "home", tmp_path / "socket"
    for folder in (home, socket_folder):
        folder.mkdir(mode=0o700)
    (home / "keys").mkdir(mode=0o700)
    key = home / "keys" / "console"
    key.touch(mode=0o600)
    (home / "postgres.socket").touch(mode=0o600)
    (home / "postgres.socket").write_text(f"{socket_folder}\n")

    def rights() -> tuple[State, str, str]:
        finding = home_rights(Environment(home=home))
        return finding.state, finding.result, finding.advice

    assert rights()[0] is State.WELL
    key.chmod(0o644)
    state, result, advice = rights()
    assert (state, f"{key} among them" in result, advice) == (State.NOTE, True, f"chmod -R go= {home}")
    key.chmod(0o600)
    for folder in (home, socket_folder):
        folder.chmod(0o755)
        state, result, advice = rights()
        assert (state, str(folder) in result, advice) == (State.WRONG, True, f"chmod 700 {folder}")
        folder.chmod(0o700)
    if os.geteuid() == 0:  # only root gives away
        for path in (key, home):
            os.chown(path, 65534, -1)
            state, result, advice = rights()
            assert (state, str(path) in result) == (State.WRONG, True)
            assert f"chown -R 0 {path}" in advice
            os.chown(path, 0, -1)
    assert rights()[0] is State.WELL
