"""docs/cli.md, made from the program: `python -m ofp_platform.cli.reference` writes it, `--check` compares."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from ofp_platform.cli.main import app

FILE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
_HEAD = """\
<!-- made from the program by `python -m ofp_platform.cli.reference`; a test compares the two -->

"""


def reference() -> str:
    """The reference of all commands as Markdown."""
    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="ofp")
    return _HEAD + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def main(arguments: list[str]) -> int:
    """Write the file, or with --check say whether it is what would be written."""
    if "--check" not in arguments:
        FILE.write_text(reference(), encoding="utf-8")
        return 0
    if FILE.read_text(encoding="utf-8") == reference():
        return 0
    print(f"{FILE} is not what the program says: python -m ofp_platform.cli.reference", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
