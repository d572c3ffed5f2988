"""Accesses: what is told of a request, what is never told, and what becomes of it when the disk does not take it."""

from __future__ import annotations

import logging
import os
from itertools import count
from pathlib import Path

import orjson
import pytest

from ofp_platform.api.access_log import AccessLog, read_accesses, remove_accesses
from ofp_platform.vocabulary.errors import Reason
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time
from ofp_platform_tests.api import test_app
from ofp_platform_tests.api.fake_port import HASH, RECORD, FakeBuilds, FakePort
from ofp_platform_tests.api.keys import BEARER, KEY, authentication, principal

BEGIN = parse_time("2026-11-28T23:59:58Z") / MICROS_PER_SECOND


@pytest.fixture
def access_log(tmp_path: Path) -> AccessLog:
    """A second between two requests."""
    seconds = count()
    return AccessLog(tmp_path / "access", lambda: BEGIN + next(seconds), most_waiting=300)


def told(tmp_path: Path) -> list[dict[str, object]]:
    return list(read_accesses(tmp_path / "access"))


@pytest.mark.parametrize(("until", "kept"), [("28T23:59:59.999999Z", 2), ("29T00:00:00Z", 1), ("30T00:00:00Z", 0)])
def test_a_day_goes_once_it_is_over(access_log: AccessLog, tmp_path: Path, until: str, kept: int) -> None:
    for number in range(4):
        access_log.record("scorer", "key 1", "/v0/get_features", f"{number:064x}", "OK")
    access_log.write()
    folder, moment = tmp_path / "access", parse_time(f"2026-11-{until}")
    assert remove_accesses(tmp_path / "none", moment, dry_run=False) == []
    names = sorted(path.name for path in folder.iterdir())
    assert remove_accesses(folder, moment, dry_run=True) == remove_accesses(folder, moment, dry_run=False) == names[: 2 - kept]
    assert sorted(path.name for path in folder.iterdir()) == names[2 - kept :]


def test_a_file_a_day_in_the_order_of_time(access_log: AccessLog, tmp_path: Path) -> None:
    for number in range(4):
        access_log.record("scorer", "key 1", "/v0/get_features", f"{number:064x}", "OK")
        access_log.write()
    access_log.write()
    names = sorted(path.name for path in (tmp_path / "access").iterdir())
    assert names == [f"access-{day}-{os.getpid()}.ndjson" for day in ("2026-11-28", "2026-11-29")]
    assert [fields["at_utc"] for fields in told(tmp_path)] == [
        "2026-11-28T23:59:58Z",
        "2026-11-28T23:59:59Z",
        "2026-11-29T00:00:00Z",
        "2026-11-29T00:00:01Z",
    ]
    assert told(tmp_path)[3] == {
        "at_utc": "2026-11-29T00:00:01Z",
        "principal": "scorer",
        "credential": "key 1",
        "route": "/v0/get_features",
        "digest": f"{3:064x}",
        "outcome": "OK",
    }
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "access").iterdir())


def test_processes_and_lines_cut_short(access_log: AccessLog, tmp_path: Path) -> None:
    access_log.record("scorer", "key 1", "/metrics", None, "OK")
    access_log.write()
    other = tmp_path / "access" / "access-2026-11-28-1.ndjson"
    line = {"at_utc": "2026-11-28T23:00:00Z", "principal": "b", "route": "/metrics", "digest": None, "outcome": "OK"}
    other.write_bytes(orjson.dumps(line) + b'\n{"at_utc": "2026-11')
    assert [fields["outcome"] for fields in told(tmp_path)] == ["OK", "UNREADABLE", "OK"]


def test_strangers_cannot_fill_the_disk(access_log: AccessLog, tmp_path: Path) -> None:
    for number in range(250):
        access_log.record(
            None if number % 5 else "scorer",
            None if number % 5 else "key 1",
            "/metrics",
            None,
            "UNAUTHENTICATED" if number % 5 else "OK",
        )
    access_log.write()
    of_scorer = [fields for fields in told(tmp_path) if fields["principal"] == "scorer"]
    strangers = [fields for fields in told(tmp_path) if fields["principal"] is None]
    assert len(of_scorer) == 50
    assert len(strangers) == 51
    assert strangers[-1]["times"] == 150


def test_what_cannot_be_written_waits_and_then_nothing_is_answered(
    access_log: AccessLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "access").write_text("in its place")
    for number in range(300):
        access_log.record("scorer", "key 1", "/metrics", f"{number:064x}", "OK")
        if number % 100 == 99:
            with caplog.at_level(logging.ERROR):
                access_log.write()
    assert access_log.is_full
    assert len(caplog.records) == 1
    (tmp_path / "access").unlink()
    access_log.write()
    assert not access_log.is_full
    assert [fields["digest"] for fields in told(tmp_path)] == [f"{number:064x}" for number in range(300)]


async def test_each_access_is_told_and_no_value(access_log: AccessLog, tmp_path: Path) -> None:
    key, metrics = principal("metrics", ["metrics"])
    port, builds = FakePort(), FakeBuilds()
    async with test_app.client_of(port, builds, access=access_log, authentication=authentication(metrics)) as http:
        assert (await http.post("/v0/get_features", content=test_app.REQUEST)).status_code == 200
        assert (await http.post("/v0/get_features", content=b"{")).status_code == 400
        assert (await http.get(f"/v0/snapshots/{HASH}")).content == RECORD
        assert (await http.get("/v0/snapshots/account-0000001")).status_code == 400
        assert (await http.get("/v0/feature_groups", headers={"authorization": f"Bearer {key}"})).status_code == 403
        assert (await http.get("/metrics", headers={"authorization": "Bearer account-0000001"})).status_code == 401
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/account-0000001")).status_code == 404
    access_log.write()
    credentials = {"everything": f"key {KEY[4:20]}", "metrics": f"key {key[4:20]}", None: None}
    assert all(fields["credential"] == credentials[fields["principal"]] for fields in told(tmp_path))  # type: ignore[index]
    names = ("principal", "route", "digest", "outcome")
    assert [tuple(fields[name] for name in names) for fields in told(tmp_path)] == [
        ("everything", "/v0/get_features", HASH, "OK"),
        ("everything", "/v0/get_features", None, "MALFORMED_JSON"),
        ("everything", "/v0/snapshots/{snapshot_hash}", HASH, "OK"),
        ("everything", "/v0/snapshots/{snapshot_hash}", None, "INVALID_FIELD"),
        ("metrics", "/v0/feature_groups", None, "FORBIDDEN"),
        (None, "/metrics", None, "UNAUTHENTICATED"),
    ]
    written = b"".join(path.read_bytes() for path in (tmp_path / "access").iterdir())
    for value in (b"account-0000001", b"acc-000117", KEY.encode(), key.encode()):
        assert value not in written


async def test_nothing_is_answered_that_could_not_be_told(tmp_path: Path) -> None:
    full = AccessLog(tmp_path / "access", lambda: BEGIN, most_waiting=0)
    port = FakePort()
    async with test_app.client_of(port, access=full) as http:
        for response in [await http.post("/v0/get_features", content=test_app.REQUEST), await http.get("/v0/feature_groups")]:
            assert (response.status_code, response.json()["reason"]) == (503, Reason.STORE_DOWN.value)
        assert (await http.get("/health")).status_code == 200
        assert http.headers["authorization"] == BEARER["authorization"]
    assert port.asked == 0
