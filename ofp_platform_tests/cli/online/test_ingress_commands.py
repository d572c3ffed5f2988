"""`ofp ingress` and `ofp quarantine`: through the door, looked at, held against the log, and sent again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform_tests.cli.program import Ofp, call, jsonl


@pytest.fixture
def own(dsn: str, tmp_path: Path) -> Ofp:
    """The program in a home of its own, on a database of its own."""
    (tmp_path / "home").mkdir()

    def run(*arguments: str, **more: Any) -> Any:
        return call(*arguments, OFP_HOME=str(tmp_path / "home"), OFP_DATABASE_URL=dsn, **more)

    return run


def test_events_pass_the_door_once_and_the_rest_is_set_aside(own: Ofp, payment: dict[str, Any], tmp_path: Path) -> None:
    other = {**payment, "event_id": "p-2", "event_type": "chargeback"}
    conflict = {**payment, "payload": {**payment["payload"], "amount_minor": 1}}
    file = jsonl(tmp_path / "events.jsonl", payment, payment, conflict, other, "nonsense")
    sent = own("ingress", "admit", file, "--producer", "till")
    assert sent.code == 1, sent
    assert sent.out == "1 admitted, 1 duplicates, 3 set aside\n"
    assert f"{file}:3: EVENT_ID_CONFLICT: event_id: was admitted with another payload" in sent.err
    assert f"{file}:4: UNKNOWN_EVENT_TYPE: event_type: known are" in sent.err
    assert f"{file}:5: INVALID_ENVELOPE" in sent.err
    again = own("ingress", "admit", file, "--json")
    assert json.loads(again.out) == {"admitted": 0, "duplicates": 2, "quarantined": 3, "batches": [2]}
    batches = json.loads(own("ingress", "receipts", "--json").out)
    assert [(batch["batch_id"], batch["producer"], batch["records"]) for batch in batches] == [(2, "file", 5), (1, "till", 5)]
    assert "5 records: 1 admitted, 1 duplicates, 3 set aside" in own("ingress", "receipts").out
    receipts = json.loads(own("ingress", "receipts", "1", "--json").out)
    assert [receipt["outcome"] for receipt in receipts] == ["ADMIT", "DUPLICATE", "QUARANTINE", "QUARANTINE", "QUARANTINE"]
    assert receipts[0]["position"] == receipts[1]["position"]
    assert f"0  ADMIT  card_payment  {payment['event_id']}" in own("ingress", "receipts", "1").out
    assert "has no batch 99" in own("ingress", "receipts", "99").refused()
    balance = own("ingress", "reconcile")
    assert (balance.code, "10 sent = 1 admitted + 3 duplicates + 6 set aside (2 batches)" in balance.out) == (0, True), balance
    assert "balances to the unit" in balance.out


def test_quarantine_is_listed_shown_and_sent_again(own: Ofp, payment: dict[str, Any], tmp_path: Path) -> None:
    assert own("projector", "catch-up").code == 0
    assert own("quarantine", "list").out == "nothing was set aside\n"
    bad = {**payment, "schema_version": "9"}
    assert own("ingress", "admit", jsonl(tmp_path / "events.jsonl", bad)).code == 1
    listed = own("quarantine", "list")
    assert "UNKNOWN_SCHEMA_VERSION: 1" in listed.out
    assert "amount" not in listed.out  # of the content nothing is shown
    (record,) = json.loads(own("quarantine", "list", "--reason", "UNKNOWN_SCHEMA_VERSION", "--json").out)["records"]
    assert "there is no reason 'NONE'" in own("quarantine", "list", "--reason", "NONE").refused()
    shown = own("quarantine", "show", str(record["quarantine_id"]))
    assert record["object_path"] in shown.out
    assert "has no record 77 in quarantine" in own("quarantine", "show", "77").refused()
    blank = own("quarantine", "replay", "1", "--reason", " ")
    assert (blank.code, "say why" in blank.err) == (2, True)
    replayed = own("quarantine", "replay", str(record["quarantine_id"]), "--reason", "a try", "--actor", "ana")
    assert (replayed.code, replayed.out) == (
        1,
        "QUARANTINE: UNKNOWN_SCHEMA_VERSION: schema_version of card_payment: known are 1, 1.0, v1, v1.0\n",
    )
    assert "from file; sent again: 1" in own("quarantine", "list").out
    facts = json.loads(own("governance", "list", "--json").out)
    assert [(fact["fact"], fact["actor"]) for fact in facts if fact["fact"] != "policy_in_force"] == [
        ("quarantine_replayed", "ana")
    ]
    assert "quarantine_replayed" in own("governance", "list").out


def environment(tmp_path: Path, dsn: str) -> Environment:
    return Environment(home=tmp_path / "home", database_url=dsn, profile="demo")


def test_what_came_around_the_door_is_told(own: Ofp, payment: dict[str, Any], tmp_path: Path, dsn: str) -> None:
    file = jsonl(tmp_path / "events.jsonl", payment)
    assert own("migrate").code == 0
    with environment(tmp_path, dsn).open_plane("owner", create_stream=True) as plane:
        plane.log.append([payment])
    assert "no batch was received for this run" in own("ingress", "reconcile").refused()
    assert own("log", "append", file).out.startswith("1 appended, 0 refused\n")
    assert own("log", "append", file).out.startswith("0 appended, 0 refused, 1 there already\n")
    balance = own("ingress", "reconcile", "--json")
    assert balance.code == 1
    facts = json.loads(balance.out)
    assert facts["differing"] == 1
    assert facts["differences"][0].endswith("a record of the run that ingress has not admitted")


def test_a_world_is_streamed_and_goes_on_where_it_was(own: Ofp) -> None:
    assert own("world", "make", "june", "--payments", "800").code == 0
    assert "is not sealed" in own("world", "stream", "june").refused()
    assert own("world", "seal", "june").code == 0
    sent = json.loads(own("world", "stream", "june", "--as-arrived", "--json").out)
    assert sent["sent"] == sent["ADMIT"] + sent["DUPLICATE"] + sent["QUARANTINE"] > 800
    again = json.loads(own("world", "stream", "june", "--as-arrived", "--json").out)
    assert (again["sent"], again["resumed"]) == (0, sent["sent"])
    by_time = json.loads(own("world", "stream", "june", "--json").out)  # another order: all of it is there
    assert (by_time["ADMIT"], by_time["DUPLICATE"]) == (0, sent["ADMIT"] + sent["DUPLICATE"])
    assert "balances to the unit" in own("ingress", "reconcile").out
    assert own("projector", "catch-up").code == 0


def test_the_class_map_is_shown_and_a_file_is_checked(own: Ofp, tmp_path: Path) -> None:
    shown = own("ingress", "class-map")
    assert "card_payment  traffic  class card_payment" in shown.out
    facts = json.loads(own("ingress", "class-map", "--json").out)
    assert shown.out.endswith(f"digest {facts['digest']}\n")
    file = tmp_path / "classes.yaml"
    mapped = {"event_class": "a", "schema_versions": ["v1"], "stream": "traffic", "payload_schemas": {"v1": {"type": "object"}}}
    file.write_text(json.dumps({"kind": "class_map", "contract_version": "v0", "events": {"a": mapped}}), encoding="utf-8")
    assert "v1, payload by its schema" in own("ingress", "class-map", str(file)).out
    file.write_text("kind: class_map\n", encoding="utf-8")
    assert f"{file}: events: Field required" in own("ingress", "class-map", str(file)).refused()
