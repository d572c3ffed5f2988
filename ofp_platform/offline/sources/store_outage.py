"""Outages of PostgreSQL as retryable refusals of a build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused


@contextmanager
def answering() -> Iterator[None]:
    """Turn an outage of the database into BuildRefused(STORE_UNAVAILABLE)."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise BuildRefused(BuildReason.STORE_UNAVAILABLE, f"PostgreSQL does not answer: {error}") from error
