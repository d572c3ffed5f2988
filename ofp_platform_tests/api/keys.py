"""Keys for tests: of somebody who may do everything, and of whom a test needs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ofp_platform.api import examples
from ofp_platform.api.authentication import Authentication
from ofp_platform.api.principals import Principal, PrincipalsFile, Scope, changed_principals, new_key
from ofp_platform.vocabulary.identity import ContextPins

EXAMPLE_PINS = ContextPins.model_validate(examples.request_example()["context_pins"])
KEY, HASHED_KEY = new_key()
BEARER = {"authorization": f"Bearer {KEY}"}


def principal(name: str, scopes: Sequence[str], runs: Any = "*", **fields: Any) -> tuple[str, Principal]:
    """A principal and its key."""
    key, hashed_key = new_key()
    content = {"name": name, "scopes": scopes, "runs": runs, "keys": (hashed_key,), **fields}
    return key, Principal.model_validate(content)


EVERYBODY = Principal.model_validate({"name": "everything", "scopes": tuple(Scope), "runs": "*", "keys": (HASHED_KEY,)})


def write_principals(path: Path, *principals: Principal) -> Path:
    """A file of these and of the one who may do everything."""
    with changed_principals(path) as box:
        box[0] = PrincipalsFile.of(EVERYBODY, *principals)
    return path


class _OfMoment(Authentication):
    """One whose file is gone when it has been read."""

    def refresh(self) -> None:
        """Nothing to look at."""


def authentication(*principals: Principal, pins: ContextPins = EXAMPLE_PINS) -> Authentication:
    """As of a file of these."""
    with TemporaryDirectory() as folder:
        return _OfMoment(write_principals(Path(folder) / "principals.json", *principals), pins, time.time)


@contextmanager
def principals_variable(*principals: Principal) -> Iterator[dict[str, str]]:
    """The variable that names such a file to a server."""
    with TemporaryDirectory() as folder:
        yield {"OFP_PRINCIPALS": str(write_principals(Path(folder) / "principals.json", *principals))}
