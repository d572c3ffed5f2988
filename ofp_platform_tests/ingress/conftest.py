"""A database and an object store for doors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(str(tmp_path / "objects"))
