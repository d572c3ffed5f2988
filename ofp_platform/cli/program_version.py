"""`ofp --version`."""

from __future__ import annotations

from importlib.metadata import version

import typer

DISTRIBUTION = "ofp-platform"


def show_version(is_asked: bool) -> None:
    """Print the version of the distribution and the id of the code, which builds and datasets name; then end the program."""
    if not is_asked:
        return
    from ofp_platform.offline.requests.code_release import code_release_id

    typer.echo(f"ofp {version(DISTRIBUTION)}\ncode release {code_release_id()}")
    raise typer.Exit
