"""A plane with one projected transaction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.online.service.served_plane import commit
from ofp_platform_tests.oracle.strategies import PINS


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    return Profile(
        profile_name="served",
        stream_name="served",
        partitions=1,
        partition_key="payload.customer_id",
        context_pins=ContextPins(**PINS),
        pack="handbook",
        object_store_url=f"file://{tmp_path}/objects",
    )


@pytest.fixture
def plane(profile: Profile, dsn: str) -> Iterator[Plane]:
    with Plane.open(profile, dsn) as opened:
        opened.ensure_live()
        commit(opened, "e-0")
        yield opened
