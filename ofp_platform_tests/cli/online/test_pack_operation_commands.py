"""`ofp plan`, `ofp apply`, `ofp rollback`: what is shown before, done, recorded, and gone back on."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ofp_platform.vocabulary.pack_plan import PackPlan
from ofp_platform_tests.cli.program import call


def digest_in(shown: str) -> str:
    found = re.search(r"apply with:\nofp apply \S+ --plan ([0-9a-f]{12}) ", shown)
    assert found is not None, shown
    return found[1]


def test_planned_applied_and_rolled_back(next_pack: dict[str, str], tmp_path: Path) -> None:
    pack = str(tmp_path / "next.yaml")
    shown = call("plan", pack, **next_pack).out
    assert "+ group account_hour v1  (account, 1 feature)\n    reaches back 1h: events from 2026-02-04T22:58:20Z on\n" in shown
    assert "= group account_activity v1  (account, " in shown
    assert re.search(r"^folds [0-9,]+ records; about [0-9.]+ MB of state beside the live one$", shown, re.MULTILINE)
    assert "measured on a fold" in " ".join(shown.split())
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    assert "building" not in call("projection", "list", **next_pack).out  # planning makes none

    whole = json.loads(call("plan", pack, "--json", **next_pack).out)
    assert whole.pop("plan_digest").startswith(digest_in(shown))
    assert PackPlan.model_validate_json(json.dumps(whole)).new_registry == whole["new_registry"]

    refused = call("apply", pack, "--plan", "0" * 12, "--reason", "new", **next_pack).refused()
    assert "asked for was 000000000000" in refused
    done = call(
        "apply", pack, "--plan", digest_in(shown), "--reason", "an hour more", "--actor", "mia", "--share", "1", **next_pack
    )
    assert done.code == 0, done.err
    assert "projection 2 is live" in done.out
    assert call("plan", pack, **next_pack).out.endswith("the pack is the live one: nothing to do\n")
    stale = call("apply", pack, "--plan", digest_in(shown), "--reason", "again", **next_pack).refused()
    assert "look again with `ofp plan" in stale

    back = json.loads(call("rollback", "--reason", "too early", "--actor", "mia", "--share", "1", "--json", **next_pack).out)
    assert (back["live"]["projection_id"], back["beside"]["projection_id"], back["beside"]["status"]) == (2, 1, "live")
    assert back["comparison"]["live_hash"] == back["comparison"]["beside_hash"]
    facts = json.loads(call("governance", "list", "--fact", "pack_operation", "--json", **next_pack).out)
    assert [fact["step"] for fact in facts] == ["rolled_back", "begun", "switched", "begun"]
    assert (facts[2]["actor"], facts[2]["reason"]) == ("mia", "an hour more")
    nothing = call("rollback", "--reason", "once more", **next_pack).refused()
    assert "was made live by no operation that can be gone back on" in nothing


def test_a_pack_that_cannot_be_planned(next_pack: dict[str, str], tmp_path: Path) -> None:
    pack = tmp_path / "next.yaml"
    assert "no such file" in call("plan", str(tmp_path / "none.yaml"), **next_pack).refused().lower()
    pack.write_text(pack.read_text(encoding="utf-8").replace("window: 24h", "window: 23h"), encoding="utf-8")
    assert "was published with another content" in call("plan", str(pack), **next_pack).refused()
