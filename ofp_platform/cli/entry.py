"""The program `ofp`, and what it says where only the client is installed."""

from __future__ import annotations

import sys

from ofp_platform.storage.process_settings import settle_process


def main() -> None:
    """Run `ofp`. An installation without the extra `plane` has no command line, and is told so in words."""
    settle_process()
    try:
        from ofp_platform.cli.main import app

        app()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "ofp_platform":
            raise
        sys.exit(
            f"ofp: there is no module {error.name!r} here: this installation has the client only. Install the plane with its"
            " command line: pip install 'ofp-platform[plane]'"
        )
