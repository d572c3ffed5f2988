"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path | None,
    typer.Option(
        "--home", help="Folder of everything local; default: OFP_HOME, or .ofp in the current folder.", show_default=False
    ),
]
ProfileSource = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="Shipped profile (demo, handbook, rings) or file; default: OFP_PROFILE, profile.yaml in the home folder, or demo.",
        show_default=False,
    ),
]
Actor = Annotated[str, typer.Option("--actor", help="Name of who asks, for the record.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.", show_default=False)]
OfContext = Annotated[bool, typer.Option("--context", help="Of the context stream: links between entities.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
AlwaysJson = Annotated[bool, typer.Option("--json", help="Print JSON, as this command always does.", expose_value=False)]
