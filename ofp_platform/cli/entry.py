"""The program `ofp`, and what it says where only the client is installed."""

from __future__ import annotations

import os
import sys

from ofp_platform.storage.private_files import UMASK


def main() -> None:
    """Run `ofp`. An installation without the extra `plane` has no command line, and is told so in words.

    What it and its children write, no other user of the machine may read: events and features are about people.
    """
    os.umask(UMASK)
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
