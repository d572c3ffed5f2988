"""dagster.yaml in the folder of Dagster: the shipped one, unless somebody wrote one of their own there."""

from __future__ import annotations

from pathlib import Path

from ofp_platform.vocabulary.canonical import sha256_hex

_FILE = "dagster.yaml"
_WRITTEN = ".dagster.yaml.sha256"


def write_instance(folder: Path, text: str) -> bool:
    """Write the shipped text, in place of an earlier one that is still as it was written; False where it is not: it stays."""
    file, written = folder / _FILE, folder / _WRITTEN
    if file.exists() and file.read_text(encoding="utf-8") != text:
        digest = written.read_text(encoding="ascii").strip() if written.exists() else ""
        if sha256_hex(file.read_bytes()) != digest:
            return False
    file.write_text(text, encoding="utf-8")
    written.write_text(sha256_hex(text.encode()) + "\n", encoding="ascii")
    return True
