"""A builder in a process of its own, to be killed: `python -m ofp_platform_tests.oracle.builder_process DSN FOLDER RUN_KEY`."""

import sys
from pathlib import Path

from ofp_platform.offline.runs.build_context import BuildContext
from ofp_platform.offline.runs.builder import build
from ofp_platform.online.plane import Plane
from ofp_platform.storage.objects import ObjectStore
from ofp_platform_tests.oracle.simulated_log import profile


def build_run(dsn: str, folder: Path, run_key: str) -> str:
    """Build the run; the state that it ends in."""
    with Plane.open(profile(folder), dsn) as plane:
        build_context = BuildContext(plane.pool, plane.log, ObjectStore(plane.profile.object_store_url), folder / "builds")
        return build(build_context, run_key).state.value


if __name__ == "__main__":
    build_run(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
