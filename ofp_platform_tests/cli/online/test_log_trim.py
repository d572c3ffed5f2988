"""`ofp log trim`."""

from __future__ import annotations

import json
from pathlib import Path

from ofp_platform.online.plane import Plane
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.oracle.simulated_log import append, profile, write_profile


def test_only_what_is_archived_is_trimmed(dsn: str, tmp_path: Path) -> None:
    variables = {"OFP_HOME": str(tmp_path), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": str(write_profile(tmp_path))}
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane.log)
        ends = {part.partition_id: int(part.offset) for part in plane.log.ends().partitions}
        plane.projector(plane.ensure_live()).apply_available(max_records=sum(ends.values()))

    assert "say --archived" in call("log", "trim", **variables).refused()
    nothing = call("log", "trim", "--archived", **variables)
    assert nothing.code == 0
    assert [line.split(" (")[0] for line in nothing.out.splitlines()] == [
        *(f"{name}  from 0 to 0: 0 records; {end:,} stay: it is archived up to 0 only" for name, end in ends.items()),
        "trimmed: 0 records of log card-payments",
    ]
    assert call("archive", "run", **variables).code == 0
    floors = {name: end // 40 * 40 for name, end in ends.items()}
    lines = [
        f"{name}  from 0 to {floors[name]}: {floors[name]:,} records; {end - floors[name]:,} stay: its offset range is still"
        " being filled"
        for name, end in ends.items()
    ]
    total = f"{sum(floors.values()):,} records of log card-payments"
    shown = call("log", "trim", "--archived", "--dry-run", **variables)
    assert (shown.code, shown.out.splitlines()) == (0, [*lines, f"would be trimmed: {total}"])
    assert "0000  from 0  to" in call("log", "ends", **variables).out
    trimmed = call("log", "trim", "--archived", **variables)
    assert (trimmed.code, trimmed.out.splitlines()) == (0, [*lines, f"trimmed: {total}"])
    for name, floor in floors.items():
        assert f"{name}  from {floor}  to {ends[name]}\n" in call("log", "ends", **variables).out
    assert "trimmed: 0 records" in call("log", "trim", "--archived", **variables).out
    facts = json.loads(call("governance", "list", "--fact", "records_removed", "--json", **variables).out)
    assert [(fact["store"], fact["count"]) for fact in facts] == [("log", sum(floors.values()))]
    # archiving goes on behind the floor
    assert call("archive", "run", "--to-head", **variables).code == 0
    assert "goes on" not in call("archive", "verify", **variables).out
