"""Who holds a projection: told apart from the projections of other databases on the same server."""

from __future__ import annotations

from pathlib import Path

import psycopg

from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.continuous import holds_projection
from ofp_platform_tests.oracle.simulated_log import profile

SPACE = 0x6F6670


def test_a_driver_in_another_database_holds_nothing_here(dsn: str, module_dsn: str, tmp_path: Path) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        number = plane.ensure_live().projection_id
        with psycopg.connect(module_dsn, autocommit=True) as elsewhere:
            elsewhere.execute("SELECT pg_advisory_lock_shared(%s, %s)", (SPACE, number))
            assert not holds_projection(plane.pool, number)
        with psycopg.connect(dsn, autocommit=True) as here:
            here.execute("SELECT pg_advisory_lock_shared(%s, %s)", (SPACE, number))
            assert holds_projection(plane.pool, number)
            assert not holds_projection(plane.pool, number + 1)
        assert not holds_projection(plane.pool, number)
