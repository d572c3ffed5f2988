"""The run ledger against a model of it: whatever is asked in whatever order, both say the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ofp_platform.offline.runs.run_lease import LeaseLost, RunLease
from ofp_platform.offline.runs.run_ledger import RetryRefused, RunLedger
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.offline.build_refusal import BuildReason
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.profile import BuildLimits
from ofp_platform_tests.oracle.build_plans import LEAK, STORE_DOWN, dataset_intent, plan_of

LIMIT = 3
NUMBERS = count()


@dataclass
class Model:
    """What a run should be."""

    state: RunState = RunState.QUEUED
    reason: BuildReason | None = None
    publish_only: bool = False
    planned: bool = False
    held: bool = False
    used: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    limit: dict[bool, int] = field(default_factory=lambda: {False: LIMIT, True: LIMIT})

    def fail(self, reason: BuildReason) -> None:
        self.state, self.reason = RunState.FAILED, reason

    @property
    def used_up(self) -> bool:
        return self.used[self.publish_only] >= self.limit[self.publish_only]


class LedgerMachine(RuleBasedStateMachine):
    """One run, one holder at most, and everything that can be asked of the two."""

    ledger: RunLedger

    def __init__(self) -> None:
        super().__init__()
        self.intent = dataset_intent(f"set_{next(NUMBERS)}")
        self.key = self.ledger.submit(self.intent).run_key
        self.model = Model()
        self.lease: RunLease | None = None
        self.context: AbstractContextManager[RunLease | None] | None = None
        self.stale: list[RunLease] = []

    @rule()
    def submit_again(self) -> None:
        assert self.ledger.submit(self.intent).run_key == self.key

    @rule()
    def claim(self) -> None:
        context = self.ledger.claim(self.key)
        lease = context.__enter__()
        model = self.model
        claimable = model.state in (RunState.QUEUED, RunState.RUNNING, RunState.PUBLISH_PENDING) and not model.held
        assert (lease is not None) == (claimable and not model.used_up)
        if lease is None:
            context.__exit__(None, None, None)
            if claimable:
                model.fail(BuildReason.ATTEMPTS_EXHAUSTED)
            return
        self.lease, self.context = lease, context
        model.state, model.reason, model.held = RunState.RUNNING, None, True
        model.used[model.publish_only] += 1
        assert lease.publish_only == model.publish_only

    @precondition(lambda self: self.model.held)
    @rule()
    def builder_dies(self) -> None:
        self._let_go()

    @precondition(lambda self: self.model.held)
    @rule(next_offset=st.integers(1, 3))
    def plan(self, next_offset: int) -> None:
        assert self.lease is not None
        before = self.ledger.show(self.key).plan
        stored = self.lease.store_plan(plan_of(self.intent, next_offset=next_offset))
        assert stored == (before or plan_of(self.intent, next_offset=next_offset))
        self.model.planned = True

    @precondition(lambda self: self.model.held and self.model.planned)
    @rule()
    def succeed(self) -> None:
        assert self.lease is not None
        self.lease.succeed({"rows": 1})
        self.model.state = RunState.DONE
        self._let_go()

    @precondition(lambda self: self.model.held)
    @rule(passing=st.booleans())
    def fail(self, passing: bool) -> None:
        assert self.lease is not None
        self.lease.fail(STORE_DOWN if passing else LEAK)
        exhausted = passing and self.model.used_up
        self.model.fail(BuildReason.ATTEMPTS_EXHAUSTED if exhausted else (STORE_DOWN if passing else LEAK).reason)
        self._let_go()

    @precondition(lambda self: self.model.held and self.model.planned)
    @rule()
    def publish_pending(self) -> None:
        assert self.lease is not None
        self.lease.publish_pending(STORE_DOWN)
        if self.model.publish_only and self.model.used_up:
            self.model.fail(BuildReason.ATTEMPTS_EXHAUSTED)
        else:
            self.model.state, self.model.reason = RunState.PUBLISH_PENDING, BuildReason.STORE_UNAVAILABLE
            self.model.publish_only = True
        self._let_go()

    @rule()
    def retry(self) -> None:
        model = self.model
        if model.state is RunState.FAILED and model.reason is not BuildReason.STORE_UNAVAILABLE:
            with pytest.raises(RetryRefused):
                self.ledger.retry(self.key)
            return
        self.ledger.retry(self.key)
        if model.state is RunState.FAILED:
            self._again(model.publish_only)

    @rule(rebuild=st.booleans())
    def reopen(self, rebuild: bool) -> None:
        self.ledger.reopen(self.key, rebuild=rebuild)
        model = self.model
        if model.state is RunState.FAILED:
            for kind in (False, True):
                model.limit[kind] = max(model.limit[kind], model.used[kind] + LIMIT)
            self._again(model.publish_only and not rebuild)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def the_dead_do_not_write(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.stale))
        with pytest.raises(LeaseLost):
            lease.succeed({"rows": 2})

    @invariant()
    def both_say_the_same(self) -> None:
        run, model = self.ledger.show(self.key), self.model
        assert run.state is model.state
        assert (None if run.refusal is None else run.refusal.reason) == model.reason
        assert run.publish_only == model.publish_only
        assert {False: run.attempts, True: run.publish_attempts} == model.used
        assert {False: run.attempt_limit, True: run.publish_attempt_limit} == model.limit
        assert (run.plan is not None) == model.planned
        assert (run.outcome is not None) == (model.state is RunState.DONE)

    def teardown(self) -> None:
        if self.context is not None:
            self._let_go()

    def _again(self, publish_only: bool) -> None:
        self.model.publish_only = publish_only
        self.model.state = RunState.PUBLISH_PENDING if publish_only else RunState.QUEUED
        if not publish_only:
            self.model.reason, self.model.planned = None, False  # what failed is planned anew

    def _let_go(self) -> None:
        assert self.context is not None
        self.context.__exit__(None, None, None)
        if self.lease is not None:
            self.stale.append(self.lease)
        self.lease, self.context, self.model.held = None, None, False


@pytest.fixture
def ledger(dsn: str) -> Iterator[RunLedger]:
    # every example leaves a request, most of them open, and Hypothesis tries more than `max_examples` when it shrinks
    with open_pool(dsn, max_size=4) as pool:
        yield RunLedger(pool, BuildLimits(max_open_intents=1_000_000))


def test_the_ledger_is_its_model(ledger: RunLedger) -> None:
    machine = type("BoundLedgerMachine", (LedgerMachine,), {"ledger": ledger})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))  # type: ignore[no-untyped-call]
