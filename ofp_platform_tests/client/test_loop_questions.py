"""Decisions, cases and actions through the clients: what is sent, what is believed, and what never leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ofp_platform.api.action_examples import action_example, action_list_example, action_settlement_ask_example
from ofp_platform.api.case_examples import (
    case_entry_ask_example,
    case_example,
    case_list_example,
    case_receipt_example,
    case_trigger_ask_example,
)
from ofp_platform.api.examples import decision_example
from ofp_platform.client import AnswerNotTrusted, AsyncOfpClient, OfpClient
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, unavailable
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.action import ActionState
from ofp_platform.vocabulary.loop.case_requests import CaseEntryAsk, CaseTriggerAsk, LabelAsk
from ofp_platform.vocabulary.loop.case_standing import CaseState
from ofp_platform_tests.client.test_client import Asked, Service, wire

DECISION, CASE, ACTION = decision_example(), case_example(), action_example()
PINS = ContextPins.model_validate(DECISION["context_pins"])
CASE_ID, KEY = CASE["case_id"], ACTION["intent"]["idempotency_key"]
ENVELOPE = {"event_type": DECISION["event_type"], "event_id": DECISION["event_id"], **PINS.wire()}
LABEL = LabelAsk(label_type="fraud_disposition", word="fraud")
TRIGGER = CaseTriggerAsk.model_validate_json(json.dumps(case_trigger_ask_example()))
ENTRY = CaseEntryAsk.model_validate_json(json.dumps(case_entry_ask_example()))


@pytest.fixture(params=[OfpClient, AsyncOfpClient])
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(request.param)


@pytest.mark.parametrize(
    ("method", "arguments", "named", "target", "example"),
    [
        ("cases", (), {}, "/v0/cases", case_list_example),
        ("cases", (), {"state": CaseState.CLOSED, "limit": 2}, "/v0/cases?state=CLOSED&limit=2", case_list_example),
        ("case", (CASE_ID,), {}, f"/v0/cases/{CASE_ID}", case_example),
        ("actions", (), {}, "/v0/actions", action_list_example),
        (
            "actions",
            (),
            {"state": ActionState.UNKNOWN, "cursor": "41"},
            "/v0/actions?state=UNKNOWN&cursor=41",
            action_list_example,
        ),
        ("action", (KEY,), {}, f"/v0/actions/{KEY}", action_example),
    ],
)
def test_what_is_read(
    asked: Asked, method: str, arguments: Any, named: Any, target: str, example: Callable[[], dict[str, Any]]
) -> None:
    service = Service((200, canonical_bytes(example())))
    answer = asked(service, method, *arguments, **named)
    (request,) = service.requests
    assert (request.method, request.url.raw_path.decode()) == ("GET", target)
    shown = answer.wire() if hasattr(answer, "wire") else answer.model_dump(mode="json")
    assert shown == example()


def test_what_is_written(asked: Asked) -> None:
    receipt, shown = canonical_bytes(case_receipt_example()), canonical_bytes(ACTION)
    for method, arguments, named, path, body, answer in (
        ("trigger_case", (TRIGGER,), {}, "/v0/cases", case_trigger_ask_example(), receipt),
        ("add_to_case", (CASE_ID, ENTRY), {}, f"/v0/cases/{CASE_ID}/entries", None, receipt),
        ("assert_label", (PINS, CASE_ID, LABEL), {"source_ref": "r-1"}, f"/v0/cases/{CASE_ID}/entries", None, receipt),
        (
            "settle_action",
            (PINS, KEY),
            {"is_done": True, "reason": "the receiver has it in its books"},
            f"/v0/actions/{KEY}/settlement",
            action_settlement_ask_example(),
            shown,
        ),
        ("decide", (ENVELOPE,), {}, "/v0/decide", ENVELOPE, canonical_bytes(DECISION)),
    ):
        service = Service((200, answer))
        asked(service, method, *arguments, **named)
        (request,) = service.requests
        assert (request.method, request.url.path) == ("POST", path)
        sent = json.loads(request.content)
        if body is not None:
            assert sent == body
        else:
            assert CaseEntryAsk.model_validate_json(request.content).context_pins == PINS
            assert sent["content"]["word"] == "fraud"


def test_a_decision_that_is_not_there_yet_is_asked_for_again(asked: Asked) -> None:
    pending = unavailable(Reason.DECISION_PENDING, "not decided on yet")
    service = Service(wire(pending, 503), (200, canonical_bytes(DECISION)))
    assert asked(service, "decide", ENVELOPE).decision_id == DECISION["decision_id"]
    assert service.requests[0].content == service.requests[1].content


def test_a_refusal_comes_as_it_is(asked: Asked) -> None:
    service = Service(wire(invalid(Reason.ACTION_NOT_NOW, "it is over"), 409))
    with pytest.raises(ContractError, match="it is over") as refused:
        asked(service, "settle_action", PINS, KEY, is_done=False, reason="nothing in the books")
    assert refused.value.reason is Reason.ACTION_NOT_NOW
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("method", "arguments", "named", "answer"),
    [
        ("decide", ({**ENVELOPE, "event_id": "another"},), {}, DECISION),
        ("decide", (ENVELOPE,), {}, CASE),
        ("case", ("0" * 64,), {}, CASE),
        ("assert_label", (PINS, "0" * 64, LABEL), {"source_ref": "r-1"}, case_receipt_example()),
        ("add_to_case", ("0" * 64, ENTRY), {}, case_receipt_example()),
        ("action", ("0" * 64,), {}, ACTION),
        ("settle_action", (PINS, "0" * 64), {"is_done": True, "reason": "x"}, ACTION),
        ("actions", (), {}, case_list_example()),
        ("cases", (), {}, action_list_example()),
    ],
)
def test_what_is_of_something_else_is_not_believed(
    asked: Asked, method: str, arguments: Any, named: Any, answer: dict[str, Any]
) -> None:
    with pytest.raises(AnswerNotTrusted):
        asked(Service((200, canonical_bytes(answer))), method, *arguments, **named)


@pytest.mark.parametrize(
    ("method", "arguments", "named", "reason"),
    [
        ("decide", ({"payload": {1, 2}},), {}, Reason.INVALID_FIELD),
        ("assert_label", (PINS, CASE_ID, LABEL), {"source_ref": ""}, Reason.INVALID_FIELD),
        ("assert_label", (PINS, CASE_ID, LABEL), {"source_ref": "4111111111111111"}, Reason.RAW_IDENTIFIER),
        ("settle_action", (PINS, KEY), {"is_done": True, "reason": ""}, Reason.INVALID_FIELD),
        ("settle_action", (PINS, KEY), {"is_done": True, "reason": "card 4111111111111111"}, Reason.RAW_IDENTIFIER),
    ],
)
def test_what_is_wrong_never_leaves(asked: Asked, method: str, arguments: Any, named: Any, reason: Reason) -> None:
    service = Service()
    with pytest.raises(ContractError) as refused:
        asked(service, method, *arguments, **named)
    assert refused.value.reason is reason
    assert service.requests == []
