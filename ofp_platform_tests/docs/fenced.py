"""The fenced blocks of a page, in their order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block, the language it names, and the line of the page that it begins on."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """All blocks of a page."""
    content = page.read_text(encoding="utf-8")
    return [Block(found[1], found[2], content[: found.start()].count("\n") + 1) for found in _BLOCK.finditer(content)]


def transcript(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that is shown for it."""
    head, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not head, f"line {block.line}: a console block begins with a command"
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]
