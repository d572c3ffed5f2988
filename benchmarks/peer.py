"""Peers live in environments of their own under `.peers/`, made from `benchmarks/peers/<name>.txt` when first needed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(".peers")
_LISTS = Path(__file__).parent / "peers"


class PeerUnavailable(Exception):
    """A peer that cannot be measured here; the text says why."""


def interpreter(name: str) -> Path:
    """The Python of a peer's environment, installed as its list says.

    Raises:
        PeerUnavailable: it cannot be installed.
    """
    requirements = _LISTS / f"{name}.txt"
    home = FOLDER.resolve() / name
    python, stamp = home / "bin" / "python", home / "installed.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest and python.exists():
        return python
    shutil.rmtree(home, ignore_errors=True)
    for command in (
        ["venv", "--quiet", "--python", sys.executable, str(home)],
        ["pip", "install", "--quiet", "--python", str(python), "--requirement", str(requirements)],
    ):
        process = subprocess.run([sys.executable, "-m", "uv", *command], capture_output=True, text=True, check=False)
        if process.returncode:
            words = process.stderr.strip().splitlines() or ["no reason given"]
            raise PeerUnavailable(f"{name} cannot be installed: {words[0]}")
    stamp.write_text(digest)
    return python
