"""One build in a process of its own, as `ofp build run` makes it.

`python -m benchmarks.build_process PROFILE DSN SCRATCH RUN_KEY [MEMORY]` prints one line of JSON: the stages with
their seconds, and the seconds before the first of them (imports, connections).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

_BEGAN = time.perf_counter()


def main() -> None:
    """Build, and tell."""
    from ofp_platform.offline.runs.build_context import BuildContext
    from ofp_platform.offline.runs.builder import stages
    from ofp_platform.online.plane import Plane
    from ofp_platform.storage.objects import ObjectStore
    from ofp_platform.vocabulary.profile import load_profile

    profile, dsn, scratch, run_key = load_profile(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
    stage_seconds: dict[str, float] = {}
    with Plane.open(profile, dsn) as plane:
        objects, memory = ObjectStore(profile.object_store_url), int(sys.argv[5]) if len(sys.argv) > 5 else None
        build_context = BuildContext(plane.pool, plane.log, objects, scratch, os.cpu_count() or 1, memory=memory)
        with build_context.ledger.claim(run_key) as lease:
            if lease is None:
                raise SystemExit(f"run {run_key} is held or finished")
            at = time.perf_counter()
            stage_seconds["start"] = at - _BEGAN
            for stage in stages(build_context, lease):
                now = time.perf_counter()
                stage_seconds[stage.name] = now - at
                at = now
        run = build_context.ledger.show(run_key)
    print(
        json.dumps({"stages": stage_seconds, "state": run.state.value, "outcome": run.outcome, "refusal": str(run.refusal or "")})
    )


if __name__ == "__main__":
    main()
