"""`ofp services`: PostgreSQL, S3, Kinesis and Kafka as they are elsewhere, for the tier local_parity."""

from __future__ import annotations

from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Home
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.cli.terminal.stop_signals import stop_on_signals

app = typer.Typer(help="Run real servers on this machine, for the tier local_parity.", no_args_is_help=True)
_WATCH_SECONDS = 0.5


@app.command("up", short_help="Start PostgreSQL, S3, Kinesis and Kafka, until Ctrl-C.")
def up(home: Home = None) -> None:
    """Start PostgreSQL (TCP, verified TLS, a role for each job), an S3 server, Kinesis and Kafka on the loopback, until Ctrl-C.

    Ports and credentials are made at random. Their data is removed when they stop. No container engine is needed.
    """
    from ofp_platform.cli.services.service_processes import kept_services
    from ofp_platform.storage.schema import migrate

    stop = stop_on_signals()
    environment = resolve(home, makes_home=True)
    with kept_services(environment.folder) as services:
        migrate(services.postgres.dsn())
        typer.echo(f"PostgreSQL      localhost:{services.postgres.port} ({services.postgres.version})")
        typer.echo(f"S3              {services.objects.endpoint}, {services.objects.url}")
        typer.echo(f"Kinesis         {services.kinesis.endpoint}")
        typer.echo(f"Kafka           127.0.0.1:{services.kafka.port}")
        option = "" if home is None else f" --home {home}"
        typer.echo(f"ready           ofp services run{option} -- ofp demo    (Ctrl-C stops everything)")
        while not stop.wait(_WATCH_SECONDS):
            if (dead := services.dead()) is not None:
                raise dead.failure()
        typer.echo("stopping")
    typer.echo("stopped")


@app.command("down", short_help="Stop the services of this home.")
def down(home: Home = None) -> None:
    """Stop what `ofp services up` started in this home, and wait until it has ended."""
    from ofp_platform.cli.services.service_processes import stop_services

    has_stopped = stop_services(resolve(home, needs_home=True).folder)
    typer.echo("stopped" if has_stopped else "no services run in this home")


@app.command(
    "run",
    short_help="Run a command with the services of this home.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, behind `--`.")],
    tier: Annotated[str, typer.Option("--tier", help="The tier of the profile: local, local_parity.")] = "local_parity",
    home: Home = None,
) -> None:
    """Run a command whose environment names the services, and the tier behind the profile in use. Ends as the command does."""
    import os

    from ofp_platform.cli.environment import split_source, with_tier
    from ofp_platform.cli.services.service_processes import wiring_of
    from ofp_platform.vocabulary.profile import Tier

    if tier not in (Tier.LOCAL, Tier.LOCAL_PARITY):
        raise CommandRefused(f"--tier: these services are for local and local_parity, not for {tier!r}")
    environment = resolve(home, needs_home=True)
    source, _ = split_source(environment.lasting_profile_source)
    variables = {"OFP_HOME": str(environment.folder), "OFP_PROFILE": with_tier(source, Tier(tier))}
    try:
        os.execvpe(command[0], command, {**os.environ, **wiring_of(environment.folder), **variables})
    except OSError as error:
        raise CommandRefused(f"{command[0]}: {error.strerror}") from None
