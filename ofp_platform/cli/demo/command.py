"""`ofp demo`: the command, and the order of its steps."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Annotated

import typer

from ofp_platform.cli.environment import Environment, resolve, with_tier
from ofp_platform.cli.options import Home
from ofp_platform.cli.terminal.refusals import CommandRefused

DEFAULT_PAYMENTS = 200_000


class LogKind(enum.StrEnum):
    """Which log the demo runs on."""

    POSTGRES = "postgres"
    KINESIS = "kinesis"
    KAFKA = "kafka"


def demo(
    events: Annotated[
        Path | None,
        typer.Option("--events", metavar="FILE.parquet", help="Replay this handbook file instead of simulating payments."),
    ] = None,
    log: Annotated[
        LogKind | None,
        typer.Option(
            help="Kind of log; default: as the shipped profile says in the tier of OFP_PROFILE. kinesis: that of"
            " OFP_KINESIS_ENDPOINT_URL, or a moto server that lives as long as the demo; kafka: that of"
            " OFP_KAFKA_BOOTSTRAP_SERVERS, or a broker that does.",
            show_default=False,
        ),
    ] = None,
    kinesis_endpoint: Annotated[
        str | None, typer.Option("--kinesis-endpoint", help="Kinesis to use with --log kinesis; it keeps its stream.")
    ] = None,
    payments: Annotated[int, typer.Option(min=500, max=5_000_000, help="Number of payments to simulate.")] = DEFAULT_PAYMENTS,
    home: Home = None,
) -> None:
    """Simulate card payments with fraud, project and serve their features, decide, prove; publish a training set, train models.

    Every step looks first at what is there: a second run appends and projects nothing, and finds the same values.
    """
    from ofp_platform.cli.demo.demo_steps import DemoSteps
    from ofp_platform.cli.demo.kafka_server import temporary_kafka
    from ofp_platform.cli.demo.kinesis_server import temporary_home, temporary_kinesis
    from ofp_platform.log.kafka_settings import BOOTSTRAP

    environment = resolve(home, makes_home=True)
    shipped_profile = environment.read_profile(with_tier("demo" if events is None else "handbook", environment.tier))
    kind = LogKind(shipped_profile.log_kind) if log is None else log
    if kinesis_endpoint is not None and kind is not LogKind.KINESIS:
        raise CommandRefused("--kinesis-endpoint goes with --log kinesis")
    kinesis_endpoint = kinesis_endpoint or shipped_profile.kinesis_endpoint_url
    environment.folder.mkdir(parents=True, exist_ok=True)

    def run_steps(where: Environment, endpoint: str | None, lasting: bool) -> None:
        DemoSteps(where, events=events, log_kind=kind.value, payments=payments, kinesis_endpoint=endpoint, lasting=lasting).run()

    has_kafka = kind is LogKind.KAFKA and bool(os.environ.get(BOOTSTRAP))
    if kind is LogKind.POSTGRES or kinesis_endpoint is not None or has_kafka:
        run_steps(environment, kinesis_endpoint, lasting=True)
    elif kind is LogKind.KAFKA:
        with temporary_home(environment) as there, temporary_kafka(there.folder / "logs" / "kafka.log"):
            run_steps(there, None, lasting=False)
    else:
        with temporary_home(environment) as there, temporary_kinesis(there.folder / "logs" / "moto.log") as endpoint:
            run_steps(there, endpoint, lasting=False)
