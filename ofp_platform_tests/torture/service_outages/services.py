"""The servers of `ofp services`, each behind a proxy, and what is done to them: killed, halted, cut off by the network."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil
from psycopg import conninfo

from ofp_platform.cli.processes import Child
from ofp_platform.cli.services.certificates import Authority
from ofp_platform.cli.services.kafka_service import KafkaService, broker_environment, broker_program
from ofp_platform.cli.services.kinesis_service import KinesisService, kinesis_service
from ofp_platform.cli.services.object_service import ObjectService, new_credentials, object_service
from ofp_platform.cli.services.postgres_service import PostgresService, postgres_service
from ofp_platform.storage.schema import migrate
from ofp_platform_tests.torture.faults.proxy import Fault, FaultProxy

Service = PostgresService | ObjectService | KinesisService | KafkaService


class Outage(StrEnum):
    """The ways in which a service is away."""

    KILLED = "killed"
    HALTED = "halted"
    UNREACHABLE = "unreachable"


@dataclass
class Disturbed:
    """A service and the proxy in front of it."""

    service: Service
    proxy: FaultProxy
    _halted: list[psutil.Process] = field(default_factory=list)

    @property
    def name(self) -> str:
        """That of the service."""
        return self.service.name

    def begin(self, outage: Outage) -> None:
        """Let it be away from now on."""
        match outage:
            case Outage.KILLED:
                for process in self._processes():
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGKILL)
                self._child().stop()
            case Outage.HALTED:
                self._halted = self._processes()
                for process in self._halted:
                    with suppress(psutil.NoSuchProcess):
                        process.suspend()
            case Outage.UNREACHABLE:
                self.proxy.disturb(Fault.HALF_OPEN)

    def end(self, outage: Outage) -> None:
        """Let it be there again, with what it had."""
        match outage:
            case Outage.KILLED:
                self.service.start()
            case Outage.HALTED:
                for process in self._halted:
                    with suppress(psutil.NoSuchProcess):
                        process.resume()
            case Outage.UNREACHABLE:
                self.proxy.calm()

    def _child(self) -> Child:
        assert self.service.child is not None
        return self.service.child

    def _processes(self) -> list[psutil.Process]:
        """Its process first, then those that came out of it: sessions of PostgreSQL are in groups of their own."""
        parent = psutil.Process(self._child().pid)
        return [parent, *parent.children(recursive=True)]


@dataclass(frozen=True)
class DisturbedServices:
    """All of them. `wiring`: the environment of whoever goes by way of the proxies. `dsn`: past them, as the owner."""

    postgres: Disturbed
    objects: Disturbed
    kinesis: Disturbed
    kafka: Disturbed
    wiring: dict[str, str]
    dsn: str

    def log_of(self, kind: str) -> Disturbed:
        """The service that is the log of that kind."""
        return {"postgres": self.postgres, "kinesis": self.kinesis, "kafka": self.kafka}[kind]


@contextmanager
def disturbed_services(folder: Path, seed: int) -> Iterator[DisturbedServices]:
    """All servers, new and empty, in a folder that exists. A killed PostgreSQL or S3 comes back with what it had; Kinesis and
    Kafka keep their records in memory, and come back empty.
    """
    authority, credentials, logs = Authority(folder, "authority"), new_credentials(), folder / "logs"
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_service(folder, logs / "postgres.log", authority))
        objects = stack.enter_context(object_service(folder / "s3", logs / "s3.log", authority, credentials))
        kinesis = stack.enter_context(kinesis_service(logs / "kinesis.log", credentials))
        program = broker_program()
        assert program is not None
        kafka = KafkaService(logs / "kafka.log", program)
        upstreams = (postgres.port, int(objects.endpoint.rpartition(":")[2]), kinesis.port, kafka.port)
        proxies = [stack.enter_context(FaultProxy(("127.0.0.1", port), seed + number)) for number, port in enumerate(upstreams)]
        kafka.advertised_port = proxies[3].port
        kafka.start()
        stack.callback(lambda: kafka.child is None or kafka.child.stop())
        migrate(postgres.dsn())
        by_proxy = conninfo.make_conninfo(postgres.dsn(), port=proxies[0].port)
        wiring = {
            "OFP_DATABASE_URL": by_proxy,
            "OFP_ROLE_PER_JOB": "true",
            "OFP_OBJECT_STORE_URL": objects.url,
            "OFP_OBJECT_STORE_ENDPOINT_URL": f"http://127.0.0.1:{proxies[1].port}",
            "OFP_KINESIS_ENDPOINT_URL": f"http://127.0.0.1:{proxies[2].port}",
            **broker_environment(proxies[3].port),
            **credentials,
        }
        each: list[Service] = [postgres, objects, kinesis, kafka]
        yield DisturbedServices(
            *(Disturbed(one, proxy) for one, proxy in zip(each, proxies, strict=True)), wiring, postgres.dsn()
        )
