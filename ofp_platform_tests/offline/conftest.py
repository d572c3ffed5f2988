"""The Spark session of the tests that need one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from ofp_platform.offline.sources.spark_engine import SparkUnavailable, spark_session


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """A session on this machine; skipped, with the reason, where there is no Spark."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Spark's own, of its JVM's pipes
        try:
            with spark_session(2) as session:
                yield session
        except SparkUnavailable as missing:
            pytest.skip(str(missing))
