"""Outages of PostgreSQL as retryable refusals of a build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from ofp_platform.storage.transient import is_transient, outage_message
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused


@contextmanager
def answering() -> Iterator[None]:
    """Turn an outage of the database into BuildRefused(STORE_UNAVAILABLE)."""
    try:
        yield
    except psycopg.Error as error:
        if not is_transient(error):
            raise
        raise BuildRefused(BuildReason.STORE_UNAVAILABLE, outage_message(error)) from error
