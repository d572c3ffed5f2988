"""A case from its trigger to its label: appended once, told apart where it differs, pending until the label store answers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from pydantic import ValidationError

from ofp_platform.cases.case_desk import CaseNotFound, CaseNotNow, EntryConflict
from ofp_platform.storage.case_entries import QUEUE_START
from ofp_platform.vocabulary.loop.case import (
    LABEL_VALUES,
    ActionRequested,
    CaseEvent,
    CaseTrigger,
    Closed,
    Note,
    Reopened,
    case_id,
)
from ofp_platform.vocabulary.loop.case_requests import LabelAsk
from ofp_platform.vocabulary.loop.case_standing import CaseState, LabelState
from ofp_platform_tests.cases.conftest import EVENT, FRAUD, Office

ACTION = ActionRequested(action_type="hold_account", target="account:acct-1", reason="while we look")


def test_the_same_signal_opens_one_case(office: Office) -> None:
    first = office.desk.trigger(EVENT, CaseTrigger.MANUAL_ASSERTION, "call-1", "a customer called", "ann")
    again = office.desk.trigger(EVENT, CaseTrigger.MANUAL_ASSERTION, "call-1", "a customer called", "bob")
    assert (first.is_new, again.is_new) == (True, False)
    assert first.entry == again.entry  # the first stands, with who said it
    assert first.case_id == case_id(office.pins, EVENT.event_class, EVENT.event_id)
    other = office.desk.trigger(EVENT, CaseTrigger.EXTERNAL_SIGNAL, "issuer-9", "reported lost", "bank")
    assert other.case_id == first.case_id
    assert (other.standing.priority, len(office.desk.case(first.case_id).timeline)) == (1, 2)


def test_another_content_under_the_same_reference_is_a_conflict(office: Office) -> None:
    case = office.open()
    first = office.note(case, "looked at")
    for _ in range(2):
        with pytest.raises(EntryConflict, match="CASE_ENTRY_CONFLICT: NOTE of n-1 is in the case with other content"):
            office.note(case, "looked away")
    with pytest.raises(EntryConflict):
        office.note(case, "did not look")
    found = office.desk.case(case)
    assert [entry for entry in found.timeline if isinstance(entry.content, Note)] == [first.entry]
    assert len(found.conflicts) == 2  # each other content once
    assert {one.first_digest for one in found.conflicts} == {found.conflicts[0].first_digest}
    assert len({one.other_digest for one in found.conflicts}) == 2
    assert office.desk.cases(CaseState.OPEN, 10).conflicts == 2
    assert office.desk.case(office.open("call-2", CaseEvent(event_class="card_payment", event_id="p-2"))).conflicts == ()


def test_a_label_is_accepted_when_the_store_has_it(office: Office) -> None:
    case = office.open()
    receipt = office.desk.assert_label(case, FRAUD, "click-1", "ann")
    assert (receipt.is_new, receipt.problem) == (True, None)
    assert [label.state for label in receipt.standing.labels] == [LabelState.ACCEPTED]
    assert office.types(case) == ["TRIGGERED", "LABEL_PENDING", "LABEL_ACCEPTED"]
    assert office.stored() == [("payment-1", 1)]
    assert office.labels.asked[0][1] == "ann"
    # the same click again, seconds later: one label, at the time of the first
    again = office.desk.assert_label(case, FRAUD, "click-1", "ann")
    assert (again.is_new, again.entry) == (False, receipt.entry)
    assert office.stored() == [("payment-1", 1)]
    with pytest.raises(EntryConflict):
        office.desk.assert_label(case, LabelAsk(label_type="fraud_disposition", word="legitimate"), "click-1", "ann")
    assert office.stored() == [("payment-1", 1)]


def test_a_label_stays_pending_while_the_store_is_away(office: Office) -> None:
    case = office.open()
    office.labels.away = 1
    receipt = office.desk.assert_label(case, FRAUD, "click-1", "ann")
    assert receipt.problem is not None
    assert "the label is pending (it was stopped); `ofp case settle` asks again" in receipt.problem
    assert [label.state for label in receipt.standing.labels] == [LabelState.PENDING]
    assert (office.types(case), office.stored()) == (["TRIGGERED", "LABEL_PENDING"], [])
    assert [label.actor for label in office.desk.pending(10)] == ["ann"]
    # asked again by whoever asserted it: finished
    assert office.desk.assert_label(case, FRAUD, "click-1", "ann").problem is None
    assert (office.desk.pending(10), office.stored()) == ([], [("payment-1", 1)])


def test_a_label_that_the_store_refuses_is_rejected_with_its_reason(office: Office) -> None:
    case = office.open(event=CaseEvent(event_class="no_such_class", event_id="x"))
    receipt = office.desk.assert_label(case, FRAUD, "click-1", "ann")
    assert [label.state for label in receipt.standing.labels] == [LabelState.REJECTED]
    answer = office.desk.case(case).timeline[-1].content
    assert answer.entry_type == "LABEL_REJECTED"
    assert "the pack has no events of class no_such_class" in answer.reason  # type: ignore[union-attr]
    assert (office.stored(), office.desk.pending(10)) == ([], [])


@pytest.mark.parametrize(
    ("label_type", "word"), [("fraud_disposition", "maybe"), ("chargeback_status", "fraud"), ("mood", "fraud")]
)
def test_a_word_that_is_not_in_the_table(office: Office, label_type: str, word: str) -> None:
    case = office.open()
    with pytest.raises(ValueError, match=r"there is no label type|has no value"):
        office.desk.assert_label(case, LabelAsk(label_type=label_type, word=word), "click-1", "ann")
    assert (office.types(case), office.labels.asked) == (["TRIGGERED"], [])


def test_every_word_of_the_table_can_be_said(office: Office) -> None:
    case = office.open()
    for label_type, words in LABEL_VALUES.items():
        for word in words:
            office.desk.assert_label(case, LabelAsk(label_type=label_type, word=word), f"{label_type}/{word}", "ann")
        assert sorted(value for _, value in office.stored(label_type)) == sorted(words.values())


def test_closing_twice_and_reopening_what_is_open_are_refused(office: Office) -> None:
    case = office.open()
    with pytest.raises(CaseNotNow, match="there is nothing to reopen"):
        office.desk.add(case, Reopened(reason="again"), "r-0", "ann")
    closed = office.desk.add(case, Closed(reason="done"), "c-1", "ann")
    assert closed.standing.state is CaseState.CLOSED
    assert office.desk.add(case, Closed(reason="done"), "c-1", "ann").is_new is False  # the same request again
    with pytest.raises(CaseNotNow, match="the case is closed already"):
        office.desk.add(case, Closed(reason="done"), "c-2", "bob")
    assert office.desk.add(case, Reopened(reason="new facts"), "r-1", "ann").standing.state is CaseState.OPEN
    assert office.types(case) == ["TRIGGERED", "CLOSED", "REOPENED"]
    office.desk.add(case, Closed(reason="done"), "c-2", "ann")
    # something more comes up: it is looked at again
    assert office.desk.trigger(EVENT, CaseTrigger.EXTERNAL_SIGNAL, "s-1", "a report", "bank").standing.state is CaseState.OPEN


def test_a_case_that_there_is_not(office: Office, new_office: Callable[..., Office]) -> None:
    elsewhere = new_office()
    case = elsewhere.open()
    for name in ("0" * 64, case):  # of another run: as if there were none
        with pytest.raises(CaseNotFound, match="`ofp case list` lists them"):
            office.note(name)
        with pytest.raises(CaseNotFound):
            office.desk.assert_label(name, FRAUD, "click-1", "ann")
        with pytest.raises(CaseNotFound):
            office.desk.case(name)
    assert office.desk.cases(CaseState.OPEN, 10).cases == ()
    assert elsewhere.types(case) == ["TRIGGERED"]


def test_an_action_that_is_asked_for_again_is_asked_for_once(office: Office) -> None:
    """Who acts reads it there: see `actions.case_requests`."""
    case = office.open()
    first, again = (office.desk.add(case, ACTION, "a-1", "ann") for _ in range(2))
    assert (first.is_new, again.is_new) == (True, False)
    assert office.types(case) == ["TRIGGERED", "ACTION_REQUESTED"]


def test_the_queue_is_by_priority_and_then_by_time(office: Office) -> None:
    def call(number: int, trigger: CaseTrigger) -> str:
        event = CaseEvent(event_class="card_payment", event_id=f"p-{number}")
        return office.desk.trigger(event, trigger, "s", "why", "ann").case_id

    calls = [call(number, trigger) for number, trigger in enumerate([*CaseTrigger][3:] * 3)]
    urgent, usual = calls[0::2], calls[1::2]
    closed = usual.pop(1)
    office.desk.add(closed, Closed(reason="done"), "c", "ann")
    office.note(urgent[2])  # says nothing about its place
    found, behind, pages = [], QUEUE_START, 0
    while True:
        page = office.desk.cases(CaseState.OPEN, 2, behind)
        found += [case.case_id for case in page.cases]
        pages += 1
        if page.behind is None:
            break
        behind = page.behind
    assert (found, pages) == ([*urgent, *usual], 3)
    assert [case.case_id for case in office.desk.cases(CaseState.CLOSED, 10).cases] == [closed]
    assert office.desk.find("p-0") == [urgent[0]]
    assert office.desk.find("nothing") == office.desk.find(urgent[0][:7]) == []
    assert office.desk.find(urgent[0][:8]) == office.desk.find(urgent[0]) == [urgent[0]]


def test_two_at_once_append_one_entry(office: Office) -> None:
    case = office.open()
    with ThreadPoolExecutor(4) as threads:
        receipts = list(threads.map(lambda number: office.note(case, actor=f"ann-{number}"), range(8)))
    assert sum(receipt.is_new for receipt in receipts) == 1
    assert len({receipt.entry.actor for receipt in receipts}) == 1
    numbers = [entry.sequence for entry in office.desk.case(case).timeline]
    assert numbers == [0, 1]


def test_notes_hold_no_card_numbers() -> None:
    with pytest.raises(ValidationError, match="raw identifier"):
        Note(text="card 4111 1111 1111 1111 was used")


def test_entries_are_never_changed(office: Office) -> None:
    office.note(office.open())
    for table in ("case_entry", "case_entry_conflict"):
        for statement in (f"UPDATE ofp.{table} SET actor = 'me'", f"DELETE FROM ofp.{table}", f"TRUNCATE ofp.{table}"):
            with office.pool.connection() as connection, pytest.raises(psycopg.errors.RestrictViolation, match="never changed"):
                connection.execute(statement)
