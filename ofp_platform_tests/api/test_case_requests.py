"""Cases over HTTP: by whom, about what, once; and what is refused with which reason."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from ofp_platform.api.app import Application
from ofp_platform.api.case_requests import CaseRequests
from ofp_platform.api.contract_files import contract_schemas
from ofp_platform.offline.labels import label_intake
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.embedded import as_role
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.storage.roles import Job, default_role
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform_tests.api.fake_port import FakeBuilds, FakeOperators, FakeOverviews, FakePort, FakePosture, FakeRecords
from ofp_platform_tests.api.keys import BEARER, authentication, principal
from ofp_platform_tests.cases.conftest import new_run

ANN_KEY, ANN = principal("ann", ["investigate"])
ELSEWHERE_KEY, ELSEWHERE = principal("elsewhere", ["investigate"], [{"run_id": "another"}])
OTHERS_KEY, OTHERS = principal("others", ["features:read", "snapshots:read", "events:write", "operate"])
LABEL = {"entry_type": "LABEL_PENDING", "label_type": "fraud_disposition", "word": "fraud"}


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


class Asking:
    """A service, and whoever asks it."""

    def __init__(self, http: httpx.AsyncClient, pins: ContextPins) -> None:
        self.http = http
        self.pins = pins

    async def get(self, path: str, key: str = ANN_KEY) -> httpx.Response:
        return await self.http.get(path, headers={"authorization": f"Bearer {key}"})

    async def post(self, path: str, body: dict[str, Any], key: str = ANN_KEY) -> httpx.Response:
        return await self.http.post(path, headers={"authorization": f"Bearer {key}"}, json=body)

    async def trigger(self, event_id: str = "p-1", key: str = ANN_KEY, **more: Any) -> httpx.Response:
        body = {
            "context_pins": self.pins.wire(),
            "event_class": "card_payment",
            "event_id": event_id,
            "trigger": "MANUAL_ASSERTION",
            "source_ref": f"call/{event_id}",
            "reason": "a customer called",
        }
        return await self.post("/v0/cases", body | more, key)

    async def add(
        self, case_id: str, content: dict[str, Any], ref: str = "r-1", key: str = ANN_KEY, **more: Any
    ) -> httpx.Response:
        body = {"context_pins": self.pins.wire(), "source_ref": ref, "content": content}
        return await self.post(f"/v0/cases/{case_id}/entries", body | more, key)

    async def opened(self, event_id: str = "p-1") -> str:
        answer = await self.trigger(event_id)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["case_id"])


@asynccontextmanager
async def service(dsn: str) -> AsyncIterator[Asking]:
    """By the database role of the service."""
    pins = new_run()
    cases = CaseRequests(as_role(dsn, default_role(Job.SERVING)), pins, lambda: shipped_pack("card_payments"))
    caller = authentication(ANN, ELSEWHERE, OTHERS, pins=pins)
    ports = (FakePort(), FakeBuilds(), FakeOperators(), FakeRecords(), FakeOverviews())
    application = Application(*ports, posture=FakePosture(), authentication=caller, cases=cases)
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(base_url="http://localhost", transport=transport) as http:
        yield Asking(http, pins)
    await cases.close()


def valid(name: str, answer: httpx.Response) -> dict[str, Any]:
    """The body, held against its contract."""
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    Draft202012Validator(contract_schemas()[f"{name}_v0.schema.json"]).validate(body)
    return body


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


async def test_from_a_call_to_a_label(module_dsn: str, pool: Pool) -> None:
    async with service(module_dsn) as asking:
        receipt = valid("case_receipt", await asking.trigger())
        case_id = receipt["case_id"]
        assert (receipt["is_new"], receipt["entry"]["actor"]) == (True, "ann")
        assert valid("case_receipt", await asking.trigger())["is_new"] is False
        valid("case_receipt", await asking.add(case_id, {"entry_type": "NOTE", "text": "called back"}))
        action = {"entry_type": "ACTION_REQUESTED", "action_type": "hold", "target": "account:a", "reason": "x"}
        valid("case_receipt", await asking.add(case_id, action, "r-2"))
        labelled = valid("case_receipt", await asking.add(case_id, LABEL, "r-3"))
        assert [label["state"] for label in labelled["standing"]["labels"]] == ["ACCEPTED"]
        assert valid("case_receipt", await asking.add(case_id, LABEL, "r-3"))["is_new"] is False
        closed = valid("case_receipt", await asking.add(case_id, {"entry_type": "CLOSED", "reason": "done"}, "r-4"))
        assert closed["standing"]["state"] == "CLOSED"
        case = valid("case", await asking.get(f"/v0/cases/{case_id}"))
        types = [entry["content"]["entry_type"] for entry in case["timeline"]]
        assert types == ["TRIGGERED", "NOTE", "ACTION_REQUESTED", "LABEL_PENDING", "LABEL_ACCEPTED", "CLOSED"]
        assert LabelStore(pool, asking.pins).assertions("fraud_disposition")["value"].to_pylist() == [1]


async def test_the_queue_by_pages(module_dsn: str) -> None:
    async with service(module_dsn) as asking:
        ids = [await asking.opened(f"p-{number}") for number in range(5)]
        listed: list[str] = []
        cursor = ""
        while True:
            page = valid("case_list", await asking.get(f"/v0/cases?limit=2{cursor}"))
            listed += [case["case_id"] for case in page["cases"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert listed == ids
        assert valid("case_list", await asking.get("/v0/cases?state=CLOSED"))["cases"] == []
        for query in (
            "state=LOST",
            "limit=0",
            "limit=201",
            "limit=x",
            "stat=CLOSED",
            "cursor=1~2",
            "cursor=%00",
            f"cursor=1~{'9' * 30}~{'0' * 64}",
        ):
            assert refused(await asking.get(f"/v0/cases?{query}")) == (400, "INVALID_FIELD"), query


async def test_who_may(module_dsn: str) -> None:
    async with service(module_dsn) as asking:
        case_id = await asking.opened()
        note = {"entry_type": "NOTE", "text": "x"}
        for answer in (
            await asking.get("/v0/cases", OTHERS_KEY),
            await asking.get(f"/v0/cases/{case_id}", OTHERS_KEY),
            await asking.trigger("p-9", OTHERS_KEY),
            await asking.add(case_id, note, key=OTHERS_KEY),
        ):
            assert refused(answer) == (403, "FORBIDDEN")
        # whoever may not read the run learns nothing of it
        assert refused(await asking.get("/v0/cases", ELSEWHERE_KEY)) == (404, "UNKNOWN_RUN")
        assert refused(await asking.get(f"/v0/cases/{case_id}", ELSEWHERE_KEY)) == (404, "UNKNOWN_CASE")
        assert refused(await asking.get(f"/v0/cases/{'0' * 64}", ELSEWHERE_KEY)) == (404, "UNKNOWN_CASE")
        assert refused(await asking.trigger("p-9", ELSEWHERE_KEY)) == (404, "UNKNOWN_RUN")
        assert refused(await asking.add(case_id, note, key=ELSEWHERE_KEY)) == (404, "UNKNOWN_RUN")
        assert refused(await asking.get("/v0/cases", "nobody")) == (401, "UNAUTHENTICATED")
        assert len(valid("case", await asking.get(f"/v0/cases/{case_id}"))["timeline"]) == 1


async def test_what_is_refused(module_dsn: str) -> None:
    async with service(module_dsn) as asking:
        case_id = await asking.opened()
        closed = {"entry_type": "CLOSED", "reason": "done"}
        note = {"entry_type": "NOTE", "text": "x"}
        other_run = new_run().wire()
        for answer, expected in (
            (await asking.get(f"/v0/cases/{'0' * 64}"), (404, "UNKNOWN_CASE")),
            (await asking.get("/v0/cases/abc"), (400, "INVALID_FIELD")),
            (await asking.add("0" * 64, note), (404, "UNKNOWN_CASE")),
            (await asking.add("0" * 64, LABEL), (404, "UNKNOWN_CASE")),
            (await asking.add(case_id, LABEL, context_pins=other_run), (404, "UNKNOWN_RUN")),
            (await asking.trigger("p-2", context_pins=other_run), (404, "UNKNOWN_RUN")),
            (await asking.trigger("p-2", event_class="nothing"), (400, "INVALID_FIELD")),
            (await asking.trigger("p-2", trigger="DECISION_ESCALATION"), (400, "INVALID_FIELD")),
            (await asking.trigger("p-2", reason="card 4111111111111111"), (400, "RAW_IDENTIFIER")),
            (await asking.add(case_id, {"entry_type": "LABEL_ACCEPTED", "assertion_id": "0" * 64}), (400, "INVALID_FIELD")),
            (await asking.add(case_id, {"entry_type": "TRIGGERED"}), (400, "INVALID_FIELD")),
            (await asking.add(case_id, {"entry_type": "NOTE"}), (400, "MISSING_FIELD")),
            (await asking.add(case_id, {**LABEL, "word": "maybe"}), (400, "INVALID_FIELD")),
            (await asking.add(case_id, {**LABEL, "label_type": "mood"}), (400, "INVALID_FIELD")),
            (await asking.trigger("p-2", reason=" "), (400, "INVALID_FIELD")),
            (await asking.trigger("p-2", reason="a\0b"), (400, "INVALID_FIELD")),
            (await asking.add(case_id, {**note, "text": "a\0b"}), (400, "INVALID_FIELD")),
            (await asking.add(case_id, {**note, "text": "\n"}), (400, "INVALID_FIELD")),
            (await asking.add(case_id, {**closed, "reason": " "}), (400, "INVALID_FIELD")),
            (await asking.add(case_id, closed, "c-1"), (200, None)),
            (await asking.add(case_id, closed, "c-2"), (409, "CASE_NOT_NOW")),
            (await asking.add(case_id, note, "n-1"), (200, None)),
            (await asking.add(case_id, {**note, "text": "y"}, "n-1"), (409, "CASE_ENTRY_CONFLICT")),
        ):
            assert (answer.status_code, answer.json().get("reason")) == expected, answer.text
        case = valid("case", await asking.get(f"/v0/cases/{case_id}"))
        Draft202012Validator(contract_schemas()["case_entry_conflict_v0.schema.json"]).validate(case["conflicts"][0])
        assert valid("case_list", await asking.get("/v0/cases"))["conflicts"] == 1
        methods = await asking.http.delete("/v0/cases", headers=BEARER)
        assert (methods.status_code, methods.headers["allow"]) == (405, "GET, HEAD, POST")
        methods = await asking.get(f"/v0/cases/{case_id}/entries")
        assert (methods.status_code, methods.headers["allow"]) == (405, "POST")


async def test_a_label_store_that_is_down_leaves_the_label_pending(module_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(module_dsn) as asking:
        case_id = await asking.opened()
        with monkeypatch.context() as patch:

            def away(*_: object, **__: object) -> None:
                raise BuildRefused(BuildReason.STORE_UNAVAILABLE, "it was stopped")

            patch.setattr(label_intake.LabelStore, "append", away)
            waiting = valid("case_receipt", await asking.add(case_id, LABEL))
        assert "the label store does not answer" in waiting["problem"]
        assert [label["state"] for label in waiting["standing"]["labels"]] == ["PENDING"]
        done = valid("case_receipt", await asking.add(case_id, LABEL))  # sent again
        assert (done["is_new"], "problem" in done) == (False, False)
        assert [label["state"] for label in done["standing"]["labels"]] == ["ACCEPTED"]


async def test_a_store_of_cases_that_is_down(module_dsn: str) -> None:
    pins = new_run()
    cases = CaseRequests("postgresql://nobody@127.0.0.1:1/none", pins, lambda: shipped_pack("card_payments"))
    ports = (FakePort(), FakeBuilds(), FakeOperators(), FakeRecords(), FakeOverviews())
    application = Application(*ports, posture=FakePosture(), authentication=authentication(ANN, pins=pins), cases=cases)
    async with httpx.AsyncClient(base_url="http://localhost", transport=httpx.ASGITransport(application)) as http:
        asking = Asking(http, pins)
        assert refused(await asking.get("/v0/cases")) == (503, "STORE_DOWN")
        assert refused(await asking.trigger()) == (503, "STORE_DOWN")
    await cases.close()


async def test_a_service_without_cases_says_so() -> None:
    ports = (FakePort(), FakeBuilds(), FakeOperators(), FakeRecords(), FakeOverviews())
    application = Application(*ports, posture=FakePosture(), authentication=authentication(ANN))
    async with httpx.AsyncClient(base_url="http://localhost", transport=httpx.ASGITransport(application)) as http:
        answer = await http.get("/v0/cases", headers={"authorization": f"Bearer {ANN_KEY}"})
    assert refused(answer) == (404, "UNKNOWN_PATH")
