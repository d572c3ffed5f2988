"""decide: rules, model and mask, each seen to matter; many at once as one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.decisions.deciding import Evidence, ReadyBundle, Verdict, decide, decide_many
from ofp_platform.scoring.inputs import InputUnfit
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform_tests.decisions.conftest import ACCOUNT, CARD, DEVICE, MODEL, make_bundle

READY = ReadyBundle(make_bundle("0" * 64), MODEL)
CALM = {
    ("card_activity", "v1", "count_1h"): 1,
    ("card_activity", "v1", "declined_ratio_1h"): "0.000000",
    ("device_activity", "v1", "distinct_cards_24h"): 1,
    ("account_activity", "v1", "count_24h"): 2,
}


def verdict(features: dict[tuple[str, str, str], Any], amount: Any = 100, mode: Mode = Mode.NORMAL, **more: Any) -> Verdict:
    return decide(more.get("ready", READY), mode, Evidence(features, {"amount_minor": amount}, 0), more.get("closed", "review"))


def test_a_calm_card_is_approved_with_its_score() -> None:
    assert verdict(CALM) == Verdict(Outcome.APPROVE, "0.001000", ())


def test_the_model_reviews_and_declines_from_its_thresholds_and_says_which_inputs_spoke_for_it() -> None:
    busy = {**CALM, ("card_activity", "v1", "count_1h"): 2, ("card_activity", "v1", "declined_ratio_1h"): "0.500000"}
    assert verdict(busy, amount=0) == Verdict(
        Outcome.REVIEW, "2.500000", ("CARD_ACTIVITY_V1__DECLINED_RATIO_1H", "CARD_ACTIVITY_V1__COUNT_1H")
    )
    busier = {**busy, ("card_activity", "v1", "count_1h"): 4}
    assert verdict(busier, amount=0).outcome is Outcome.DECLINE
    # 1.499999 is not reviewed, 1.500000 is
    edge = {**CALM, ("card_activity", "v1", "declined_ratio_1h"): "0.499999"}
    assert verdict(edge, amount=0) == Verdict(Outcome.APPROVE, "1.499997", ())
    assert verdict({**edge, ("card_activity", "v1", "declined_ratio_1h"): "0.500000"}, amount=0).outcome is Outcome.REVIEW


def test_a_rule_is_no_milder_than_it_says_and_its_code_comes_first() -> None:
    declined = verdict({**CALM, ("account_activity", "v1", "count_24h"): 31}, amount=20_000)
    assert declined == Verdict(Outcome.DECLINE, "0.200000", ("BIG_AMOUNT", "BUSY_ACCOUNT"))
    assert verdict({**CALM, ("account_activity", "v1", "count_24h"): 30}).reason_codes == ()


def test_no_more_than_four_reasons_are_told() -> None:
    everything = {
        ("card_activity", "v1", "count_1h"): 9,
        ("card_activity", "v1", "declined_ratio_1h"): "1.000000",
        ("device_activity", "v1", "distinct_cards_24h"): 9,
        ("account_activity", "v1", "count_24h"): 99,
    }
    codes = verdict(everything, amount=30_000).reason_codes
    assert codes[:3] == ("BIG_AMOUNT", "BUSY_ACCOUNT", "CARD_ACTIVITY_V1__COUNT_1H")
    assert len(codes) == 4


def test_the_mask_of_each_mode() -> None:
    busy = {**CALM, ("card_activity", "v1", "count_1h"): 50}
    assert verdict(busy, mode=Mode.NORMAL).outcome is Outcome.DECLINE
    assert verdict(busy, mode=Mode.RULES_ONLY) == Verdict(Outcome.APPROVE, None, ())
    assert verdict(busy, amount=20_000, mode=Mode.RULES_ONLY).outcome is Outcome.DECLINE
    assert verdict(CALM, mode=Mode.HOLD) == Verdict(Outcome.REVIEW, None, ("POSTURE_HOLD",))
    assert verdict(CALM, mode=Mode.FAIL_CLOSED).outcome is Outcome.REVIEW
    closed = verdict(CALM, mode=Mode.FAIL_CLOSED, closed="decline", ready=None)
    assert closed == Verdict(Outcome.DECLINE, None, ("POSTURE_FAIL_CLOSED",))
    assert READY.groups_under(Mode.NORMAL) == (ACCOUNT, CARD, DEVICE)
    assert READY.groups_under(Mode.REDUCED) == READY.groups_under(Mode.RULES_ONLY) == (ACCOUNT, CARD)
    assert READY.groups_under(Mode.HOLD) == ()


def test_a_value_that_the_bundle_cannot_read_is_told() -> None:
    with pytest.raises(InputUnfit, match=r"payload\.amount_minor is no number"):
        verdict(CALM, amount="much")
    with pytest.raises(InputUnfit, match="card_activity_v1__declined_ratio_1h has 7 digits"):
        verdict({**CALM, ("card_activity", "v1", "declined_ratio_1h"): "0.1234567"})


AMOUNTS = st.integers(0, 30_000) | st.sampled_from(["much", None])


@given(
    events=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60), AMOUNTS), max_size=6),
    mode=st.sampled_from(list(Mode)),
)
def test_many_are_decided_as_one_by_one(events: list[tuple[int, int, Any]], mode: Mode) -> None:
    evidence = [
        Evidence(
            {**CALM, ("card_activity", "v1", "count_1h"): count, ("account_activity", "v1", "count_24h"): total},
            {"amount_minor": amount},
            0,
        )
        for count, total, amount in events
    ]

    def alone(one: Evidence) -> Verdict | str:
        try:
            return decide(READY, mode, one, "decline")
        except InputUnfit as unfit:
            return str(unfit)

    together = decide_many(READY, mode, evidence, "decline")
    assert [str(one) if isinstance(one, InputUnfit) else one for one in together] == [alone(one) for one in evidence]
