"""Actions over HTTP, on a database: listed, shown, settled once by an operator; and what is refused with which reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from jsonschema import Draft202012Validator

from ofp_platform.actions.ports import Unknown
from ofp_platform.api.app import Application
from ofp_platform.api.contract_files import contract_schemas
from ofp_platform.cli.online.action_requests import ActionRequests
from ofp_platform.storage.embedded import as_role
from ofp_platform.storage.governance_facts import read_facts
from ofp_platform.storage.roles import Job, default_role
from ofp_platform.vocabulary.loop.action import ActionIntent, ActionState
from ofp_platform.vocabulary.offline.governance_fact import ActionSettled
from ofp_platform_tests.actions.conftest import POLICY, Scripted, Site, site
from ofp_platform_tests.api.fake_port import FakeBuilds, FakeOperators, FakeOverviews, FakePort, FakePosture, FakeRecords
from ofp_platform_tests.api.keys import authentication, principal

__all__ = ["site"]
ANN_KEY, ANN = principal("ann", ["operate"])
ELSEWHERE_KEY, ELSEWHERE = principal("elsewhere", ["operate"], [{"run_id": "another"}])
OTHERS_KEY, OTHERS = principal("others", ["features:read", "snapshots:read", "events:write", "investigate"])


class Asking:
    """A service of a run, and whoever asks it."""

    def __init__(self, http: httpx.AsyncClient, site: Site) -> None:
        self.http = http
        self.site = site

    async def get(self, path: str = "", key: str = ANN_KEY) -> httpx.Response:
        return await self.http.get(f"/v0/actions{path}", headers={"authorization": f"Bearer {key}"})

    async def settle(self, intent_key: str, key: str = ANN_KEY, **more: Any) -> httpx.Response:
        body = {"context_pins": self.site.pins.wire(), "is_done": True, "reason": "seen in their books"} | more
        body = {name: value for name, value in body.items() if value is not None}
        path = f"/v0/actions/{intent_key}/settlement"
        return await self.http.post(path, headers={"authorization": f"Bearer {key}"}, json=body)


@asynccontextmanager
async def service(
    site: Site, folder: Path, job: Job = Job.EXECUTOR, *, policy: bool = True, dsn: str | None = None
) -> AsyncIterator[Asking]:
    """By a database role."""
    policy_file = folder / "actions.yaml"
    if policy:
        policy_file.write_text(yaml.safe_dump(POLICY))
    connected = dsn or as_role(site.plane.dsn, default_role(job))
    actions = ActionRequests(site.plane.profile, connected, policy_file, lambda: next(site.moments))
    caller = authentication(ANN, ELSEWHERE, OTHERS, pins=site.pins)
    ports = (FakePort(), FakeBuilds(), FakeOperators(), FakeRecords(), FakeOverviews())
    application = Application(*ports, posture=FakePosture(), authentication=caller, actions=actions)
    async with httpx.AsyncClient(base_url="http://localhost", transport=httpx.ASGITransport(application)) as http:
        yield Asking(http, site)
    await actions.close()


def valid(name: str, answer: httpx.Response) -> dict[str, Any]:
    """The body, held against its contract."""
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    Draft202012Validator(contract_schemas()[f"{name}_v0.schema.json"]).validate(body)
    return body


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


def facts(site: Site, key: str) -> list[ActionSettled]:
    recorded_facts = (one.fact for one in read_facts(site.plane.pool, "action_settled", about=key))
    return [fact for fact in recorded_facts if isinstance(fact, ActionSettled) and fact.context_pins == site.pins]


def unknown(site: Site, reference: str = "d-1") -> str:
    """The key of an intent of which nobody knows whether it was done."""
    intent: ActionIntent = site.intent(reference, "notify_decision")
    site.record(intent)
    assert site.rounds(site.executor({"cases": Scripted([Unknown("no answer")])})).for_people == 1
    return intent.idempotency_key


async def test_an_unknown_one_is_listed_and_settled_once(site: Site, tmp_path: Path) -> None:
    key = unknown(site)
    async with service(site, tmp_path) as asking:
        listed = valid("action_list", await asking.get("?state=UNKNOWN"))
        assert [action["intent"]["idempotency_key"] for action in listed["actions"]] == [key]
        assert listed["counts"] == {"UNKNOWN": 1}
        shown = valid("action_record", await asking.get(f"/{key}"))
        assert (shown["state"], shown["attempts"][0]["attempt"], shown.get("outcome")) == ("UNKNOWN", 1, None)
        settled = valid("action_record", await asking.settle(key))
        assert (settled["state"], settled["outcome"]["settled_by"]) == ("EXECUTED", "ann")
        assert refused(await asking.settle(key)) == (409, "ACTION_NOT_NOW")
        assert refused(await asking.settle(key, is_done=False)) == (409, "ACTION_NOT_NOW")
        assert valid("action_record", await asking.get(f"/{key}")) == settled
        assert valid("action_list", await asking.get("?state=UNKNOWN"))["actions"] == []
    assert [fact.actor for fact in facts(site, key)] == ["ann"]
    assert [event_type for event_type, _ in site.stream()] == ["action_intent", "action_outcome"]


async def test_what_was_not_done_is_tried_again(site: Site, tmp_path: Path) -> None:
    key = unknown(site)
    async with service(site, tmp_path) as asking:
        settled = valid("action_record", await asking.settle(key, is_done=False))
        assert (settled["state"], settled["attempts"][0]["end"]) == ("OPEN", "NOT_DONE")
        assert settled["attempts"][0]["reason"] == "ann: seen in their books"


async def test_pages(site: Site, tmp_path: Path) -> None:
    intents = [site.intent(f"d-{number}") for number in range(5)]
    for intent in intents:
        site.record(intent)
    async with service(site, tmp_path) as asking:
        listed: list[str] = []
        cursor = ""
        while True:
            page = valid("action_list", await asking.get(f"?limit=2{cursor}"))
            listed += [action["intent"]["idempotency_key"] for action in page["actions"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert listed == [intent.idempotency_key for intent in reversed(intents)]
        assert page["counts"] == {"OPEN": 5}
        for state in ActionState:
            assert len(valid("action_list", await asking.get(f"?state={state}"))["actions"]) == (5 if state == "OPEN" else 0)
        for query in ("state=LOST", "limit=0", "limit=201", "limit=x", "cursor=x", f"cursor={'9' * 30}"):
            assert refused(await asking.get(f"?{query}")) == (400, "INVALID_FIELD"), query


async def test_who_may(site: Site, tmp_path: Path) -> None:
    key = unknown(site)
    async with service(site, tmp_path) as asking:
        for answer in (
            await asking.get("", OTHERS_KEY),
            await asking.get(f"/{key}", OTHERS_KEY),
            await asking.settle(key, OTHERS_KEY),
        ):
            assert refused(answer) == (403, "FORBIDDEN")
        # whoever may not read the run learns nothing of it
        assert refused(await asking.get("", ELSEWHERE_KEY)) == (404, "UNKNOWN_RUN")
        assert refused(await asking.get(f"/{key}", ELSEWHERE_KEY)) == (404, "UNKNOWN_ACTION")
        assert refused(await asking.get(f"/{'0' * 64}", ELSEWHERE_KEY)) == (404, "UNKNOWN_ACTION")
        assert refused(await asking.settle(key, ELSEWHERE_KEY)) == (404, "UNKNOWN_RUN")
        assert refused(await asking.settle(key, "nobody")) == (401, "UNAUTHENTICATED")
        assert valid("action_record", await asking.get(f"/{key}"))["state"] == "UNKNOWN"
    async with service(site, tmp_path, Job.SERVING) as asking:  # by a role that may read alone
        assert valid("action_record", await asking.get(f"/{key}"))["state"] == "UNKNOWN"
        answer = await asking.settle(key)
        assert refused(answer) == (403, "FORBIDDEN")
        assert "OFP_EXECUTOR_DATABASE_URL" in answer.json()["message"]
    assert facts(site, key) == []


async def test_what_is_refused(site: Site, tmp_path: Path) -> None:
    key, waiting = unknown(site), site.intent("d-2")
    site.record(waiting)
    other = site.other_run()
    foreign = other.intent("d-3")
    other.record(foreign)
    async with service(site, tmp_path) as asking:
        for answer, expected in (
            (await asking.get(f"/{'0' * 64}"), (404, "UNKNOWN_ACTION")),
            (await asking.get(f"/{foreign.idempotency_key}"), (404, "UNKNOWN_ACTION")),
            (await asking.get("/abc"), (400, "INVALID_FIELD")),
            (await asking.settle("0" * 64), (404, "UNKNOWN_ACTION")),
            (await asking.settle(foreign.idempotency_key), (404, "UNKNOWN_ACTION")),
            (await asking.settle(foreign.idempotency_key, context_pins=other.pins.wire()), (404, "UNKNOWN_RUN")),
            (await asking.settle(waiting.idempotency_key), (409, "ACTION_NOT_NOW")),
            (await asking.settle(key, reason=""), (400, "INVALID_FIELD")),
            (await asking.settle(key, reason=" "), (400, "INVALID_FIELD")),
            (await asking.settle(key, reason="a\0b"), (400, "INVALID_FIELD")),
            (await asking.settle(key, reason=None), (400, "MISSING_FIELD")),
            (await asking.settle(key, is_done="yes"), (400, "INVALID_FIELD")),
            (await asking.settle(key, reason="card 4111111111111111"), (400, "RAW_IDENTIFIER")),
            (await asking.settle(key, reason="x" * 5_000), (413, "BODY_TOO_LARGE")),
            (await asking.settle(key, actor="bob"), (400, "INVALID_FIELD")),
        ):
            assert refused(answer) == expected, answer.text
        methods = await asking.get(f"/{key}/settlement")
        assert (methods.status_code, methods.headers["allow"]) == (405, "POST")
        assert valid("action_record", await asking.get(f"/{key}"))["state"] == "UNKNOWN"


async def test_without_a_policy_nothing_is_settled(site: Site, tmp_path: Path) -> None:
    key = unknown(site)
    async with service(site, tmp_path, policy=False) as asking:
        answer = await asking.settle(key)
        assert refused(answer) == (409, "ACTION_NOT_NOW")
        assert "action policy" in answer.json()["message"]


async def test_a_ledger_that_is_down(site: Site, tmp_path: Path) -> None:
    async with service(site, tmp_path, dsn="postgresql://nobody@127.0.0.1:1/none") as asking:
        assert refused(await asking.get()) == (503, "STORE_DOWN")
        assert refused(await asking.settle("0" * 64)) == (503, "STORE_DOWN")


async def test_a_service_without_actions_says_so() -> None:
    ports = (FakePort(), FakeBuilds(), FakeOperators(), FakeRecords(), FakeOverviews())
    application = Application(*ports, posture=FakePosture(), authentication=authentication(ANN))
    async with httpx.AsyncClient(base_url="http://localhost", transport=httpx.ASGITransport(application)) as http:
        answer = await http.get("/v0/actions", headers={"authorization": f"Bearer {ANN_KEY}"})
    assert refused(answer) == (404, "UNKNOWN_PATH")


async def test_two_who_settle_at_once_settle_once(site: Site, tmp_path: Path) -> None:
    key = unknown(site)
    async with service(site, tmp_path) as asking:
        answers = await asyncio.gather(asking.settle(key), asking.settle(key, is_done=False))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert len(facts(site, key)) == 1
