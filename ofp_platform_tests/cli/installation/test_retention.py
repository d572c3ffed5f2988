"""Retention: what goes is what nobody needs, a dry run changes nothing, and what is published can still be proven."""

from __future__ import annotations

import json
import time
from importlib import resources
from pathlib import Path

import pytest

from ofp_platform.storage.postgres import connect
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time
from ofp_platform_tests.cli.online.conftest import next_pack  # noqa: F401  (a fixture)
from ofp_platform_tests.cli.program import call

QUESTION = ("get", "--key", "account:account-0001340", "--group", "account_activity:v1", "--as-of", "2026-02-05T00:00:00Z")


def stores(variables: dict[str, str], *arguments: str) -> dict[str, dict[str, object]]:
    outcome = call("retention", "--json", *arguments, **variables)
    assert outcome.code == 0, outcome
    return {store["store"]: store for store in json.loads(outcome.out)["stores"]}


@pytest.fixture
def retired(next_pack: dict[str, str]) -> dict[str, str]:  # noqa: F811
    """A plane with a projection that was retired just now, under a policy of no days."""
    assert call("projection", "rebuild", **next_pack).code == 0
    profile = Path(next_pack["OFP_HOME"]) / "profile.yaml"
    profile.write_text(profile.read_text() + "retention: {retired_projections: 1us, dagster_events: 1us}\n")
    return next_pack


RETIRED = "retired projections and their failures"


def rows(dsn: str, projection_id: int) -> dict[str, int]:
    with connect(dsn, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.columns WHERE table_schema = 'ofp' AND column_name = 'projection_id'"
        ).fetchall()
        counts = {}
        for (name,) in tables:
            row = connection.execute(f"SELECT count(*) FROM ofp.{name} WHERE projection_id = %s", (projection_id,)).fetchone()
            counts[str(name)] = 0 if row is None else int(row[0])
    return counts


def test_a_retired_projection_goes_and_nothing_else(retired: dict[str, str]) -> None:
    dsn = retired["OFP_DATABASE_URL"]
    before = call("features", *QUESTION, **retired).out
    assert stores(retired)[RETIRED]["going"] == 0  # it is not retired yet
    assert call("projection", "retire", "2", **retired).code == 0
    kept, old = rows(dsn, 1), rows(dsn, 2)
    assert old["chunk"] + old["tail"] > 0
    shown = stores(retired, "--dry-run")[RETIRED]
    assert shown["going"] == sum(old.values()) - 1  # but its own row
    assert (rows(dsn, 1), rows(dsn, 2)) == (kept, old)
    assert stores(retired)[RETIRED]["going"] == shown["going"]
    assert (rows(dsn, 1), sum(rows(dsn, 2).values())) == (kept, 0)
    assert json.loads(before)["snapshot"] == json.loads(call("features", *QUESTION, **retired).out)["snapshot"]
    assert stores(retired)[RETIRED]["going"] == 0
    facts = json.loads(call("governance", "list", "--fact", "records_removed", "--json", **retired).out)
    own = [fact for fact in facts if fact["store"] == RETIRED]  # neither the dry run nor a run that removes nothing tells
    assert [(fact["count"], fact["unit"]) for fact in own] == [(shown["going"], "rows")]
    assert call("projection", "rebuild", **retired).code == 0


def test_one_that_somebody_needs_stays(retired: dict[str, str]) -> None:
    from ofp_platform.online.projecting.continuous import CATCH_UP, holding

    dsn = retired["OFP_DATABASE_URL"]
    assert call("projection", "retire", "2", **retired).code == 0
    old = rows(dsn, 2)
    with holding(dsn, 2, CATCH_UP):
        assert stores(retired)[RETIRED]["going"] == 0
    with connect(dsn, autocommit=True) as connection:  # somebody builds it again
        connection.execute("UPDATE ofp.projection SET status = 'building' WHERE projection_id = 2")
        assert connection.execute("SELECT retired_at FROM ofp.projection WHERE projection_id = 2").fetchone() == (None,)
    assert stores(retired)[RETIRED]["going"] == 0
    assert rows(dsn, 2) == old


def test_young_ones_stay_and_the_policy_is_shown(next_pack: dict[str, str]) -> None:  # noqa: F811
    assert call("projection", "rebuild", **next_pack).code == 0
    assert call("projection", "retire", "2", **next_pack).code == 0
    assert stores(next_pack)[RETIRED] | {"detail": ""} == {
        "store": RETIRED,
        "policy": "30d after they were retired",
        "going": 0,
        "unit": "rows",
        "detail": "",
    }
    said = call("retention", "--dry-run", **next_pack).out
    assert max(map(len, said.splitlines())) <= 80
    for store in ("log", "scratch folders of builds", "Dagster events", "archive", "decisions and labels", "datasets and models"):
        assert f"{store}: kept " in said


def test_the_log_is_trimmed_where_the_profile_says_so_and_only_as_far_as_it_is_archived(next_pack: dict[str, str]) -> None:  # noqa: F811
    profile = Path(next_pack["OFP_HOME"]) / "profile.yaml"
    text = profile.read_text().replace("range_size: 25000", "range_size: 5")
    profile.write_text(text + "retention: {trim_log: true}\n")
    assert "nothing" in str(stores(next_pack)["log"]) or stores(next_pack)["log"]["going"] == 0
    assert call("archive", "run", **next_pack).code == 0
    shown = stores(next_pack, "--dry-run")["log"]["going"]
    assert isinstance(shown, int)
    assert shown > 0
    assert stores(next_pack)["log"]["going"] == shown
    assert stores(next_pack)["log"]["going"] == 0


def test_old_accesses_go_and_younger_ones_stay(next_pack: dict[str, str]) -> None:  # noqa: F811
    folder = Path(next_pack["OFP_HOME"]) / "access"
    folder.mkdir(exist_ok=True)
    today = format_time(int(time.time() * MICROS_PER_SECOND))[:10]
    names = ("access-2020-01-01-7.ndjson", f"access-{today}-7.ndjson", "notes-2020-01-01.txt")
    for name in names:
        (folder / name).write_text("{}\n")
    shown = stores(next_pack, "--dry-run")["accesses to the HTTP service"]
    assert (shown["going"], shown["detail"], len(list(folder.iterdir()))) == (1, names[0], 3)
    assert stores(next_pack)["accesses to the HTTP service"]["going"] == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(names[1:])
    assert stores(next_pack)["accesses to the HTTP service"]["going"] == 0


def test_the_shipped_profiles_trim_nothing() -> None:
    for name in ("demo", "handbook"):
        text = resources.files("ofp_platform.cli").joinpath("profiles", f"{name}.yaml").read_text(encoding="utf-8")
        assert "trim_log" not in text


def test_what_a_stopped_removal_left_goes_with_the_next(retired: dict[str, str]) -> None:
    dsn = retired["OFP_DATABASE_URL"]
    kept = rows(dsn, 1)
    with connect(dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM ofp.projection WHERE projection_id = 2")
    left = sum(rows(dsn, 2).values())
    assert left > 0
    assert stores(retired, "--dry-run")[RETIRED]["going"] == left
    assert stores(retired)[RETIRED]["going"] == left
    assert (rows(dsn, 1), sum(rows(dsn, 2).values())) == (kept, 0)
