"""`ofp case`: an investigator's day on a small plane, and what is refused in words."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ofp_platform.api.examples import decision_example
from ofp_platform.cli.environment import Environment
from ofp_platform.cli.offline.case_commands import COLLECTING
from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.offline.labels import label_intake
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform_tests.cli.program import Ofp

WHY = ("--reason", "because")


def decide(plane_home: dict[str, str], number: int, outcome: str) -> str:
    """Record a decision of the demo's run; the id of its event."""
    event_id = f"case-payment-{number}"
    environment = Environment(home=plane_home["OFP_HOME"], database_url=plane_home["OFP_DATABASE_URL"], profile="demo")
    with environment.open_plane_without_log("owner") as plane, plane.pool.connection() as connection:
        pins = plane.profile.context_pins
        content = {
            **decision_example(),
            "context_pins": pins.wire(),
            "event_id": event_id,
            "decision_id": decision_id(pins, "card_payment", event_id),
            "outcome": outcome,
        }
        append_decisions(connection, [DecisionRecord.model_validate(content, strict=False)])
    return event_id


@contextmanager
def unreadable_decision(plane_home: dict[str, str]) -> Iterator[str]:
    """Inside the context the run has a record of a decision to review that nobody can read; its id."""
    name = "f" * 64
    content = '{"decided_at_utc":"2026-01-01T00:00:00Z","outcome":"review"}'
    environment = Environment(home=plane_home["OFP_HOME"], database_url=plane_home["OFP_DATABASE_URL"], profile="demo")
    with environment.open_plane_without_log("owner") as plane, plane.pool.connection() as connection:
        connection.execute(
            "INSERT INTO ofp.decision_record (decision_id, pins_digest, stream_name, partition_id, record_offset, event_id,"
            " snapshot_hash, content) VALUES (%s, %s, 's', '0', 1, 'e', 'h', %s)",
            (name, pins_digest(plane.profile.context_pins), content),
        )
    yield name
    with environment.open_plane_without_log("owner") as plane, plane.pool.connection() as connection:
        connection.execute("ALTER TABLE ofp.decision_record DISABLE TRIGGER USER")
        connection.execute("DELETE FROM ofp.decision_record WHERE decision_id = %s", (name,))
        connection.execute("ALTER TABLE ofp.decision_record ENABLE ALWAYS TRIGGER append_only")


def shown(on_plane: Ofp, case: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(on_plane("case", "show", case, "--json").out)
    return found


@contextmanager
def store_away() -> Iterator[None]:
    """The label store does not answer meanwhile."""

    def away(*_: object, **__: object) -> None:
        raise BuildRefused(BuildReason.STORE_UNAVAILABLE, "it was stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_intake.LabelStore, "append", away)
        yield


def test_from_a_decision_to_a_closed_case(on_plane: Ofp, plane_home: dict[str, str]) -> None:
    event = decide(plane_home, 1, "review")
    assert json.loads(on_plane("case", "collect", "--json").out)["triggers"] >= 1
    assert on_plane("case", "collect").out == "0 triggers, 0 were there, 0 conflicts\n"
    listed = on_plane("case", "list")
    line = next(line for line in listed.out.splitlines() if event in line)
    priority, digits = line.split()[:2]
    assert (priority, len(digits)) == ("2", 12)
    assert all(len(line) <= 80 for line in listed.out.splitlines())
    as_lines = on_plane("case", "show", digits).out
    assert "DECISION_ESCALATION: review, score 30" in as_lines
    assert f"snapshot {decision_example()['feature_snapshot_hash']}" in as_lines

    assert on_plane("case", "note", digits, "--text", "called the customer", "--actor", "ann").code == 0
    assert on_plane("case", "act", event, "--action", "hold_account", "--target", "account:a-1", *WHY).code == 0
    labelled = on_plane("case", "assert", event, "fraud", "--actor", "ann")
    assert (labelled.code, "label fraud_disposition fraud: ACCEPTED" in labelled.out) == (0, True)
    assert on_plane("case", "close", event, *WHY).code == 0
    case = shown(on_plane, event)
    types = [entry["content"]["entry_type"] for entry in case["timeline"]]
    assert types == ["TRIGGERED", "NOTE", "ACTION_REQUESTED", "LABEL_PENDING", "LABEL_ACCEPTED", "CLOSED"]
    assert case["standing"]["state"] == "CLOSED"
    assert event not in on_plane("case", "list").out
    assert event in on_plane("case", "list", "--state", "CLOSED").out
    told = on_plane("labels", "show", "--type", "fraud_disposition", "--event", event, "--json").out
    assert [row["value"] for row in json.loads(told)] == [1]

    assert "the case is closed already" in on_plane("case", "close", event, *WHY).refused()
    assert on_plane("case", "reopen", event, *WHY).code == 0
    assert "nothing to reopen" in on_plane("case", "reopen", event, *WHY).refused()


def test_a_call_opens_a_case_and_the_same_call_does_not_again(on_plane: Ofp) -> None:
    call = ("case", "trigger", "called-1", "--class", "card_payment", *WHY, "--ref", "call-7")
    assert on_plane(*call).code == 0
    assert "it was so before: nothing was done" in on_plane(*call, "--actor", "bob").out
    other = on_plane(*call[:-4], "--reason", "something else", "--ref", "call-7").refused()
    assert "CASE_ENTRY_CONFLICT: TRIGGERED of call-7" in other
    assert "CASE_ENTRY_CONFLICT: 1 entries" in on_plane("case", "list").out
    assert "came again with other content" in on_plane("case", "show", "called-1").out
    assert len(shown(on_plane, "called-1")["conflicts"]) == 1
    assert on_plane("case", "trigger", "called-1", "--class", "card_payment", *WHY, "--external").code == 0
    assert shown(on_plane, "called-1")["standing"]["priority"] == 1


def test_a_label_waits_while_the_store_is_away(on_plane: Ofp) -> None:
    assert on_plane("case", "trigger", "waits-1", "--class", "card_payment", *WHY).code == 0
    with store_away():
        waiting = on_plane("case", "assert", "waits-1", "no", "--type", "account_takeover")
        assert "the label store does not answer, so the label is pending (it was stopped)" in waiting.refused()
        assert "label account_takeover no: PENDING" in waiting.out
        still = on_plane("case", "settle", "--attempts", "1")
        assert "the label store does not answer: it was stopped" in still.refused()
        assert still.out == "0 accepted, 0 rejected, 1 pending\n"
    assert on_plane("case", "settle").out == "1 accepted, 0 rejected, 0 pending\n"
    assert [label["state"] for label in shown(on_plane, "waits-1")["standing"]["labels"]] == ["ACCEPTED"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("case", "show", "nobody"), "no case of this run has the id 'nobody'"),
        (("case", "close", "0" * 64, *WHY), "no case of this run has the id"),
        (("case", "trigger", "x", "--class", "nothing", *WHY), "--class says of which class the event is"),
        (("case", "trigger", "x", *WHY, "--class", "card_payment", "--ref", "a b"), "source_ref: "),
        (("case", "assert", "waits-3", "maybe"), "fraud_disposition has no value 'maybe'"),
        (("case", "assert", "waits-3", "fraud", "--type", "mood"), "there is no label type 'mood'"),
        (("case", "assert", "waits-3", "fraud", "--since", "today"), "--since is RFC 3339"),
        (("case", "note", "waits-3", "--text", "card 4111111111111111"), "raw identifier"),
        (("case", "act", "waits-3", "--action", "Hold!", "--target", "a", *WHY), "action_type: "),
    ],
)
def test_refusals_say_what_is_wrong(on_plane: Ofp, arguments: tuple[str, ...], words: str) -> None:
    on_plane("case", "trigger", "waits-3", "--class", "card_payment", *WHY, "--ref", "w-3")
    refused = on_plane(*arguments).refused()
    assert words in refused
    assert "4111" not in refused


def test_an_empty_queue_says_so(on_plane: Ofp) -> None:
    assert "no case is CLOSED" in on_plane("case", "list", "--state", "CLOSED", "--profile", "handbook").out


def test_a_collector_goes_on_until_it_is_stopped_and_tells_what_it_cannot_read(
    on_plane: Ofp, plane_home: dict[str, str], tmp_path: Any
) -> None:
    event = decide(plane_home, 2, "decline")
    variables = {**plane_home, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        unreadable_decision(plane_home) as name,
        Child("collector", ofp_command("case", "collect", "--every", "1"), variables, tmp_path / "log") as collector,
    ):
        assert collector.wait_for_line(COLLECTING, 120) is not None, (tmp_path / "log").read_text()
        assert collector.wait_for_line("collected: ", 120) is not None, (tmp_path / "log").read_text()
        assert collector.wait_for_line(f"decision {name} cannot be read", 120) is not None, (tmp_path / "log").read_text()
        os.kill(collector.pid, signal.SIGTERM)
    assert event in on_plane("case", "list").out
