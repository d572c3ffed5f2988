"""PostgreSQL not answering, as a build has to tell it: a refusal that passes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused


@contextmanager
def answering() -> Iterator[None]:
    """Turns a database that does not answer into BuildRefused(STORE_UNAVAILABLE)."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise BuildRefused(BuildReason.STORE_UNAVAILABLE, f"PostgreSQL does not answer: {error}") from error
