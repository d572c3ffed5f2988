"""The work of a process that projects the stream of a small plane, two records a commit, until nothing is left.

See test_crash_points.
"""

from __future__ import annotations

from ofp_platform.kernel.native import load_loops
from ofp_platform.storage.postgres import open_pool
from ofp_platform_tests.oracle.small_plane import SmallPlane


def warm() -> None:
    """Everything that it needs."""
    load_loops()


def project_all(dsn: str, stream_name: str) -> None:
    """Project everything."""
    with open_pool(dsn) as pool:
        plane = SmallPlane(pool, stream_name, chunk_events=2, span_chunks=2)
        projector = plane.projector()
        while projector.apply_available(max_records=2):
            pass
