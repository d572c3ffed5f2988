"""Real servers of a home: who is let in, who may read what lies there, what is left when they end or one of them dies."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psycopg
import pytest
from botocore.exceptions import ClientError
from psycopg import conninfo
from psycopg_pool import PoolTimeout

from ofp_platform.cli.demo.summary import unaccounted
from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.cli.services import postgres_service as postgres_module
from ofp_platform.cli.services.certificates import Authority
from ofp_platform.cli.services.object_service import ObjectService, new_credentials, s3_client
from ofp_platform.cli.services.postgres_service import SUPERUSER, PostgresService, postgres_service
from ofp_platform.cli.services.service_processes import Services, running_services
from ofp_platform.log.port import LogUnavailable
from ofp_platform.online.plane import Plane
from ofp_platform.online.state.progress import read_progress
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.storage.postgres import DatabaseUnavailable
from ofp_platform.storage.roles import Job, default_role
from ofp_platform.storage.schema import migrate
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.oracle.simulated_log import deliveries, heads, profile
from ofp_platform_tests.torture.faults.periods import persist


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    with tempfile.TemporaryDirectory(prefix="ofp-services-") as name:
        (Path(name) / "private").mkdir(mode=0o700)
        with running_services(Path(name) / "private", Path(name) / "logs") as made:
            migrate(made.postgres.dsn())
            yield made


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresService]:
    """The server out of the wheel, which has no TLS of its own."""
    folder = tmp_path_factory.mktemp("packaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_module, "_SYSTEM_PROGRAMS", folder / "nothing")
        with postgres_service(folder, folder / "log", Authority(folder, "authority")) as made:
            yield made


@pytest.fixture(params=["services", "packaged"])
def postgres(request: pytest.FixtureRequest) -> PostgresService:
    server = request.getfixturevalue(request.param)
    return server if isinstance(server, PostgresService) else server.postgres


def refusal(dsn: str, **changes: str) -> str:
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect(conninfo.make_conninfo(dsn, connect_timeout="5", **changes)).close()
    return str(caught.value)


def test_each_job_has_a_role_that_comes_in_by_verified_tls_and_password(postgres: PostgresService) -> None:
    for job in Job:
        with psycopg.connect(postgres.dsn(default_role(job))) as connection:
            assert connection.pgconn.ssl_in_use
            row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
            assert row == (False,)


def test_nobody_else_does(postgres: PostgresService, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    assert "password" in refusal(postgres.dsn(), passfile="/dev/null")
    assert "password authentication failed" in refusal(postgres.dsn(), password="guessed")
    assert refusal(postgres.dsn(SUPERUSER, "postgres"), sslmode="disable")
    assert "certificate" in refusal(postgres.dsn(), sslrootcert=str(stranger.root))


def test_it_is_killed_and_started_again_with_what_it_had(postgres: PostgresService) -> None:
    with psycopg.connect(postgres.dsn()) as connection:
        connection.execute("CREATE TABLE survivor AS SELECT 7 AS number")
    assert postgres.child is not None
    os.kill(postgres.child.pid, signal.SIGKILL)
    postgres.child.stop()
    postgres.start()
    with psycopg.connect(postgres.dsn()) as connection:
        assert connection.execute("SELECT number FROM survivor").fetchone() == (7,)


def test_the_s3_server_lets_in_who_has_the_credentials_and_its_parts_let_in_nobody(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in services.credentials.items():
        monkeypatch.setenv(name, value)
    store = ObjectStore(services.objects.url, endpoint=services.objects.endpoint)
    assert store.put_if_absent("a/b", b"once")
    assert not store.put_if_absent("a/b", b"twice")
    with closing(s3_client(services.objects.endpoint, new_credentials())) as guess, pytest.raises(ClientError):
        guess.list_objects_v2(Bucket="ofp-objects")
    _, _, volume, _, filer, _, s3, _ = services.objects.ports
    for port in (volume, filer, s3):
        for path in ("/", "/buckets/ofp-objects/plane/a/b", "/ofp-objects/plane/a/b"):
            assert httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).status_code in (401, 403)
    assert store.get("a/b") == b"once"


def test_nothing_of_theirs_is_open_to_others_and_no_credentials_stand_in_a_command_line(services: Services) -> None:
    folder = services.postgres.folder
    for path in (folder, services.postgres.data.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    secrets = [*services.postgres.passwords.values(), services.credentials["AWS_SECRET_ACCESS_KEY"]]
    for service in services.all:
        assert service.child is not None
        words = Path(f"/proc/{service.child.pid}/cmdline").read_text()
        assert not any(secret in words for secret in secrets)
        assert _addresses(service.child.pid) == {"127.0.0.1"}
    assert not any(secret in value for secret in services.postgres.passwords.values() for value in services.wiring.values())


def _addresses(pid: int) -> set[str]:
    """The addresses on which a process listens."""
    own = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    listening = [fields for fields in map(str.split, lines) if fields[3] == "0A" and f"socket:[{fields[9]}]" in own]
    return {"127.0.0.1" if fields[1].startswith("0100007F:") else fields[1] for fields in listening}


def test_a_dead_one_is_named(services: Services) -> None:
    assert services.dead() is None
    assert services.kinesis.child is not None
    os.kill(services.kinesis.child.pid, signal.SIGKILL)
    services.kinesis.child.stop()
    dead = services.dead()
    assert dead is services.kinesis.child
    assert "Kinesis (moto) ended with exit code -9; the end of " in str(dead.failure())
    services.kinesis.start()
    assert services.dead() is None


def test_commands_find_them_and_they_leave_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert "no services run in" in call("services", "run", "--home", str(tmp_path), "--", "true").refused()
    with Child("the services", ofp_command("services", "up", "--home", str(home)), {}, tmp_path / "up.log") as child:
        child.wait_for_line("ready", 120.0)
        assert "services run in" in call("services", "up", "--home", str(home)).refused()
        command = ["services", "run", "--home", str(home), "--", sys.executable, "-c", "import os; print(os.environ)"]
        seen = subprocess.run(ofp_command(*command), capture_output=True, text=True, check=True).stdout
        assert re.search(r"'OFP_PROFILE': 'demo@local_parity'", seen)
        assert "sslmode=verify-full" in seen
        assert call("services", "down", "--home", str(home)).out == "stopped\n"
        child.wait_for_line("stopped", 10.0)
    assert not (home / "services").exists()
    assert call("services", "down", "--home", str(home)).out == "no services run in this home\n"


PASSING = (psycopg.Error, DatabaseUnavailable, LogUnavailable, ObjectStoreUnavailable, PoolTimeout)


def killed(service: PostgresService | ObjectService) -> None:
    assert service.child is not None
    os.kill(service.child.pid, signal.SIGKILL)
    service.child.stop()


def test_a_killed_server_is_an_outage_in_words_and_nothing_is_lost_or_doubled(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in services.credentials.items():
        monkeypatch.setenv(name, value)
    wiring = {"object_store_url": services.objects.url, "object_store_endpoint_url": services.objects.endpoint}
    chosen = profile(tmp_path).model_copy(update=wiring)
    records, admitted_at = list(deliveries().records()), int(deliveries().admitted_at.max())
    half = len(records) // 2
    deadline = time.monotonic() + 300.0
    with Plane.open(chosen, services.postgres.dsn()) as plane:
        row = plane.ensure_live()
        projector = plane.projector(row)
        plane.log.append(records[:half], lambda _: admitted_at)
        projector.apply_available(max_records=50)
        killed(services.postgres)
        with pytest.raises((LogUnavailable, DatabaseUnavailable)):
            plane.log.append(records[half:], lambda _: admitted_at)
        with pytest.raises(PASSING):
            projector.apply_available(max_records=50)
        services.postgres.start()  # and the same objects go on
        persist(lambda: plane.log.append(records[half:], lambda _: admitted_at), PASSING, deadline)
        while persist(lambda: projector.apply_available(max_records=50), PASSING, deadline) is not None:
            pass
        killed(services.objects)
        with pytest.raises(ObjectStoreUnavailable):
            plane.archive.partition_ids()
        services.objects.start()
        assert persist(plane.archive.partition_ids, PASSING, deadline) == []
        with plane.pool.connection() as connection:
            totals = read_progress(connection, row.projection_id)
        assert sum(heads(plane).values()) == len(records)
        assert (totals.counters()["records_read"], unaccounted(totals)) == (len(records), 0)
