"""The servers of `ofp services up`: started together, watched, told of to other commands, stopped together."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ofp_platform.cli.processes import Child
from ofp_platform.cli.services.certificates import Authority
from ofp_platform.cli.services.kafka_service import KafkaService, broker_environment, kafka_service
from ofp_platform.cli.services.kinesis_service import KinesisService, kinesis_service
from ofp_platform.cli.services.object_service import ObjectService, new_credentials, object_service
from ofp_platform.cli.services.postgres_service import PostgresService, postgres_service
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.storage.private_files import PRIVATE_FOLDER, make_private_folder, open_own_file, put_private_file

FOLDER, WIRING_FILE = "services", "wiring.json"
_STOP_SECONDS, _POLL_SECONDS = 60.0, 0.1


@dataclass(frozen=True)
class Services:
    """The servers, and the credentials of S3 and Kinesis."""

    postgres: PostgresService
    objects: ObjectService
    kinesis: KinesisService
    kafka: KafkaService
    credentials: dict[str, str]

    @property
    def all(self) -> tuple[PostgresService | ObjectService | KinesisService | KafkaService, ...]:
        """Each of them."""
        return self.postgres, self.objects, self.kinesis, self.kafka

    @property
    def wiring(self) -> dict[str, str]:
        """The environment of whoever works with them."""
        dsn = self.postgres.dsn()
        return {
            "OFP_DATABASE_URL": dsn,
            "OFP_DAGSTER_POSTGRES_URL": dsn,
            "OFP_ROLE_PER_JOB": "true",
            "OFP_OBJECT_STORE_URL": self.objects.url,
            "OFP_OBJECT_STORE_ENDPOINT_URL": self.objects.endpoint,
            "OFP_KINESIS_ENDPOINT_URL": self.kinesis.endpoint,
            **broker_environment(self.kafka.port),
            **self.credentials,
        }

    def dead(self) -> Child | None:
        """One that ended by itself."""
        return next((service.child for service in self.all if service.child is not None and service.child.ended), None)


@contextmanager
def running_services(folder: Path, logs: Path) -> Iterator[Services]:
    """All servers, new and empty, in a folder that nobody else may enter. They end with the context, and what they hold goes.

    Raises:
        CommandRefused: one is not installed, or does not start; the text names it.
    """
    authority = Authority(folder, "authority")
    credentials = new_credentials()
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_service(folder, logs / "services-postgres.log", authority))
        objects = stack.enter_context(object_service(folder / "s3", logs / "services-s3.log", authority, credentials))
        kinesis = stack.enter_context(kinesis_service(logs / "services-kinesis.log", credentials))
        kafka = stack.enter_context(kafka_service(logs / "services-kafka.log"))
        yield Services(postgres, objects, kinesis, kafka, credentials)


@contextmanager
def kept_services(home: Path) -> Iterator[Services]:
    """As `running_services`, of a home folder: `wiring_of` finds them. One at a time.

    Raises:
        CommandRefused: others run in this home already; or as `running_services`.
    """
    make_private_folder(home)
    folder = home / FOLDER
    descriptor = open_own_file(home / f"{FOLDER}.lock")
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandRefused(f"services run in {home} already; `ofp services down` stops them") from None
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        folder.mkdir(mode=PRIVATE_FOLDER)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        try:
            with running_services(folder, home / "logs") as services:
                put_private_file(folder, WIRING_FILE, json.dumps(services.wiring, indent=1) + "\n", os.geteuid())
                yield services
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def wiring_of(home: Path) -> dict[str, str]:
    """The environment of whoever works with the services of a home.

    Raises:
        CommandRefused: none run there.
    """
    refusal = CommandRefused(f"no services run in {home}: start them with `ofp services up --home {home}` (make parity-up)")
    if _holder(home) is None:
        raise refusal
    try:
        return dict(json.loads((home / FOLDER / WIRING_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise refusal from None


def stop_services(home: Path) -> bool:
    """Ask the services of a home to end, and wait until they have. False: none run there.

    Raises:
        CommandRefused: they do not end in time.
    """
    deadline = time.monotonic() + _STOP_SECONDS
    pid = _holder(home)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    pause = threading.Event()
    while _holder(home) is not None:
        if time.monotonic() > deadline:
            raise CommandRefused(f"the services of {home} (process {pid}) do not end")
        pause.wait(_POLL_SECONDS)
    return True


def _holder(home: Path) -> int | None:
    """The process that runs the services of a home; None where none does."""
    path = home / f"{FOLDER}.lock"
    if not path.exists():
        return None
    descriptor = open_own_file(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(descriptor, 32, 0).split()[0])
    else:
        return None
    finally:
        os.close(descriptor)
