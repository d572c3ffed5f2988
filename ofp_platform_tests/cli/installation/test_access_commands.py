"""`ofp access list`, as an auditor calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ofp_platform.api.access_log import AccessLog
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time
from ofp_platform_tests.cli.program import Ofp


@pytest.fixture
def accesses(ofp: Ofp, tmp_path: Path) -> None:
    moments = iter(["2026-11-27T10:00:00Z", "2026-11-28T10:00:00Z", "2026-11-28T11:00:00.5Z"])
    log = AccessLog(tmp_path / "home" / "access", lambda: parse_time(next(moments)) / MICROS_PER_SECOND)
    log.record("scorer", "key 1", "/v0/get_features", "a" * 64, "OK")
    log.record("metrics", "issuer idp", "/v0/get_features", None, "FORBIDDEN")
    log.record("scorer", "key 1", "/v0/snapshots/{snapshot_hash}", "a" * 64, "OK")
    log.write()


@pytest.mark.usefixtures("accesses")
def test_who_asked_for_what(ofp: Ofp) -> None:
    lines = ofp("access", "list").out.splitlines()
    assert lines[0] == "2026-11-27T10:00:00Z  scorer  /v0/get_features  OK"
    assert lines[1] == f"    {'a' * 64}"
    assert lines[2] == "2026-11-28T10:00:00Z  metrics  /v0/get_features  FORBIDDEN"
    assert len(lines) == 5
    assert ofp("access", "list", "--principal", "metrics").out.splitlines() == lines[2:3]
    assert ofp("access", "list", "--credential", "issuer idp").out.splitlines() == lines[2:3]
    assert ofp("access", "list", "--hash", "a" * 64).out.splitlines() == [*lines[:2], *lines[3:]]
    assert ofp("access", "list", "--since", "2026-11-28T11:00:00Z").out.splitlines() == lines[3:]
    assert ofp("access", "list", "--count", "1").out.splitlines() == lines[3:]
    (newest,) = json.loads(ofp("access", "list", "--count", "1", "--json").out)
    assert newest["at_utc"] == "2026-11-28T11:00:00.500000Z"
    assert "in UTC" in ofp("access", "list", "--since", "yesterday").refused()


def test_nothing_yet(ofp: Ofp) -> None:
    assert ofp("access", "list").out == ""
