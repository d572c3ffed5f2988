"""`ofp decider`, `ofp decision replay|whatif`, `ofp governance reconcile`: from a run that is READY to sums that balance."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from ruamel.yaml import YAML

from ofp_platform.cli.demo.demo_events import simulated_payments
from ofp_platform.cli.demo.loop_steps import loop_profile
from ofp_platform.cli.demo.through_door import stream_world
from ofp_platform.cli.environment import Environment
from ofp_platform.cli.online.decider_commands import has_come_to
from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.decisions.decider import Decider, DeciderPolicy
from ofp_platform.decisions.event_reader import EventReader
from ofp_platform.decisions.in_force import InForce
from ofp_platform.decisions.ready_bundles import ReadyBundles
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.plane import Plane
from ofp_platform.telemetry.trace_ids import PARENTS, Stage
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time, parse_time
from ofp_platform_tests.api.keys import KEY, write_principals
from ofp_platform_tests.cli.program import Outcome, call
from ofp_platform_tests.decisions.conftest import DECIDED_AT
from ofp_platform_tests.decisions.test_decider import Held, posture
from ofp_platform_tests.oracle.simulated_log import append, pack_with, profile
from ofp_platform_tests.telemetry.recorded_spans import RecordedSpans, recording


@dataclass
class Site:
    """The program on a profile, and a service; called with its arguments, in which ADDRESS is that of the service."""

    variables: dict[str, str]
    profile: Profile
    address: str = ""

    def __call__(self, *arguments: str) -> Outcome:
        return call(*(self.address if part == "ADDRESS" else part for part in arguments), **self.variables)


WHO = ("--actor", "ada", "--reason", "x")


@pytest.fixture
def run(dsn: str, tmp_path: Path) -> Iterator[Site]:
    """The program on a run of 600 payments that is READY, streamed and projected, behind a service; its address goes before."""
    variables = {
        "OFP_HOME": str(tmp_path / "home"),
        "OFP_DATABASE_URL": dsn,
        "OFP_OBJECT_STORE_URL": f"file://{tmp_path}/objects",
    }
    (tmp_path / "home").mkdir()
    assert call("migrate", **variables).code == 0
    shipped = Environment(profile="demo").load_profile()
    shipped = shipped.model_copy(update={"object_store_url": f"file://{tmp_path}/objects", "allowed_lateness": "60d"})
    replay = simulated_payments(shipped, 600, log_kind="postgres")
    stream_world(replay.profile, dsn, replay.make_world, Console(quiet=True))
    profile = loop_profile(replay.profile, replay.event_type)
    path = tmp_path / "profile.yaml"
    with path.open("w", encoding="utf-8") as file:
        content = profile.model_dump(mode="json", exclude_none=True, exclude={"tiers"})
        YAML(typ="safe", pure=True).dump(content, file)
    variables |= {"OFP_PROFILE": str(path)}
    site = Site(variables, profile)
    assert site("projector", "catch-up").code == 0
    variables |= {"OFP_PRINCIPALS": str(write_principals(tmp_path / "principals.json"))}
    with Child("the service", ofp_command("serve", "--port", "0"), variables, tmp_path / "serve.log") as child:
        site.address = child.wait_for_line("serving at ", 60) or ""
        assert site.address
        variables |= {"OFP_API_TOKEN": KEY}
        yield site


def put_in_force(run: Site, mode: str) -> None:
    """The shipped bundle, and a mode."""
    for step in ("publish", "approve", "activate"):
        who = ("--actor", "ben", "--reason", "x") if step == "approve" else WHO
        assert run("bundle", step, "card_payments", *who).code == 0
    assert run("posture", "hold", mode, "--reason", "begin").code == 0


CARD_ACTIVITY = """  - name: card_activity
    version: v1
    key_type: card
    ttl_seconds: 604800
    features:
      - {name: count_5m, aggregation: count, events: [card_payment], window: 5m}
"""


def longer(version: str) -> str:
    """The same group in that version, with a longer window."""
    return CARD_ACTIVITY.replace("version: v1", f"version: {version}").replace("window: 5m", "window: 7d")


def otherwise(run: Site, *options: str) -> dict[str, Any]:
    outcome = run("decision", "whatif", *options, "--json")
    assert outcome.code == 0, outcome
    told: dict[str, Any] = json.loads(outcome.out)
    assert told["same"] + len(told["flips"]) + len(told["untold_decisions"]) == told["decisions"]
    return told


def try_other_vectors(run: Site, dsn: str, tmp_path: Path, bundle: str) -> None:
    """With what is known now, and with other features."""
    as_decided = otherwise(run, "--as-known-now")
    assert (as_decided["flips"], as_decided["untold"]) == ([], {})
    late = late_events(run, dsn)
    known_now = otherwise(run, "--as-known-now")
    assert known_now["by_cause"] == {"DATA_LATE_EVENT": len(known_now["flips"])}
    assert late in {(flip["event_id"], flip["before"], flip["after"]) for flip in known_now["flips"]}
    shown = run("decision", "whatif", "--as-known-now").out
    assert "cause            flips  alone" in shown

    pack = str(pack_with(tmp_path, [(CARD_ACTIVITY, longer("v2"))]))
    by_feature = otherwise(run, "--pack", pack)
    assert by_feature["by_cause"] == {"FEATURE": len(by_feature["flips"])}
    assert len(by_feature["flips"]) > 0
    both = otherwise(run, "--pack", pack, "--as-known-now", "--bundle", bundle, "--mode", "HOLD")
    assert set(both["by_cause"]) == {"DATA_LATE_EVENT", "FEATURE", "POSTURE"}
    assert otherwise(run, "--pack", "card_payments")["flips"] == []

    def refused(*options: str) -> str:
        return run("decision", "whatif", *options).refused()

    assert "cannot be read: No such file" in refused("--pack", str(tmp_path / "gone.yaml"))
    assert f"no pack of digest {'1' * 64} is published here" in refused("--pack", "1" * 64)
    redefined = str(pack_with(tmp_path, [(CARD_ACTIVITY, longer("v1"))], revision=3))
    assert "group card_activity v1 was published with another content" in refused("--pack", redefined)
    renamed = str(pack_with(tmp_path, [(CARD_ACTIVITY, CARD_ACTIVITY.replace("card_activity", "activity_of_cards"))], revision=4))
    unfit = refused("--pack", renamed, "--bundle", bundle)
    assert "cannot decide on its features: pack card_payments revision 4 has nothing for card_activity v1" in unfit
    nothing = run("decision", "whatif", "--pack", renamed, "--limit", "3")
    assert (nothing.code, "of no decision it can be told" in nothing.err) == (1, True)
    assert "3 cannot be told: GROUP_VERSION_MISSING" in nothing.out


def late_events(run: Site, dsn: str) -> tuple[str, str, str]:
    """Let two payments right before an approved one become known; its id, and what it would have been."""
    with Plane.open(run.profile, dsn) as plane:
        with plane.pool.connection() as connection:
            rows = connection.execute("SELECT content FROM ofp.decision_record ORDER BY decision_id").fetchall()
        approved = next(
            record
            for (content,) in rows
            if (record := DecisionRecord.model_validate_json(content)).outcome.value == "approve" and record.vector is not None
        )
        at = approved.event_position
        batch = plane.log.read(at.partition_id, None, 10_000)
        [place] = [index for index, offset in enumerate(batch.offsets) if offset == at.offset]
        payload, time = json.loads(batch.payloads[place]), parse_time(approved.as_of_time_utc)
        head = {"event_type": approved.event_type, "schema_version": batch.schema_versions[place]}
        late = [
            {
                "event_id": f"late-{number}",
                **head,
                "ts_utc": format_time(time - number * MICROS_PER_SECOND),
                **run.profile.context_pins.wire(),
                "payload": payload,
            }
            for number in (1, 2)
        ]
        assert not plane.log.append(late).refusals
    return approved.event_id, "approve", "review"


def test_from_a_bundle_in_force_to_sums_that_balance(run: Site, dsn: str, tmp_path: Path) -> None:
    decide = ("decider", "run", "--once", "--url", "ADDRESS")
    assert "nothing is decided on yet" in run("decider", "show").out
    assert run("decider", "show").code == 1
    for command in (("decision", "replay"), ("decision", "whatif", "--mode", "HOLD")):
        assert "the plane has decided on nothing" in run(*command).refused()
    assert "is decided on yet: `ofp decider run` decides" in run("governance", "reconcile").refused()
    assert "say what is otherwise" in run("decision", "whatif").refused()
    put_in_force(run, "NORMAL")

    unasked = run("decider", "run", "--once", "--url", "http://127.0.0.1:1")
    assert "the service at http://127.0.0.1:1 does not answer" in unasked.refused()
    assert "nothing was decided on" in unasked.refused()
    assert "nothing is decided on yet" in run("decider", "show").out
    decided = run(*decide)
    assert decided.code == 0, decided
    assert "deciding on card_payment of stream" in decided.out
    assert "decisions recorded" in decided.out
    again = run(*decide)
    assert "0 decisions recorded" in again.out
    shown = json.loads(run("decider", "show", "--json").out)
    assert (sum(shown["lag_records"].values()), shown["posture"]["mode"]) == (0, "NORMAL")
    assert shown["active"]["bundle"]["bundle_name"] == "card_payments"

    replayed = json.loads(run("decision", "replay", "--json").out)
    assert replayed["decisions"] == replayed["equal"] > 500
    assert json.loads(run("decision", "replay", "--limit", "7", "--json").out)["decisions"] == 7
    held = json.loads(run("decision", "whatif", "--mode", "HOLD", "--json").out)
    assert held["by_cause"] == {"POSTURE": len(held["flips"])}
    digest = shown["active"]["bundle"]["digest"]
    same = json.loads(run("decision", "whatif", "--bundle", f"card_payments/{digest}", "--json").out)
    assert (same["flips"], same["same"]) == ([], replayed["decisions"])
    assert "NAME/DIGEST" in run("decision", "whatif", "--bundle", "card_payments").refused()
    try_other_vectors(run, dsn, tmp_path, f"card_payments/{digest}")
    one = held["flips"][0]["decision_id"]
    told = run("decision", "show", one)
    assert (told.code, told.out.splitlines()[-1]) == (0, "MATCH")
    assert f"bundle       card_payments, {digest}" in told.out

    unproven = run("governance", "reconcile")
    assert (unproven.code, "behind the newest head of the audit log" in unproven.out) == (1, True)
    key = str(tmp_path / "audit.key")
    assert run("audit", "key", "new", key).code == 0
    assert run("audit", "append", "--key", key).code == 0
    report = json.loads(run("governance", "reconcile", "--keep", "--json").out)
    wanted = [word for word in report["differences"] if "intents without an outcome" not in word]
    assert (report["traffic"], report["decisions"], wanted) == (replayed["decisions"], replayed["decisions"], [])
    assert (tmp_path / "objects" / report["path"]).exists()


def test_who_decides_once_ends_where_the_log_ended_while_traffic_goes_on(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = profile(tmp_path, control_stream="control", decisions_stream="decisions")
    with Plane.open(declared, dsn) as plane:
        append(plane.log)
        in_force = Held(InForce(posture(Mode.HOLD), ()))
        decider = Decider(
            plane.pool,
            plane.decisions_log(create=True),
            EventReader(plane.log, declared.context_pins, "card_payment", declared.clock_skew_us),
            lambda _request: pytest.fail("no vector is asked for in this mode"),
            in_force,
            ReadyBundles(plane.objects).load,
            DeciderPolicy(policy_rev=f"1.{'0' * 64}", fail_closed="review", deadline_seconds=20.0),
            lambda: DECIDED_AT,
        )
        end, read_rows = plane.log.ends(), PostgresLog._read_rows
        reads: list[Any] = []

        def append_and_read(log: PostgresLog, *asked: Any) -> dict[str, list[tuple[Any, ...]]]:
            append(plane.log)
            reads.append(asked)
            assert len(reads) < 20, "it goes on for ever"
            return read_rows(log, *asked)

        monkeypatch.setattr(PostgresLog, "_read_rows", append_and_read)
        tally = asyncio.run(decider.decide_available(records=400, enough=has_come_to(decider, end)))
        assert tally.outcomes.total() > 300
        place = decider.place()
        assert place is not None
        assert all(
            place.contains(Position(stream_name=end.stream_name, partition_id=name, offset=int(part.offset) - 1))
            for name, part in end.by_partition().items()
        )


@pytest.fixture
def spans() -> Iterator[RecordedSpans]:
    with recording() as memory:
        yield memory


ACTIONS = """
revision: 1
allow_list:
  - {actor: decider, action_type: hold_account, scope: account}
"""


def test_one_event_gives_one_chain_of_spans_from_the_door_to_the_audit_log(
    spans: RecordedSpans, run: Site, tmp_path: Path
) -> None:
    path = Path(run.variables["OFP_PROFILE"])
    content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    content["deciding"]["actions"] = [
        {"outcome": outcome, "action_type": "hold_account", "key_type": "account"} for outcome in ("review", "decline")
    ]
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(content, file)
    put_in_force(run, "NORMAL")
    assert run("decider", "run", "--once", "--url", "ADDRESS").code == 0
    (tmp_path / "actions.yaml").write_text(ACTIONS, encoding="utf-8")
    acted = run("action", "run", "--once", "--policy", str(tmp_path / "actions.yaml"))
    assert acted.code == 0, acted
    key = str(tmp_path / "audit.key")
    assert run("audit", "key", "new", key).code == 0
    assert run("audit", "append", "--key", key).code == 0
    held_ids = {str((span.attributes or {})["ofp.event_id"]) for span in spans.all() if span.name == Stage.ACT}
    assert held_ids
    for event_id in held_ids:
        chain = spans.of_event(event_id)
        by_name = {span.name: span for span in chain}
        assert set(by_name) == {stage.value for stage in Stage}
        for once in (Stage.APPEND, Stage.APPLY, Stage.DECIDE, Stage.AUDIT):
            assert spans.names(event_id).count(once) == 1
        for span in chain:
            parent = PARENTS.get(Stage(span.name))
            if parent is not None:
                context = by_name[parent].context
                assert span.parent is not None
                assert context is not None
                assert span.parent.span_id == context.span_id
        # nothing that was sent stands in a span
        shown = {name for span in chain for name in span.attributes or {}}
        assert shown <= SHOWN, shown - SHOWN


SHOWN = {
    f"ofp.{name}"
    for name in (
        *("event_id", "outcome", "batch_id", "partition_id", "offset", "projection_id", "version"),
        *("decision_id", "slot", "idempotency_key", "action_type", "attempt", "tree_size"),
    )
}


def test_an_event_that_comes_through_the_door_is_answered_with_its_decision(run: Site, tmp_path: Path) -> None:
    put_in_force(run, "HOLD")  # a mode that waits for no vector: nothing projects here
    payload = {f"{kind}_id": f"{kind}-0000001" for kind in ("account", "card", "customer", "device", "merchant")}
    event = {
        "event_id": "at-the-door",
        "event_type": "card_payment",
        "schema_version": "v1",
        "ts_utc": "2026-02-05T00:00:05Z",
        **run.profile.context_pins.wire(),
        "payload": {**payload, "amount_minor": 5, "status": "approved", "channel": "pos"},
    }
    door = Child("the door", ofp_command("ingress", "serve", "--port", "0"), run.variables, tmp_path / "door.log")
    command = ofp_command("decider", "run", "--url", run.address)
    decider = Child("the decider", command, run.variables, tmp_path / "decider.log")
    with door, decider, httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=60) as http:
        address = door.wait_for_line("serving at ", 60)
        assert address is not None
        # the decider comes by what is in the log first
        while run("decider", "show").code == 1:
            pass

        def ask(**changes: object) -> httpx.Response:
            return http.post(f"{address}/v0/decide", json={**event, **changes})

        answer = ask()
        while answer.status_code == 503:  # it is admitted, and not decided on yet
            assert answer.json()["reason"] == "DECISION_PENDING"
            answer = ask()
        assert answer.status_code == 200, answer.text
        record = DecisionRecord.model_validate_json(answer.content)
        assert (record.event_id, record.outcome, record.slot) == ("at-the-door", "review", "active")
        assert ask().content == answer.content
        shown = run("decision", "show", record.decision_id)
        assert (shown.code, shown.out.splitlines()[-1]) == (0, "MATCH")
        refusals = {
            "event_type: the plane decides on card_payment alone": ask(event_type="fraud_report"),
            "the event is set aside: EVENT_ID_CONFLICT": ask(payload={**payload, "amount_minor": 6}),
            "the body is one event": http.post(
                f"{address}/v0/decide", content=b"{},{}", headers={"content-type": "application/json"}
            ),
            "an amendment is not decided on": ask(amends={"event_id": "x"}),
        }
        for words, refusal in refusals.items():
            assert (refusal.status_code, words in refusal.text) == (400, True), refusal.text
