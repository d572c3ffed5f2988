"""State, priority and labels of a case against the rules read aloud, entry by entry backwards."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.vocabulary.loop.case import (
    ActionEvidence,
    AnomalyEvidence,
    CaseContent,
    CaseEntry,
    CaseTrigger,
    Closed,
    DecisionEvidence,
    LabelAccepted,
    LabelPending,
    LabelRejected,
    Note,
    Reopened,
    StatedEvidence,
    Triggered,
)
from ofp_platform.vocabulary.loop.case_standing import CaseState, not_now, standing_of
from ofp_platform.vocabulary.loop.decision_record import Outcome
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.times import format_time

START = 1_700_000_000_000_000


def label(number: int) -> LabelPending:
    assertion = LabelAssertion(
        event_class="payment",
        event_id=f"e-{number}",
        label_type="account_takeover",
        value=1,
        effective_time_utc="2026-01-01T00:00:00Z",
        observed_time_utc="2026-01-01T00:00:00Z",
        source="case_investigation",
    )
    return LabelPending(word="yes", assertion_id=assertion.assertion_id, assertion=assertion)


def decided(outcome: Outcome) -> Triggered:
    evidence = DecisionEvidence(
        decision_id="0" * 64,
        record_digest="1" * 64,
        snapshot_hash="2" * 64,
        rule_digest="3" * 64,
        outcome=outcome,
        score=1,
        stream_name="s",
        position="0:1",
    )
    return Triggered(trigger=CaseTrigger.DECISION_ESCALATION, evidence=evidence)


STATED = StatedEvidence(reason="x")
TRIGGERS = {
    1: decided(Outcome.REVIEW),
    2: decided(Outcome.DECLINE),
    3: Triggered(trigger=CaseTrigger.EXTERNAL_SIGNAL, evidence=STATED),
    4: Triggered(trigger=CaseTrigger.MANUAL_ASSERTION, evidence=STATED),
    5: Triggered(trigger=CaseTrigger.ANOMALY, evidence=AnomalyEvidence(stream_name="s", position="0:2", first_position="0:1")),
    6: Triggered(trigger=CaseTrigger.ACTION_FAILURE, evidence=ActionEvidence(outcome_digest="4" * 64)),
}
URGENCY = {1: 2, 2: 3, 3: 2, 4: 3, 5: 4, 6: 2}
LABELS = [label(number) for number in range(2)]
OTHERS: list[CaseContent] = [
    Note(text="x"),
    Closed(reason="x"),
    Closed(reason="x"),
    Reopened(reason="x"),
    *LABELS,
    *(LabelAccepted(assertion_id=one.assertion_id) for one in LABELS),
    *(LabelRejected(assertion_id=one.assertion_id, reason="x") for one in LABELS),
]
CONTENTS = st.sampled_from([*TRIGGERS.values(), *OTHERS])


def timeline(contents: Sequence[CaseContent]) -> list[CaseEntry]:
    return [
        CaseEntry(sequence=number, source_ref=f"s-{number}", at_utc=format_time(START + number), actor="a", content=content)
        for number, content in enumerate(contents)
    ]


def naive_label(contents: Sequence[CaseContent], one: LabelPending) -> str | None:
    """Its state: the first answer behind the first time that it was asserted."""
    if one not in contents:
        return None
    behind = contents[list(contents).index(one) :]
    answers = [
        answer
        for answer in behind
        if isinstance(answer, LabelAccepted | LabelRejected) and answer.assertion_id == one.assertion_id
    ]
    if not answers:
        return "PENDING"
    return "ACCEPTED" if isinstance(answers[0], LabelAccepted) else "REJECTED"


@given(st.sampled_from(list(TRIGGERS.values())), st.lists(CONTENTS, max_size=12))
def test_where_a_case_stands(first: Triggered, rest: list[CaseContent]) -> None:
    contents: list[CaseContent] = [first, *rest]
    standing = standing_of(timeline(contents))
    decisive = [content for content in contents if isinstance(content, Triggered | Closed | Reopened)]
    assert (standing.state is CaseState.CLOSED) == isinstance(decisive[-1], Closed)
    assert standing.last_at_utc == format_time(START + len(contents) - 1)

    # since when: the first opening behind the last closing that was followed by one
    opened = 0
    for number, content in enumerate(contents):
        before = [one for one in contents[:number] if isinstance(one, Triggered | Closed | Reopened)]
        if isinstance(content, Triggered | Reopened) and before and isinstance(before[-1], Closed):
            opened = number
    assert standing.opened_at_utc == format_time(START + opened)

    numbers = [number for number, one in TRIGGERS.items() if one in contents]
    kinds = {TRIGGERS[number].trigger for number in numbers}
    most = min(URGENCY[number] for number in numbers)
    assert standing.priority == (max(1, most - 1) if len(kinds) > 1 else most)
    assert set(standing.triggers) == kinds
    states = {one.assertion_id: one.state for one in standing.labels}
    assert states == {one.assertion_id: state for one in LABELS if (state := naive_label(contents, one)) is not None}


@pytest.mark.parametrize("contents", [[], [Note(text="x")], [Closed(reason="x"), TRIGGERS[1]]])
def test_a_timeline_begins_with_a_trigger(contents: list[CaseContent]) -> None:
    with pytest.raises(ValueError, match="begins with a trigger"):
        standing_of(timeline(contents))


@given(st.lists(CONTENTS, max_size=8), CONTENTS)
def test_what_cannot_follow(rest: list[CaseContent], following: CaseContent) -> None:
    standing = standing_of(timeline([TRIGGERS[1], *rest]))
    refused = not_now(standing, following) is not None
    match following:
        case Closed():
            assert refused == (standing.state is CaseState.CLOSED)
        case Reopened():
            assert refused == (standing.state is CaseState.OPEN)
        case LabelAccepted(assertion_id=name) | LabelRejected(assertion_id=name):
            assert refused == (name not in {one.assertion_id for one in standing.labels})
        case _:
            assert not refused
