"""Labels that wait: asked for again within bounds, each finished once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ofp_platform.cases import label_settlement
from ofp_platform.cases.label_settlement import SettlementReport, settle_labels
from ofp_platform.offline.labels.label_intake import LabelIntake
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.loop.case import CaseEvent
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform_tests.cases.conftest import FRAUD, Office


@pytest.fixture
def silent_pool(module_dsn: str) -> Iterator[Pool]:
    """It has one connection, and somebody holds it."""
    with open_pool(module_dsn, max_size=1, timeout_seconds=2) as opened, opened.connection():
        opened.timeout = 0.05
        yield opened


def wait_for_answers(office: Office, number: int) -> list[str]:
    """Cases whose label the store did not take."""
    cases = []
    for each in range(number):
        case = office.open(event=CaseEvent(event_class="card_payment", event_id=f"p-{each}"))
        office.labels.away = 1
        assert office.desk.assert_label(case, FRAUD, "click", "ann").problem is not None
        cases.append(case)
    return cases


def test_what_waits_is_finished_and_then_nothing_waits(office: Office) -> None:
    cases = wait_for_answers(office, 3)
    bad = office.open(event=CaseEvent(event_class="no_such_class", event_id="x"))
    office.labels.away = 1
    office.desk.assert_label(bad, FRAUD, "click", "ann")
    pauses: list[float] = []
    assert settle_labels(office.desk, 3, pauses.append) == SettlementReport(3, 1, 0)
    assert settle_labels(office.desk, 3, pauses.append) == SettlementReport(0, 0, 0)
    assert pauses == []
    assert [office.types(case)[-1] for case in [*cases, bad]] == ["LABEL_ACCEPTED"] * 3 + ["LABEL_REJECTED"]
    assert sorted(office.stored()) == [("p-0", 1), ("p-1", 1), ("p-2", 1)]


def test_a_store_that_comes_back_is_waited_for(office: Office) -> None:
    wait_for_answers(office, 2)
    office.labels.away = 2
    pauses: list[float] = []
    assert settle_labels(office.desk, 3, pauses.append) == SettlementReport(2, 0, 0)
    assert pauses == [1, 2]


def test_more_labels_than_are_read_at_once_are_all_finished_and_all_counted(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = wait_for_answers(office, 5)
    monkeypatch.setattr(label_settlement, "_PAGE", 2)
    office.labels.away = 10**6
    assert settle_labels(office.desk, 1, lambda _: None) == SettlementReport(0, 0, 5, "it was stopped")
    office.labels.away = 0
    assert settle_labels(office.desk, 1, lambda _: None) == SettlementReport(5, 0, 0)
    assert [office.types(case)[-1] for case in cases] == ["LABEL_ACCEPTED"] * 5
    assert office.desk.count_pending() == 0


def test_a_store_that_stays_away_ends_the_settlement(office: Office) -> None:
    cases = wait_for_answers(office, 2)
    office.labels.away = 10**6
    pauses: list[float] = []
    assert settle_labels(office.desk, 4, pauses.append) == SettlementReport(0, 0, 2, "it was stopped")
    assert pauses == [1, 2, 4]
    assert [office.types(case) for case in cases] == [["TRIGGERED", "LABEL_PENDING"]] * 2


def test_a_label_that_was_stored_before_its_answer_was_written_is_stored_once(office: Office) -> None:
    """The process ended between the two."""
    case = wait_for_answers(office, 1)[0]
    waiting = office.desk.pending(10)[0]
    LabelStore(office.pool, office.pins).append([waiting.content.assertion])
    assert settle_labels(office.desk, 1, lambda _: None) == SettlementReport(1, 0, 0)
    assert office.types(case) == ["TRIGGERED", "LABEL_PENDING", "LABEL_ACCEPTED"]
    assert office.stored() == [("p-0", 1)]


def test_a_label_store_that_is_down_is_no_refusal(office: Office, silent_pool: Pool) -> None:
    case = wait_for_answers(office, 1)[0]
    waiting = office.desk.pending(10)[0]
    away = LabelIntake(LabelStore(silent_pool, office.pins), {})
    refusal = away(waiting.content.assertion, "ann")  # a class that the pack has not is refused without asking
    assert refusal is not None
    away = LabelIntake(LabelStore(silent_pool, office.pins), shipped_pack("card_payments").events)
    with pytest.raises(BuildRefused, match="STORE_UNAVAILABLE"):
        away(waiting.content.assertion, "ann")
    assert office.types(case) == ["TRIGGERED", "LABEL_PENDING"]
