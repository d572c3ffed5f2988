"""The key by which the benchmarks ask their own servers: the same in every process, and of no use anywhere else."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from ofp_platform.api.authentication import Authentication
from ofp_platform.api.principals import Principal, PrincipalsFile, Scope, changed_principals
from ofp_platform.vocabulary.identity import ContextPins

_ID = "0" * 16
KEY = f"ofp_{_ID}_{'benchmark'.ljust(43, '-')}"


class _OfMoment(Authentication):
    """One whose file is gone when it has been read."""

    def refresh(self) -> None:
        """Nothing to look at."""


def authentication(pins: ContextPins) -> Authentication:
    """That of a service of this run, which the key opens."""
    keys = [{"key_id": _ID, "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]
    principal = Principal.model_validate({"name": "benchmark", "scopes": tuple(Scope), "runs": "*", "keys": keys})
    with TemporaryDirectory() as folder:
        path = Path(folder) / "principals.json"
        with changed_principals(path) as box:
            box[0] = PrincipalsFile.of(principal)
        return _OfMoment(path, pins, time.time)
