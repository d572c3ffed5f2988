"""`ofp up`: the command."""

from __future__ import annotations

from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Home, ProfileSource
from ofp_platform.cli.process_log import follow_as
from ofp_platform.cli.terminal.stop_signals import stop_on_signals


def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the HTTP service; 0 chooses a free one.")] = 8000,
    dagster_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of Dagster's UI; 0 chooses a free one.")] = 3000,
    dagster: Annotated[bool, typer.Option("--dagster/--no-dagster", help="Start Dagster's web server and daemon.")] = True,
    launch: Annotated[
        bool, typer.Option("--launch", help="Let Dagster's pages launch runs and change things; else they only show.")
    ] = False,
    simulate: Annotated[
        float, typer.Option(metavar="RATE", min=0, max=5000, help="Append this many simulated payments a second.")
    ] = 0.0,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Start PostgreSQL, HTTP service, continuous projector, archiver and Dagster together, until Ctrl-C.

    Prints each address when it answers. What the processes print stands in the folder logs of the home folder.
    """
    from ofp_platform.cli.up.plane_processes import PlaneProcesses

    stop = stop_on_signals()
    environment = resolve(home, profile, makes_home=True)
    follow_as("up", environment.load_profile().context_pins, environment)
    processes = PlaneProcesses(environment, stop, may_launch=launch)
    processes.run(port=port, dagster_port=dagster_port if dagster else None, simulate=simulate)
