"""The evaluator against a naive oracle, which replays the whole history of looks at each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.posture.evaluator import NOTHING_BEFORE, Signals, asked_mode, evaluate
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.posture import MASKS, NOTHING_SAID, Mode, PostureChange, PostureInForce, PosturePolicy
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time

PINS = ContextPins(scenario_id="p", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
START = 1_800_000_000_000_000
SECOND = MICROS_PER_SECOND
MODES = list(Mode)
POLICY = PosturePolicy.model_validate(
    {
        "thresholds": [
            {"signal": "lag", "at_least": 10, "mode": "REDUCED"},
            {"signal": "lag", "at_least": 100, "mode": "HOLD"},
            {"signal": "posture", "at_least": 2, "mode": "FAIL_CLOSED"},
        ],
        "quiet_seconds": 5,
    }
)
GOOD, BAD, WORSE = {"lag": 0, "posture": 0}, {"lag": 10, "posture": 0}, {"lag": 100, "posture": 0}


def change_at(mode: Mode, at: int, *, is_held: bool = False, signals: Signals = GOOD) -> PostureChange:
    return PostureChange(
        context_pins=PINS,
        sequence=0,
        mode=mode,
        held=is_held,
        reasons=("because",),
        signals=dict(signals),
        bad_since_utc=format_time(at),
        at_utc=format_time(at),
        actor="test",
        policy_rev="1." + "0" * 64,
    )


@dataclass
class Keeper:
    """Takes each change that is proposed, as the keeper of the plane does, in memory."""

    policy: PosturePolicy = POLICY
    last: PostureChange | None = None
    changes: int = 0
    modes: list[Mode] = field(default_factory=list)

    def look(self, signals: Signals, at: int, watched_since: int = 0) -> Mode:
        proposed = evaluate(signals, self.policy, self.last, at, watched_since)
        assert proposed == evaluate(dict(signals), self.policy, self.last, at, watched_since)
        if proposed is not None:
            latest = at if self.last is None else max(at, _micros(self.last.at_utc))
            self.last = PostureChange(
                **{
                    **dict(change_at(proposed.mode, latest, signals=proposed.signals)),
                    "sequence": self.changes,
                    "reasons": proposed.reasons,
                    "bad_since_utc": format_time(proposed.bad_since),
                }
            )
            self.changes += 1
        assert self.last is not None
        self.modes.append(self.last.mode)
        return self.last.mode


def _micros(text: str) -> int:
    from ofp_platform.vocabulary.times import parse_time

    return parse_time(text)


def asked_depth(signals: Signals, policy: PosturePolicy) -> int:
    """Naive: every threshold and every name, one by one."""
    depth = 0
    for threshold in policy.thresholds:
        value = signals.get(threshold.signal)
        if value is None:
            depth = max(depth, MODES.index(policy.absent))
        elif value >= threshold.at_least:
            depth = max(depth, MODES.index(threshold.mode))
    return depth


def replay(looks: list[tuple[Signals, int]], policy: PosturePolicy) -> list[Mode]:
    """The mode behind each look, from nothing but all looks so far."""
    depth, entered = len(MODES) - 1, 0
    modes = [MODES[depth]]
    for index in range(1, len(looks)):
        signals, at = looks[index]
        asked = asked_depth(signals, policy)
        if asked > depth:
            depth, entered = asked, index
        elif asked < depth:
            first = index  # of the looks in this mode that saw no reason for it, without one between that did
            while first > entered and asked_depth(looks[first - 1][0], policy) < depth:
                first -= 1
            quiet_from = max(moment for _, moment in looks[: first + 1])
            if first < index and at - quiet_from >= policy.quiet_seconds * SECOND:
                depth, entered = depth - 1, index
        modes.append(MODES[depth])
    return modes


signal_values = st.one_of(st.none(), st.integers(0, 12), st.sampled_from([99, 100, 101]))
looks_at_signals = st.fixed_dictionaries({}, optional={"lag": signal_values, "posture": st.one_of(st.none(), st.integers(0, 3))})
policies = st.builds(
    lambda quiet, absent: POLICY.model_copy(update={"quiet_seconds": quiet, "absent": absent}),
    st.integers(0, 6),
    st.sampled_from(MODES),
)
steps = st.lists(st.tuples(looks_at_signals, st.integers(-2 * SECOND, 8 * SECOND)), min_size=1, max_size=40)


@given(steps, policies)
def test_the_evaluator_is_the_replay_of_the_whole_history(
    history: list[tuple[dict[str, int | None], int]], policy: PosturePolicy
) -> None:
    keeper, at, looks = Keeper(policy), START, []
    for signals, pause in history:
        at += pause
        looks.append((signals, at))
        before = keeper.last
        mode = keeper.look(signals, at)
        asked = asked_mode(signals, policy).mode
        if before is None:
            assert mode is Mode.FAIL_CLOSED
            continue
        assert mode.depth >= asked.depth  # down at once
        assert mode.depth >= before.mode.depth - 1  # never two steps up
        assert mode.depth >= before.mode.depth or asked.depth < before.mode.depth  # never up while bad
        assert mode.depth >= before.mode.depth or at > _micros(before.bad_since_utc) or policy.quiet_seconds == 0
    assert keeper.modes == replay(looks, policy)


@given(looks_at_signals, st.sampled_from(MODES), st.integers(-SECOND, 10**6 * SECOND))
def test_what_is_held_stays(signals: dict[str, int | None], mode: Mode, pause: int) -> None:
    assert evaluate(signals, POLICY, change_at(mode, START, is_held=True), START + pause, 0) is None


@given(steps)
def test_a_clock_that_goes_backwards_raises_nothing(history: list[tuple[dict[str, int | None], int]]) -> None:
    keeper = Keeper()
    keeper.look(GOOD, START)
    for signals, pause in history:
        depth = keeper.modes[-1].depth
        assert keeper.look(signals, START - abs(pause)).depth >= depth


def test_down_at_once_and_up_by_steps() -> None:
    keeper = Keeper()
    assert keeper.look(GOOD, START) is Mode.FAIL_CLOSED
    assert keeper.last is not None
    assert keeper.last.reasons == (NOTHING_BEFORE,)
    moments = range(START, START + 40 * SECOND, SECOND)
    modes = [keeper.look(GOOD, moment) for moment in moments]
    assert [modes.index(mode) for mode in reversed(MODES)] == [0, 5, 10, 15, 20]
    assert keeper.changes == 5  # and nothing between
    now = moments[-1]
    assert keeper.look(WORSE, now + 1) is Mode.HOLD
    assert keeper.last.reasons == ("lag is 100, at least 10: REDUCED", "lag is 100, at least 100: HOLD")
    assert keeper.look({"lag": None, "posture": 0}, now + 2) is Mode.HOLD
    assert keeper.last.reasons == ("no reason for HOLD any more", "lag is absent: RULES_ONLY")
    assert keeper.look({"posture": 2}, now + 3) is Mode.FAIL_CLOSED


def test_a_reason_that_comes_back_begins_quiet_anew() -> None:
    keeper = Keeper(last=change_at(Mode.REDUCED, START, signals=BAD), changes=1)
    assert keeper.look(GOOD, START + SECOND) is Mode.REDUCED
    assert keeper.look(BAD, START + 5 * SECOND) is Mode.REDUCED
    assert keeper.look(GOOD, START + 6 * SECOND) is Mode.REDUCED
    assert keeper.look(GOOD, START + 11 * SECOND - 1) is Mode.REDUCED
    assert keeper.look(GOOD, START + 11 * SECOND) is Mode.NORMAL


def test_time_that_nobody_looked_at_was_not_quiet() -> None:
    last = change_at(Mode.REDUCED, START)
    assert evaluate(GOOD, POLICY, last, START + 60 * SECOND, START + 58 * SECOND) is None
    proposed = evaluate(GOOD, POLICY, last, START + 60 * SECOND, START + 55 * SECOND)
    assert proposed is not None
    assert proposed.mode is Mode.NORMAL


def test_modes_are_ordered_and_masked() -> None:
    assert [mode.depth for mode in MODES] == [0, 1, 2, 3, 4]
    assert [mode.below() for mode in MODES] == [*MODES[1:], Mode.FAIL_CLOSED]
    assert [mode.above() for mode in MODES] == [Mode.NORMAL, *MODES[:-1]]
    assert set(MASKS) == set(MODES)
    assert [MASKS[mode].model for mode in MODES] == [True, True, False, False, False]


def wrong(**changed: Any) -> dict[str, Any]:
    return {**change_at(Mode.HOLD, START, is_held=True).wire(), **changed}


@pytest.mark.parametrize(
    "content",
    [
        wrong(reasons=[]),
        wrong(mode="PANIC"),
        wrong(sequence=-1),
        wrong(signals={"Not A Name": 1}),
        wrong(signals={"lag": 1.5}),
        wrong(at_utc="yesterday"),
        wrong(actor="4111111111111111"),
        wrong(policy_rev="0.1"),
        wrong(more=1),
    ],
)
def test_what_is_no_change_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        PostureChange.model_validate(content)


def test_a_change_has_one_id() -> None:
    change = PostureChange.model_validate(wrong())
    assert PostureChange.model_validate(change.wire()) == change
    assert change.message_id == PostureChange.model_validate(wrong()).message_id
    assert change.message_id != PostureChange.model_validate(wrong(sequence=1)).message_id


def test_a_mode_is_in_force_where_control_says_so() -> None:
    position = Position(stream_name="control", partition_id="0000", offset=0)
    assert NOTHING_SAID.mode is Mode.FAIL_CLOSED
    assert PostureInForce(mode=Mode.NORMAL, sequence=0, position=position).mode is Mode.NORMAL
    for mode, sequence, place in [(Mode.NORMAL, None, None), (Mode.FAIL_CLOSED, 0, None), (Mode.FAIL_CLOSED, None, position)]:
        with pytest.raises(ValueError, match="in force only where"):
            PostureInForce(mode=mode, sequence=sequence, position=place)
