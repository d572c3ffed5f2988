"""`ofp projector status` and `ofp projection`: look, build the next one beside the live one, switch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform.vocabulary.position import Position
from ofp_platform_tests.cli.program import Ofp, call
from ofp_platform_tests.oracle.demo_plane import fill_demo_plane


def test_status_accounts_for_every_record(on_plane: Ofp) -> None:
    shown = on_plane("projector", "status").out
    assert shown.startswith("projection 1 of stream card-payments: version 1, watermark")
    assert "watermark 2026-02-04T23:58:20Z, no continuous driver runs" in " ".join(shown.split())
    rows = [line.split() for line in shown.splitlines() if line.startswith("000")]
    assert len(rows) == 4
    for _, records, applied, duplicates, _, failed, ignored, lag in rows:
        assert int(records) == int(applied) + int(duplicates) + int(failed) + int(ignored)
        assert lag == "0"


def test_status_without_a_projection(ofp: Ofp, dsn: str) -> None:
    said = ofp("projector", "status", OFP_DATABASE_URL=dsn).refused()
    assert said == "no live projection of this run: `ofp projector run` makes one\n"


def test_the_list_and_a_rebuild_with_nothing_to_do(on_plane: Ofp) -> None:
    listed = on_plane("projection", "list").out.splitlines()
    assert [line.split()[:2] for line in listed[:1]] == [["1", "live"]]
    assert listed[1] == "    card-payments, run demo-1"
    assert on_plane("projection", "rebuild").out == "projection 1 of the profile's pack is the live one: nothing to build\n"


def test_one_beside_is_retired_and_the_live_one_is_not(next_pack: dict[str, str]) -> None:
    assert call("projection", "rebuild", **next_pack).code == 0
    assert "is the live one" in call("projection", "retire", "1", **next_pack).refused()
    assert "there is no projection 9" in call("projection", "retire", "9", **next_pack).refused()
    assert call("projection", "retire", "2", **next_pack).out == "projection 2 is retired\n"
    assert call("projection", "retire", "2", **next_pack).out == "projection 2 was retired already\n"
    listed = [line.split() for line in call("projection", "list", **next_pack).out.splitlines()]
    assert {row[0]: "retired" in row for row in listed if row[0] in ("1", "2")} == {"1": False, "2": True}


def test_the_next_projection_is_built_compared_and_switched(next_pack: dict[str, str]) -> None:
    refused = call("projection", "switch", "0" * 8, **next_pack).refused()
    digest = refused.split("registry ")[1].split(";")[0]
    built = call("projection", "rebuild", **next_pack)
    assert built.code == 0, built.err
    assert "new: account_hour v1" in built.out
    hashes = [line.split()[1] for line in built.out.splitlines() if line.startswith(("live ", "beside "))]
    assert len(hashes) == 2
    assert len(set(hashes)) == 1
    assert f"ofp projection switch {digest[:12]}" in built.out
    switched = call("projection", "switch", digest[:12], **next_pack)
    assert "projection 2 is live, 1 is retired" in switched.out
    account = Environment(home=Path(next_pack["OFP_HOME"])).load_profile()
    assert account.pack.endswith("next.yaml")
    answer = call(
        "features",
        *("get", "--key", "account:account-0001340", "--group", "account_hour:v1", "--as-of", "2026-02-05T00:00:00Z"),
        **next_pack,
    )
    assert '"sum_amount_1h": 2230' in answer.out


OFP = str(Path(sys.executable).with_name("ofp"))


@pytest.fixture
def own_plane(tmp_path: Path, dsn: str) -> dict[str, str]:
    """A plane of one test, projected."""
    (tmp_path / "home").mkdir()
    fill_demo_plane(tmp_path / "home", dsn)
    return {"OFP_HOME": str(tmp_path / "home"), "OFP_DATABASE_URL": dsn}


def test_what_no_projection_can_have_is_refused(own_plane: dict[str, str]) -> None:
    def refused(*arguments: str) -> str:
        return call(*arguments, **own_plane).refused()

    assert "a projection has 1 to 64 key shards, not 0" in refused("projection", "reshard", "1", "0")
    assert "a projection has 1 to 64 key shards, not 65" in refused("projection", "reshard", "1", "65")
    assert "there is no projection 7" in refused("projection", "reshard", "7", "2")
    for text in ("2/2", "1", "a/2", "0/0", "-1/2", "0/65", "1/2/3", ""):
        assert f"{text!r} names no shard: expected I/S" in refused("projector", "run", "--shard", text)
    assert "projection 1 has 1 key shards since version 0, not 2" in refused("projector", "run", "--shard", "1/2")
    assert call("projection", "reshard", "1", "1", **own_plane).out == "projection 1 has 1 key shard already\n"


def _append(variables: dict[str, str], event: dict[str, Any]) -> Position:
    environment = Environment(home=Path(variables["OFP_HOME"]), database_url=variables["OFP_DATABASE_URL"], profile="demo")
    with environment.open_plane("owner") as plane:
        (position,) = plane.log.append([event]).outcomes
    assert isinstance(position, Position)
    return position


def _applied(variables: dict[str, str], position: Position) -> str:
    """The answer about keys of several shards once it has that record."""
    keys = [f"{kind}:{name}" for kind, name in (("account", "account-0001340"), ("merchant", "merchant-0000296"))]
    ask = ["get", *(word for key in keys for word in ("--key", key)), "--as-of", "2026-02-05T00:00:10Z"]
    ask += ["--group", "account_activity:v1", "--group", "merchant_activity:v1"]
    while True:  # the test has a timeout
        answer = call("features", *ask, "--at-least", f"{position.partition_id}:{position.offset}", **variables)
        if answer.code == 0:
            return answer.out
        assert "BASIS_NOT_REACHED" in answer.err, answer.err


@pytest.mark.timeout(180)
def test_processes_of_shards_apply_and_end_when_there_is_another_number_of_them(
    own_plane: dict[str, str], payment: dict[str, Any]
) -> None:
    """A payment is applied by both, each for its keys; the answer is one of one basis. Then there are four shards."""
    resharded = call("projection", "reshard", "1", "2", **own_plane).out
    assert resharded.startswith("projection 1 has 2 key shards from version 2 on\n")
    assert "ofp projector run --shard 0/2; ofp projector run --shard 1/2" in resharded
    environment = {**os.environ, **own_plane, "PYTHONUNBUFFERED": "1"}

    def start(stack: ExitStack, shard: str) -> subprocess.Popen[str]:
        command = [OFP, "projector", "run", "--shard", shard]
        process = stack.enter_context(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline().endswith(f", key shard {shard}\n")
        return process

    with ExitStack() as stack:
        processes = [start(stack, f"{number}/2") for number in range(2)]
        position = _append(own_plane, payment)
        assert f'"partition_id": "{position.partition_id}"' in _applied(own_plane, position)
        status = call("projector", "status", **own_plane).out
        assert "key shard 0/2: version 3, a process attends to it\n" in status
        assert "key shard 1/2: version 3, a process attends to it\n" in status
        assert call("projection", "reshard", "1", "4", **own_plane).code == 0
        for process in processes:
            assert process.wait(60) == 1
            assert process.stderr is not None
            assert "projection 1 has 4 key shards since version 4, not 2" in process.stderr.read()
        others = [start(stack, f"{number}/4") for number in range(4)]
        _applied(own_plane, _append(own_plane, {**payment, "event_id": "mine-too"}))
        for process in others:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(60) for process in others] == [0] * 4
    assert "key shard 3/4: version" in call("projector", "status", **own_plane).out
