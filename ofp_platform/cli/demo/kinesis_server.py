"""A Kinesis to try the demo on, and a home for what is folded from it: both go when the demo ends."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ofp_platform.cli.environment import Environment
from ofp_platform.cli.services.kinesis_service import kinesis_service
from ofp_platform.cli.services.object_service import new_credentials
from ofp_platform.storage.embedded import stop_embedded


@contextmanager
def temporary_kinesis(output: Path) -> Iterator[str]:
    """The endpoint of a moto server that lives as long as the context. boto3 in this process gets credentials for it.

    Raises:
        CommandRefused: moto is not installed.
    """
    credentials = new_credentials()
    before = {name: os.environ.get(name) for name in credentials}
    with kinesis_service(output, credentials) as service:
        os.environ.update(credentials)
        try:
            yield service.endpoint
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def temporary_home(environment: Environment) -> Iterator[Environment]:
    """A home inside the home that goes with the context: state that was folded from a log that goes, too."""
    environment.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="log-", dir=environment.folder))
    try:
        yield Environment(home=folder, database_url=None)
    finally:
        stop_embedded(folder / "postgres")
        shutil.rmtree(folder, ignore_errors=True)
