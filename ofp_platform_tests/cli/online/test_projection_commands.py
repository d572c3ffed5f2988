"""`ofp projector status` and `ofp projection`: look, build the next one beside the live one, switch."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform_tests.cli.program import Ofp, call
from ofp_platform_tests.oracle.demo_plane import fill_demo_plane


def test_status_accounts_for_every_record(on_plane: Ofp) -> None:
    shown = on_plane("projector", "status").out
    assert shown.startswith("projection 1 of stream card-payments: version 1, watermark 2026-02-04T23:58:20.686825Z, ")
    assert "no continuous driver runs" in shown
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
    assert [line.split()[:3] for line in listed[1:]] == [["1", "card-payments", "demo-1"]]
    assert on_plane("projection", "rebuild").out == "projection 1 of the profile's pack is the live one: nothing to build\n"


@pytest.fixture
def next_pack(tmp_path: Path, dsn: str) -> dict[str, str]:
    """A plane of its own, whose profile names a pack with one group more than the live one."""
    home = tmp_path / "home"
    fill_demo_plane(home, dsn)
    shipped = resources.files("ofp_platform.registry").joinpath("packs", "card_payments.yaml").read_text(encoding="utf-8")
    group = """
  - name: account_hour
    version: v1
    key_type: account
    ttl_seconds: 3600
    features:
      - {name: sum_amount_1h, aggregation: sum, events: [card_payment], value: amount_minor, window: 1h}
"""
    pack = tmp_path / "next.yaml"
    pack.write_text(shipped.replace("revision: 1", "revision: 2", 1).rstrip() + "\n" + group, encoding="utf-8")
    profile = resources.files("ofp_platform.cli").joinpath("profiles", "demo.yaml").read_text(encoding="utf-8")
    home.mkdir(exist_ok=True)
    (home / "profile.yaml").write_text(profile.replace("pack: card_payments", f"pack: {pack}"), encoding="utf-8")
    return {"OFP_HOME": str(home), "OFP_DATABASE_URL": dsn}


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
