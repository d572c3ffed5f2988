"""Write NOTICE: what this software is, and the packages that a deployment of it installs, each with the licence it states."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADING = """ofp-platform: a feature plane for real-time fraud decisions

Licensed under the Apache License, Version 2.0 (see LICENSE).

A deployment installs the packages of requirements.lock, which are not part of this software. Each is under the licence that
it states itself, which comes with it; this list is made from what they state (`make notice`).

"""


def packages() -> list[str]:
    """The names of the lock file's packages that this platform installs."""
    names = []
    for line in LOCK.read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==[^;\\]+(?:;\s*([^\\]+))?", line)
        if match and (match[2] is None or Marker(match[2].strip()).evaluate()):
            names.append(canonicalize_name(match[1]))
    return sorted(set(names))


def licence(name: str) -> str:
    """The licence that an installed package states: its expression, else its classifiers, else the first line of its text."""
    metadata = importlib.metadata.metadata(name)
    expression = metadata.get("License-Expression")
    if expression:
        return expression
    classifiers = [text.split(" :: ")[-1] for text in metadata.get_all("Classifier", ()) if text.startswith("License ::")]
    if classifiers:
        return ", ".join(classifiers)
    lines = (metadata.get("License") or "").strip().splitlines()
    return lines[0].strip() if lines else "stated in its files"


def notice() -> str:
    """The text of NOTICE."""
    return HEADING + "".join(f"{name}: {licence(name)}\n" for name in packages())


if __name__ == "__main__":
    (ROOT / "NOTICE").write_text(notice(), encoding="utf-8")
    sys.exit(0)
