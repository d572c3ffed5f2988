"""`ofp up`, whole: it comes up, answers, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from ofp_platform.cli.up.restarts import MOST
from ofp_platform.client import OfpClient, RetryPolicy, verify
from ofp_platform.storage.embedded import SUPERUSER, stop_embedded
from ofp_platform_tests.api.console_server import browser, chromium
from ofp_platform_tests.oracle.demo_plane import ACCOUNT, AFTER_THE_DEMO

OFP = (str(Path(sys.executable).with_name("ofp")),)
HASTY_OFP = (
    sys.executable,
    "-c",
    "from ofp_platform.cli.up import restarts; restarts._FIRST_SECONDS = 0.05; from ofp_platform.cli.entry import main; main()",
)
"""The same, but for the pauses of `ofp up` (test_restarts.py): the first is of 0.05 s."""


@contextmanager
def running_ofp(
    variables: dict[str, str], *arguments: str, program: tuple[str, ...] = OFP
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """`ofp up` up to the line that says that it is ready, and what it has said."""
    command = [*program, "up", "--port", "0", *arguments]
    environment = {**os.environ, **variables, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = []
        try:
            for line in process.stdout:
                said.append(line)
                if line.startswith("ready"):
                    break
            yield process, said
        finally:
            process.terminate()
            process.stdout.read()


def address(said: list[str], name: str) -> str:
    found = re.search(rf"^{name} +(http://[\d.:]+)", "".join(said), re.MULTILINE)
    assert found, said
    return found[1]


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=15)
    left = []
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:  # whoever adopted it has not reaped it yet
                left.append(process.cmdline())
    assert left == []


def key(home: str) -> str:
    """That of decisions, which `ofp up` made."""
    return (Path(home) / "keys" / "decisions.key").read_text().strip()


_MUTATION = (
    'mutation { startSensor(sensorSelector: {repositoryName: "r", repositoryLocationName: "l", sensorName: "s"}) { __typename } }'
)


def attack_dagster(said: str) -> None:
    """What the pages of other sites, and other users of the machine, get from Dagster's server; and what its own pages do."""
    found = re.search(r"^Dagster UI +(http://[\d.:]+)/\?session=(\S+)", said, re.MULTILINE)
    assert found, said
    url, session = found[1], found[2]
    known = {"authorization": f"Bearer {session}"}
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        for path in ("/", "/server_info", "/logs/x", "/graphql?query=%7Bversion%7D", "/download_debug/x"):
            assert http.get(path).status_code == 401
        read, change = {"query": "{ assetNodes { id } }"}, {"query": _MUTATION}
        assert http.post("/graphql", json=change).status_code == 401
        for headers, status in [({"host": "evil.example"}, 421), ({"origin": "https://evil.example"}, 403)]:
            assert http.get(f"/?session={session}", headers=headers).status_code == status
            assert http.post("/graphql", json=read, headers=known | headers).status_code == status
        assert http.get("/graphql", params={"query": _MUTATION}, headers=known).status_code == 405
        assert http.post("/graphql", content=b'{"query": "{ version }"}', headers=known).status_code == 415
        assert http.post("/report_asset_materialization/online/projection", json={}, headers=known).status_code == 403
        assert http.post("/graphql", json=change, headers=known).status_code == 403
        # the way of a browser
        assert http.get("/").headers["x-frame-options"] == "DENY"
        assert http.get(f"/?session={session}", follow_redirects=True).text.lstrip().lower().startswith("<!doctype html")
        assert http.post("/graphql", json=read).json()["data"]["assetNodes"]


def look_at_dagster(said: str) -> None:
    """Its pages in a browser, through the guard: they come up, and no question that they ask by themselves is refused."""
    found = re.search(r"^Dagster UI +(http\S+)", said, re.MULTILINE)
    assert found, said
    refused: list[str] = []
    with browser() as opened:
        page = opened.new_page()
        page.on("response", lambda answer: refused.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
        page.goto(found[1])
        page.get_by_text("Catalog").first.wait_for(timeout=60_000)
        assert "Application error" not in page.content()
    assert refused == []


@pytest.mark.timeout(180)
def test_everything_comes_up_answers_and_goes(plane_home: dict[str, str]) -> None:
    with running_ofp(plane_home, "--dagster-port", "0") as (process, said):
        with OfpClient(address(said, "HTTP service"), token=key(plane_home["OFP_HOME"]), timeout_seconds=10) as ofp:
            assert ofp.health().state == "GREEN"
            answer = ofp.get_features(
                context_pins=ofp.feature_groups().context_pins,
                feature_keys=[("account", ACCOUNT)],
                feature_groups=[("account_activity", "v1")],
                as_of_time_utc=AFTER_THE_DEMO,
            )
        assert verify(answer) == answer.provenance.feature_snapshot_hash
        assert answer.snapshot.by_key[0].by_group[0].features["sum_amount_30d"] == 107016
        attack_dagster("".join(said))
        if chromium() is not None:
            look_at_dagster("".join(said))
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 4
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait(60) == 0, rest
    assert rest.split() == ["stopping", "stopped"]
    assert_gone(family)
    if chromium() is None:
        pytest.skip("all of it was tried but Dagster's pages in a browser: no Chromium, apt-get install chromium")


def part(process: subprocess.Popen[str], word: str) -> psutil.Process:
    """The part of `ofp up` whose command line has that word."""
    family = psutil.Process(process.pid).children(recursive=True)
    return next(child for child in family if word in child.cmdline())


def test_a_part_that_ends_by_itself_is_started_again_and_too_often_stops_the_others(plane_home: dict[str, str]) -> None:
    with running_ofp(plane_home, "--no-dagster", program=HASTY_OFP) as (process, said):
        assert said[-1].startswith("ready")
        assert process.stdout is not None
        for name, word in (("HTTP service", "serve"), ("archiver", "archive")):
            part(process, word).kill()
            line = process.stdout.readline()
            assert line.startswith(name), line
            assert "ended by itself; started again in 0.05 s" in line
            assert process.stdout.readline().split() == [*name.split(), "started", "again"]
            assert part(process, word).is_running()
        family = psutil.Process(process.pid).children(recursive=True)
        for _ in range(MOST):
            part(process, "projector").kill()
            assert "ended by itself; started again in" in process.stdout.readline()
            assert "started again" in process.stdout.readline()
        part(process, "projector").kill()
        rest = process.stdout.read()
        assert process.wait(60) == 1
    assert "projector ended with exit code -9; " in rest  # and the end of its output, if it came to print anything
    assert "Traceback" not in rest
    assert_gone(family)


@pytest.fixture
def own_home() -> Iterator[Path]:
    """A home folder with an embedded PostgreSQL of its own."""
    with tempfile.TemporaryDirectory(prefix="ofp-up-") as name:
        yield Path(name)
        stop_embedded(Path(name) / "postgres")


def roles_connected(home: Path) -> set[str]:
    dsn = f"postgresql://{SUPERUSER}@/ofp?host={home / 'postgres'}"
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT usename FROM pg_stat_activity WHERE datname = 'ofp' AND pid <> pg_backend_pid() AND usename IS NOT NULL"
        ).fetchall()
    return {name for (name,) in rows}


def test_a_killed_postgres_is_started_again_and_the_plane_goes_on(own_home: Path) -> None:
    question: dict[str, Any] = {
        "feature_keys": [("account", ACCOUNT)],
        "feature_groups": [("account_activity", "v1")],
        "as_of_time_utc": AFTER_THE_DEMO,
    }
    patient = RetryPolicy(attempts=60, first_seconds=0.5, longest_seconds=0.5)
    with running_ofp({"OFP_HOME": str(own_home), "OFP_DATABASE_URL": ""}, "--no-dagster") as (process, said):
        with OfpClient(address(said, "HTTP service"), token=key(str(own_home)), timeout_seconds=10, retries=patient) as ofp:
            question["context_pins"] = ofp.feature_groups().context_pins
            assert roles_connected(own_home) >= {"ofp_projector", "ofp_serving", "ofp_offline"}
            before = ofp.get_features(**question).provenance.feature_snapshot_hash
            os.kill(int((own_home / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            assert process.stdout is not None
            assert process.stdout.readline().split() == ["PostgreSQL", "is", "gone;", "starting", "it", "again"]
            assert process.stdout.readline().split() == ["PostgreSQL", "is", "back"]
            assert ofp.get_features(**question).provenance.feature_snapshot_hash == before
            assert ofp.get_snapshot(before)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 0, rest
    assert rest.split() == ["stopping", "stopped"]
