"""Asks for runs: appended, answered once, and nothing of a run changes by asking."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ofp_platform.scenario.asked_runs import NoSuchAsk, answer_ask
from ofp_platform.storage import run_asks
from ofp_platform.storage.run_asks import TooManyAsks, add_ask, pending_asks, read_ask
from ofp_platform.storage.run_states import read_run_status
from ofp_platform.vocabulary.scenario import RunAsk, RunState
from ofp_platform_tests.scenario.conftest import Site


@pytest.fixture
def site(new_site: Callable[..., Site]) -> Site:
    return new_site()


def ask(site: Site, **fields: object) -> int:
    with site.plane.pool.connection() as connection:
        return add_ask(connection, site.runner.pins, RunAsk.model_validate({"world": "rings", **fields}), "who")


def pending(site: Site) -> list[int]:
    with site.plane.pool.connection() as connection:
        return pending_asks(connection, site.runner.pins)


def test_an_ask_waits_for_a_runner_and_is_answered_once(site: Site) -> None:
    number = ask(site)
    with site.plane.pool.connection() as connection:
        waiting = read_ask(connection, site.runner.pins, number)
        assert read_run_status(connection, site.runner.pins) is None
        assert read_ask(connection, site.runner.pins.model_copy(update={"run_id": "another"}), number) is None
    assert waiting is not None
    assert (waiting.state, waiting.run, waiting.actor) == ("PENDING", None, "who")
    assert pending(site) == [number]
    answer, outcome = answer_ask(site.plane, number, site.runner.now)
    assert (answer.state, answer.problems) == ("READY", ())
    assert outcome is not None
    assert answer.run == outcome.status
    assert answer.run is not None
    assert (answer.run.state, answer.run.actor) == (RunState.READY, "who")
    assert pending(site) == []
    assert answer_ask(site.plane, number, site.runner.now) == (answer, None)
    again, _ = answer_ask(site.plane, ask(site), site.runner.now)
    assert (again.state, again.run) == ("READY", answer.run)


def test_what_a_run_cannot_be_is_refused_in_words(site: Site) -> None:
    answer, outcome = answer_ask(site.plane, ask(site, world="nowhere"), site.runner.now)
    assert (answer.state, outcome) == ("REFUSED", None)
    assert "nowhere" in answer.problems[0]
    answer, _ = answer_ask(site.plane, ask(site, outputs=["no_such_output"]), site.runner.now)
    assert answer.state == "REFUSED"
    assert answer_ask(site.plane, ask(site), site.runner.now)[0].state == "READY"
    answer, outcome = answer_ask(site.plane, ask(site, speedup="7"), site.runner.now)
    assert (answer.state, outcome) == ("REFUSED", None)
    assert answer.problems[0].startswith("EQUIV_KEY_COLLISION")
    assert answer.run is not None
    assert answer.run.state is RunState.READY


def test_an_ask_that_is_none_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoSuchAsk, match="has no ask 7"):
        answer_ask(site.plane, 7, site.runner.now)
    monkeypatch.setattr(run_asks, "MOST_PENDING", 2)
    ask(site)
    ask(site)
    with pytest.raises(TooManyAsks, match="is one at work"):
        ask(site)
