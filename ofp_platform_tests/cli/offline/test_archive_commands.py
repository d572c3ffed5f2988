"""`ofp archive`."""

from __future__ import annotations

import re
from pathlib import Path

from ofp_platform.online.plane import Plane
from ofp_platform_tests.cli.conftest import OfflinePlane
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.oracle.simulated_log import append, profile, write_profile


def test_run_list_verify(dsn: str, tmp_path: Path) -> None:
    variables = {"OFP_HOME": str(tmp_path), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": str(write_profile(tmp_path))}

    def ofp(*arguments: str) -> str:
        outcome = call(*arguments, **variables)
        assert outcome.code == 0, outcome
        return outcome.out

    assert "there is no stream 'card-payments'" in call("archive", "verify", **variables).refused()
    with Plane.open(profile(tmp_path), dsn) as plane:
        assert ofp("archive", "verify") == "nothing of stream card-payments is archived\n"
        append(plane.log)
        records = sum(int(part.offset) for part in plane.log.ends().partitions)
    closed = ofp("archive", "run")
    assert re.match(r"archived: \d+ segments, \d+ records, ", closed)
    assert "; the log goes on to " in ofp("archive", "verify")
    whole = ofp("archive", "run", "--to-head")
    assert f", {records} records, " in whole
    assert ofp("archive", "run", "--to-head").split(", in ")[0] == whole.split(", in ")[0]
    listed = ofp("archive", "list")
    assert len(re.findall("^0", listed, re.MULTILINE)) == len(re.findall("admitted 2026-", listed)) == int(whole.split()[1])
    assert sum(int(count) for count in re.findall(r"(\d+) records\n", listed)) == records
    verified = ofp("archive", "verify").splitlines()
    assert [line.split("  ")[0] for line in verified] == ["0000", "0001"]
    assert all("whole from its start to" in line and "goes on" not in line for line in verified)


def test_damage_is_told(offline: OfflinePlane) -> None:
    folder = offline.labelled.objects.folder
    assert folder is not None
    segment = sorted(folder.rglob("*.parquet"))[0]
    content = segment.read_bytes()
    try:
        segment.chmod(0o644)
        segment.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        said = offline.ofp("archive", "verify")
        assert (said.code, "SegmentDamaged" in said.err, segment.name in said.err) == (1, True, True)
    finally:
        segment.write_bytes(content)
    assert offline.ofp("archive", "verify").code == 0


def test_what_must_be_there_and_is_not_is_named(dsn: str, tmp_path: Path) -> None:
    variables = {"OFP_HOME": str(tmp_path), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": str(write_profile(tmp_path))}
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane.log)
        folder = plane.objects.folder
    assert folder is not None
    nothing = call("archive", "verify", **variables).refused()
    for name in ("0000", "0001"):
        assert re.search(f"partition {name} of card-payments: nothing is archived of its [0-9]+ closed ranges", nothing)
    assert call("archive", "run", **variables).code == 0
    assert call("archive", "verify", **variables).code == 0
    receipts = sorted((folder / "archive/card-payments/0001/receipts").iterdir())
    aside = tmp_path / "aside"
    receipts[-1].rename(aside)  # the last one: what is left joins, from the start to its end
    gone = call("archive", "verify", **variables).refused()
    assert gone.count("gone") == 1
    assert f"archive/card-payments/0001/receipts/{receipts[-1].name} is gone" in gone
    aside.rename(receipts[-1])
    assert call("archive", "verify", **variables).code == 0
    (folder / "archive/card-payments/0001").rename(aside)  # the whole prefix
    gone = call("archive", "verify", **variables).refused()
    assert f"archive/card-payments/0001/receipts is gone from {folder.as_uri()}: {len(receipts)} segments of" in gone
    (folder / "archive").rename(tmp_path / "all of it")
    gone = call("archive", "verify", **variables).refused()
    assert (gone.count("segments of partition 0000 were archived"), gone.count("segments of partition 0001 were")) == (1, 1)
    assert call("projector", "catch-up", **variables).code == 0
    assert "0001/receipts is gone" in call("log", "trim", "--archived", "--dry-run", **variables).refused()
