"""The release of the code that builds: a version, and a digest of the files of the package as they are installed here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

_PACKAGE = Path(__file__).parents[2]
_SUFFIXES = frozenset({".py", ".yaml", ".sql", ".mako", ".typed", ".html", ".css", ".js", ".svg"})


@cache
def code_release_id() -> str:
    """`ofp-platform-<version>:<digest>`: part of every dataset's identity, and other code has another one.

    Read once per process, so a file that is edited while the process runs does not change it.
    """
    return f"ofp-platform-{version('ofp-platform')}:{package_digest(_PACKAGE)}"


def package_digest(folder: Path) -> str:
    """SHA-256 over the files that a wheel of the package holds: the same from a checkout and from an installation.

    Each file, in the order of its path's UTF-8 bytes, adds its path below `folder` (with `/`), a NUL, and the 32 bytes of the
    SHA-256 of its content. Caches, hidden files and those of other suffixes than a wheel takes are no part of it.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_files(folder)):
        digest.update(name + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[tuple[bytes, Path]]:
    for file in folder.rglob("*"):
        path = file.relative_to(folder)
        is_hidden = any(part.startswith(".") or part == "__pycache__" for part in path.parts)
        if file.suffix in _SUFFIXES and not is_hidden and file.is_file():
            yield path.as_posix().encode("utf-8"), file
