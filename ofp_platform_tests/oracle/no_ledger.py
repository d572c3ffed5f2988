"""A pool without a database behind it: ranges of a dense log need none, and what is archived is noted nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from ofp_platform.storage.postgres import Pool


class _NoRows:
    def fetchall(self) -> list[tuple[Any, ...]]:
        return []


class _NoConnection:
    def execute(self, query: str, parameters: object) -> _NoRows:
        assert "ofp.archive_ledger" in query, "only the ledger of the archive is done without"
        return _NoRows()


class _NoLedger:
    @contextmanager
    def connection(self) -> Iterator[_NoConnection]:
        yield _NoConnection()


NO_LEDGER = cast(Pool, _NoLedger())
