"""`ofp archive`."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from ofp_platform.cli.offline import archive_commands
from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.log.port import PositionTrimmed
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.position import make_basis
from ofp_platform.vocabulary.profile import load_profile
from ofp_platform_tests.cli.conftest import OfflinePlane
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.oracle.simulated_log import append, identity_link, profile, write_profile


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


def test_the_context_stream_is_archived_and_folded_from_its_archive(dsn: str, tmp_path: Path) -> None:
    path = write_profile(tmp_path, context_stream="links", range_size=4)
    variables = {"OFP_HOME": str(tmp_path), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": str(path)}

    def ofp(*arguments: str) -> str:
        outcome = call(*arguments, **variables)
        assert outcome.code == 0, outcome
        return outcome.out

    with Plane.open(load_profile(path), dsn) as plane:
        append(plane.log)
        assert plane.known_context_log() is None
    assert "there is no stream 'links'" in call("archive", "run", "--context", **variables).refused()
    file = tmp_path / "links.jsonl"
    file.write_text("".join(identity_link(number) for number in range(1, 11)))
    assert ofp("log", "append", str(file), "--context").startswith("10 appended")
    assert "nothing is archived of its 2 closed ranges" in call("archive", "verify", "--context", **variables).refused()
    assert ofp("archive", "run", "--context").startswith("archived: 2 segments, 8 records, ")
    assert (
        ofp("archive", "verify", "--context") == "0000  2 segments, 8 records, whole from its start to 8; the log goes on to 10\n"
    )
    assert ofp("archive", "list") == ""  # that of the traffic is another one
    assert ofp("archive", "list", "--context").count("4 records") == 2
    with Plane.open(load_profile(path), dsn) as plane:
        log = plane.context_log()
        assert isinstance(log, PostgresLog)
        log.truncate_before(make_basis("links", {"0000": log.position_kind.basis("0000", 8)}))
        with pytest.raises(PositionTrimmed):
            log.read("0000", log.position_kind.start("0000"), 10)
        profile = plane.profile
        replayed = ContextReplay.read(plane.archived_context_log(), profile.context_pins, profile.clock_skew_us)
        assert len(replayed.links) == 10
    folded = json.loads(ofp("identity", "catch-up", "--json"))
    assert (folded["records"], folded["links"]) == (10, 10)
    (segment, _) = sorted((tmp_path / "objects/archive/links").rglob("*.parquet"))
    segment.chmod(0o644)
    segment.write_bytes(segment.read_bytes()[:-1])
    assert segment.name in call("archive", "verify", "--context", **variables).refused()


def test_who_keeps_the_archive_keeps_that_of_links_too(dsn: str, tmp_path: Path) -> None:
    path = write_profile(tmp_path, context_stream="links", range_size=4)
    stop = threading.Event()
    with Plane.open(load_profile(path), dsn) as plane:
        append(plane.log)
        archive_commands._keep_up(plane, stop, context=True)  # a stream that is not made yet is nothing to do
        plane.context_log(create=True).append([json.loads(identity_link(number)) for number in range(1, 6)])
        for context in (False, True):
            archive_commands._keep_up(plane, stop, context=context)
            stream = plane.stream(context=context)
            closed = stream.ranges.closed()
            kind = stream.log.position_kind.offset_kind
            assert {name: len(stream.archive.spans(name, kind)) for name in closed} == {
                name: ranges.count for name, ranges in closed.items()
            }
            assert sum(ranges.count for ranges in closed.values()) > 0


def test_a_profile_without_a_context_stream_has_no_archive_of_one(dsn: str, tmp_path: Path) -> None:
    variables = {"OFP_HOME": str(tmp_path), "OFP_DATABASE_URL": dsn, "OFP_PROFILE": str(write_profile(tmp_path))}
    with Plane.open(profile(tmp_path), dsn) as plane:
        append(plane.log)
    for arguments in (["run"], ["list"], ["verify"], ["restore"]):
        assert "the profile names no context_stream" in call("archive", *arguments, "--context", **variables).refused()
